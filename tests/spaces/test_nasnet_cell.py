"""The oracles of NASNet's space (Zoph et al. 2018): sizes, shapes, operations counted; random cells; one assembly."""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from plain_nasnet import PlainNASNet
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from nas_cluster.core.errors import ConfigError, InvalidArchitecture
from nas_cluster.core.task import ImageTask
from nas_cluster.nn.protocols import training_logits
from nas_cluster.spaces.nasnet_cell import NASNetCell
from nas_cluster.spaces.nasnet_cell.architecture import OPERATIONS, Block, Cell, NASNetArchitecture
from nas_cluster.spaces.nasnet_cell.assembly import assemble
from nas_cluster.testing import check_space

CIFAR = ImageTask(32, 32, 3, 10)
CIFAR_6 = {"num_cells": 6, "filters": 32, "auxiliary": True}
MOBILE = {"num_cells": 4, "filters": 44, "stem": "imagenet", "stem_multiplier": 1, "auxiliary": True}
LARGE = {"num_cells": 6, "filters": 168, "stem": "imagenet", "skip_reduction_layer_input": True}
NASNET_A = NASNetCell.named()["nasnet_a"]
BY_THE_RULE = NASNetArchitecture(
    normal=Cell(blocks=NASNET_A.normal.blocks), reduction=Cell(blocks=NASNET_A.reduction.blocks)
)


def on_meta(architecture, task, **child):
    with torch.device("meta"):
        return NASNetCell(child=child).build_child(architecture, task)


def count(module):
    return sum(p.numel() for p in module.parameters())


@dataclass
class Measured:
    """Of a network on the meta device: the module, multiply-accumulates counted by torch, and per cell (and the stem)
    the (height, width, channels) of its output."""

    child: torch.nn.Module
    macs: int
    shapes: dict


@cache
def measured(name):
    size, classes, options = {"cifar": (32, 10, CIFAR_6), "mobile": (224, 1000, MOBILE), "large": (331, 1000, LARGE)}[
        name
    ]
    child, shapes = on_meta(NASNET_A, ImageTask(size, size, 3, classes), **options).eval(), {}
    for part, module in [("stem", child.stem), *child.cells.items()]:
        module.register_forward_hook(lambda m, i, out, part=part: shapes.update({part: (*out.shape[2:], out.shape[1])}))
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        child(torch.empty(1, 3, size, size))
    return Measured(child, counter.get_total_flops() // 2, shapes)


# -- published figures


def test_cifar_6_at_768_has_the_published_parameters_part_by_part():
    """F-N1."""
    child = measured("cifar").child
    cells = {name: count(cell) for name, cell in child.cells.items()}
    expected = [40_384, 25_152, *[28_224] * 4, 81_024, 93_312, *[101_504] * 4, 301_312, 350_464, *[383_232] * 4]
    assert [cells[f"normal_{number}"] for number in range(18)] == expected
    assert (cells["reduction_0"], cells["reduction_1"]) == (87_168, 305_408)
    assert (count(child.stem), count(child.classifier), count(child.auxiliary)) == (2_784, 7_690, 1_631_498)
    assert count(child) == 4_978_036
    assert count(child) - count(child.auxiliary) == 3_346_538
    norms = [m for m in child.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert sum(count(m) for m in norms) - 2 * (128 + 768) == 37_248
    assert not any(m.bias is not None for m in child.modules() if isinstance(m, torch.nn.Conv2d))
    assert measured("cifar").macs == 544_333_312


def test_the_rule_of_unused_states_gives_another_network():
    """F-N1: 6 @ 768 with the concatenations that the rule gives."""
    assert BY_THE_RULE.normal.outputs == (2, 3, 4, 5, 6)
    assert BY_THE_RULE.reduction.outputs == (4, 5, 6)
    assert count(on_meta(BY_THE_RULE, CIFAR, num_cells=6)) == 3_076_906


def test_the_search_child_and_the_one_for_re_ranking():
    """F-N5."""
    assert NASNetCell().size_of(NASNET_A, CIFAR) == (1_294_698, 2 * 232_185_344), "N=2 and F=32 are the defaults"
    assert count(on_meta(NASNET_A, CIFAR, num_cells=4, filters=32)) == 2_320_618


def test_mobile_4_at_1056():
    """F-N3."""
    child = measured("mobile").child
    assert (count(child.auxiliary), count(child) - count(child.auxiliary)) == (2_411_240, 5_289_978)
    assert measured("mobile").macs == 563_638_816
    buffers = {name: b.numel() for name, b in child.named_buffers() if name.endswith(("running_mean", "running_var"))}
    assert sum(n for name, n in buffers.items() if not name.startswith("auxiliary")) == 36_738


def test_large_6_at_4032():
    """88,753,150 parameters (the paper's Table 2 says 88.9 million), 23.8 billion operations at 331 x 331."""
    assert count(measured("large").child) == 88_753_150
    assert measured("large").macs == pytest.approx(23.8e9, rel=0.01)


@pytest.mark.parametrize(
    "name,stem,stages,reductions",
    [
        ("cifar", (32, 32, 96), [(32, 32, 192), (16, 16, 384), (8, 8, 768)], [(16, 16, 256), (8, 8, 512)]),
        ("mobile", (28, 28, 88), [(28, 28, 264), (14, 14, 528), (7, 7, 1056)], [(14, 14, 352), (7, 7, 704)]),
        ("large", (42, 42, 336), [(42, 42, 1008), (21, 21, 2016), (11, 11, 4032)], [(21, 21, 1344), (11, 11, 2688)]),
    ],
)
def test_shapes(name, stem, stages, reductions):
    """F-N2."""
    found = measured(name).shapes
    normal = [shape for part, shape in found.items() if part.startswith("normal")]
    assert normal == [shape for shape in stages for _ in range(len(normal) // 3)]
    assert len(normal) == {"cifar": 18, "mobile": 12, "large": 18}[name]
    assert [found["reduction_0"], found["reduction_1"]] == reductions
    assert found["stem" if name == "cifar" else "stem_1"] == stem


def test_size_of_the_space():
    """13 operations, 2 combinations, 5 blocks: the product over blocks of (2 + b)^2 * 13^2 * 2, squared."""
    one_cell = math.prod((2 + b) ** 2 * 13**2 * 2 for b in range(5))
    size = NASNetCell().decisions().size
    assert size == one_cell**2
    assert float(size) == pytest.approx(5.2299e36, rel=1e-4)
    assert len(OPERATIONS) == 13
    assert len(NASNetCell().decisions()) == 50, "2 * 5B softmaxes"


# -- assembly


def test_reductions_stand_before_normal_cells_n_and_2n():
    names = [cell.name for cell in assemble(3, 8, stem_cells=2, skip_reduction=False)]
    normal = [f"normal_{number}" for number in range(9)]
    assert names == ["stem_0", "stem_1", *normal[:3], "reduction_0", *normal[3:6], "reduction_1", *normal[6:]]
    filters = [cell.filters for cell in assemble(3, 8, stem_cells=2, skip_reduction=False)]
    assert filters == [2, 4, 8, 8, 8, 16, 16, 16, 16, 32, 32, 32, 32]


def test_the_cell_before_a_reduction_may_be_skipped():
    plain, skipping = (
        {cell.name: (cell.previous, cell.before) for cell in assemble(2, 8, stem_cells=0, skip_reduction=skip)}
        for skip in (False, True)
    )
    assert plain["normal_0"] == (0, None)
    assert plain["normal_1"] == (1, 0)
    assert plain["reduction_0"] == (2, 1)
    assert plain["normal_2"] == (3, 2)
    assert skipping["normal_2"] == (3, 1)
    assert {name: v for name, v in plain.items() if name not in ("normal_2", "normal_4")} == {
        name: v for name, v in skipping.items() if name not in ("normal_2", "normal_4")
    }


def cells_of(*halves):
    """Both cells of one block that adds these (state, operation)."""
    cell = Cell(blocks=(Block(inputs=tuple(s for s, _ in halves), operations=tuple(o for _, o in halves)),))
    return NASNetArchitecture(normal=cell, reduction=cell)


def test_cells_that_nobody_reads_are_not_built():
    """Cells that read only the cell before leave every other one out; the auxiliary classifier keeps its own."""
    architecture = cells_of((1, "conv_3x3"), (1, "conv_1x1"))
    child = on_meta(architecture, CIFAR, num_cells=2)
    assert list(child.cells) == ["normal_1", "normal_2", "reduction_1", "normal_5"]
    with_auxiliary = on_meta(architecture, CIFAR, num_cells=2, auxiliary=True)
    assert set(with_auxiliary.cells) == {*child.cells, "normal_0", "reduction_0", "normal_3"}


def test_explicit_concatenations_decide_what_is_read():
    with pytest.raises(ValueError, match="nothing reads state 3"):
        Cell(blocks=NASNET_A.normal.blocks, concat=(2, 4, 5, 6))
    with pytest.raises(ValueError, match=r"distinct states of 0\.\.6 in ascending order"):
        Cell(blocks=NASNET_A.normal.blocks, concat=(6, 2))
    assert Cell(blocks=NASNET_A.normal.blocks, concat=(2, 3, 4, 5, 6)).concat is None
    with pytest.raises(ValueError, match=r"block 0 reads state 2, it has 0\.\.1"):
        cells_of((2, "identity"), (0, "identity"))


@pytest.mark.parametrize("concat", [(0, 2), (1, 2), (0, 1, 2)])
def test_cell_inputs_may_be_concatenated(concat):
    """With different sizes they get a factorised reduction, with other filters a 1x1 convolution."""
    cell = Cell(blocks=cells_of((0, "sep_conv_3x3"), (1, "identity")).normal.blocks, concat=concat)
    architecture = NASNetArchitecture(normal=cell, reduction=cell)
    for task in (CIFAR, ImageTask(9, 14, 1, 3)):
        child = NASNetCell(child={"filters": 4, "num_cells": 1}).build_child(architecture, task)
        child(torch.randn(2, task.channels, task.height, task.width)).sum().backward()
        assert all(p.grad is not None for p in child.parameters())


# -- equal to plain cells


@cache
def random_architectures(number, seed=0, **options):
    space, rng = NASNetCell(**options), np.random.default_rng(seed)
    return tuple(space.decode(space.random(rng)) for _ in range(number))


@pytest.mark.parametrize("index", range(6))
def test_outputs_and_gradients_are_those_of_plain_cells(index):
    """Shared ReLUs, work in place, channels_last and gradients of our own change nothing: float64, 1e-10."""
    architectures = [NASNET_A, *[a for a in random_architectures(12) if a.normal.reads(0) and a.reduction.reads(0)]]
    architecture, size = architectures[index], [(16, 16), (13, 18)][index % 2]
    torch.manual_seed(index)
    space = NASNetCell(child={"filters": 4, "num_cells": 1})
    ours = space.build_child(architecture, ImageTask(*size, 3, 10)).double().to(memory_format=torch.channels_last)
    plain = PlainNASNet(architecture, 3, 10, 1, 4).double()
    with torch.no_grad():
        for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
            b.copy_(a)
    images, labels = torch.randn(4, 3, *size, dtype=torch.float64), torch.arange(4)
    logits, expected = ours(images), plain(images)
    assert (logits - expected).abs().max() < 1e-10
    F.cross_entropy(logits, labels).backward()
    F.cross_entropy(expected, labels).backward()
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        assert (a.grad - b.grad).abs().max() < 1e-10
    with torch.no_grad():
        assert (ours.eval()(images) - plain.eval()(images)).abs().max() < 1e-10


# -- random cells


def build_and_run(count, seed):
    """Random cells at 28, 32, 33 and 224 pixels, 1 and 3 channels, either stem, in training and in evaluation."""
    for number, architecture in enumerate(random_architectures(count, seed=seed)):
        size, channels = (28, 32, 33, 224)[number % 4], (1, 3)[number // 4 % 2]
        imagenet = {"stem": "imagenet", "filters": 8, "stem_multiplier": 1} if size == 224 else {"filters": 4}
        extras = {"auxiliary": number % 8 < 4, "drop_path_keep": 0.6, "skip_reduction_layer_input": number % 3 == 0}
        space = NASNetCell(child={"num_cells": 1 + number % 16 // 15, **imagenet, **extras})
        child = space.build_child(architecture, ImageTask(size, size, channels, 10))
        images = torch.randn(2, channels, size, size).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            main, auxiliary = training_logits(child, images)
            assert main.shape == (2, 10)
            assert (auxiliary is not None) == extras["auxiliary"]
            assert auxiliary is None or auxiliary.shape == (2, 10)
            assert bool(torch.isfinite(child.eval()(images)).all())


def test_random_cells_build_and_run_at_any_size():
    build_and_run(16, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_a_thousand_random_cells_build_and_run_at_any_size(seed):
    build_and_run(100, seed)


@pytest.mark.parametrize("size,channels", [(28, 1), (32, 3), (33, 1)])
def test_random_cells_compute(size, channels):
    task = ImageTask(size, size, channels, 10)
    space = NASNetCell(child={"filters": 4, "num_cells": 1, "auxiliary": True, "drop_path_keep": 0.6})
    for architecture in random_architectures(4, seed=size):
        child = space.build_child(architecture, task).to(memory_format=torch.channels_last)
        child.progress.fill_(0.5)
        main, auxiliary = training_logits(child, torch.randn(2, channels, size, size))
        (main.square().sum() + auxiliary.square().sum()).backward()
        assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in child.parameters())


def test_images_smaller_than_the_imagenet_stem_are_refused():
    space = NASNetCell(child={"stem": "imagenet"})
    with pytest.raises(ConfigError, match="imagenet needs images of 3x3 pixels or more, not 2x5x3"):
        space.check(ImageTask(2, 5, 3, 10))
    with pytest.raises(InvalidArchitecture, match="3x3"):
        space.build_child(NASNET_A, ImageTask(2, 5, 3, 10))
    space.check(ImageTask(3, 3, 3, 10))
    assert space.build_child(NASNET_A, ImageTask(3, 3, 3, 10)).eval()(torch.randn(1, 3, 3, 3)).shape == (1, 10)


# -- training-time extras


def test_paths_are_dropped_in_training_only_and_more_of_them_later():
    space = NASNetCell(child={"filters": 4, "num_cells": 1, "drop_path_keep": 0.5})
    child = space.build_child(NASNET_A, ImageTask(8, 8, 1, 3))
    images = torch.randn(16, 1, 8, 8)
    assert torch.equal(child(images), child(images)), "at progress 0 every path is kept"
    child.progress.fill_(1.0)
    assert not torch.equal(child(images), child(images))
    child.eval()
    assert torch.equal(child(images), child(images))
    assert "progress" not in child.state_dict()


def test_drop_path_leaves_the_identity_alone():
    """A cell of identities never drops anything, even where they carry a 1x1 convolution."""
    child = NASNetCell(child={"filters": 4, "num_cells": 1, "drop_path_keep": 0.1}).build_child(
        cells_of((0, "identity"), (1, "identity")), ImageTask(8, 8, 1, 3)
    )
    child.progress.fill_(1.0)
    images = torch.randn(16, 1, 8, 8)
    assert torch.equal(child(images), child(images))


def test_children_are_scaled_without_changing_their_decisions():
    space = NASNetCell()
    larger = space.scaled({"num_cells": 6, "filters": 44, "auxiliary": True})
    assert larger.decisions() == space.decisions()
    assert larger.child.filters == 44
    with pytest.raises(ConfigError, match=r"scale\.filter: unknown key; did you mean 'filters'"):
        space.scaled({"filter": 44})
    with pytest.raises(ConfigError, match="with the imagenet stem, whose cells have a quarter, at least 8"):
        space.scaled({"filters": 4, "stem": "imagenet"})


# -- the space


@pytest.mark.parametrize(
    "options",
    [
        {"selection": "pointer", "blocks": 3},
        {"operations": ["identity", "sep_conv_3x3"], "combinations": ["add"], "blocks": 3},
        {"operations": ["max_pool_7x7"], "combinations": ["concat"], "blocks": 2},
        {"blocks": 1, "selection": "pointer"},
        {"blocks": 2, "child": {"auxiliary": True, "drop_path_keep": 0.6, "dropout": 0.5, "num_cells": 1}},
        {"blocks": 2, "child": {"stem": "imagenet", "filters": 8, "skip_reduction_layer_input": True, "num_cells": 1}},
    ],
)
def test_conformance_of_the_variants(options):
    child = {"filters": 4, "num_cells": 1} | options.get("child", {})
    tasks = (ImageTask(8, 8, 1, 10), ImageTask(17, 23, 3, 4))
    check_space(NASNetCell(**{**options, "child": child}), samples=8, tasks=tasks)


def test_pointers_attend_to_the_steps_that_made_the_states():
    spec = NASNetCell(blocks=3, selection="pointer").decisions()
    assert spec.size == NASNetCell(blocks=3).decisions().size
    names = [d.name for d in spec]
    last = spec[names.index("reduction.block_2.input_1")]
    assert [names[c] for c in last.candidates] == [
        "reduction.previous_cell",
        "reduction.cell_before",
        "reduction.block_0",
        "reduction.block_1",
    ]
    assert all(spec[c].head == "anchor" for c in last.candidates)


def test_architectures_outside_the_space_are_named():
    space = NASNetCell(operations=["identity", "sep_conv_3x3", "sep_conv_5x5"])
    reason = r"normal cell: concatenates the states \[1, 2, 3, 4, 5, 6\].*that no block reads, here \[2, 3, 4, 5, 6\]"
    with pytest.raises(ValueError, match=reason):
        NASNetCell().encode(NASNET_A)
    with pytest.raises(ValueError, match="normal cell, block 2: avg_pool_3x3 is not among"):
        space.encode(BY_THE_RULE)
    with pytest.raises(ValueError, match="normal cell: 5 blocks, the space has 4"):
        NASNetCell(blocks=4).encode(BY_THE_RULE)
    assert NASNetCell().decode(NASNetCell().encode(BY_THE_RULE)) == BY_THE_RULE
    with pytest.raises(ConfigError, match="did you mean 'nasnet_a'"):
        NASNetCell().load_named("nasnet_b")
    with pytest.raises(ValueError, match="each may be named once"):
        NASNetCell(operations=["identity", "identity"])


def shuffled(cell, rng):
    """The same cell with halves exchanged and blocks renumbered at random."""
    renamed, blocks, waiting = {0: 0, 1: 1}, [], dict(enumerate(cell.blocks, start=2))
    while waiting:
        ready = [s for s, block in waiting.items() if all(i in renamed for i in block.inputs)]
        state = int(rng.choice(ready))
        block = waiting.pop(state)
        order = [0, 1] if rng.integers(2) else [1, 0]
        blocks.append(
            Block(
                inputs=tuple(renamed[block.inputs[i]] for i in order),
                operations=tuple(block.operations[i] for i in order),
                combination=block.combination,
            )
        )
        renamed[state] = len(blocks) + 1
    concat = None if cell.concat is None else tuple(sorted(renamed[s] for s in cell.concat))
    return Cell(blocks=tuple(blocks), concat=concat)


@pytest.mark.parametrize("operations", [OPERATIONS, ("identity", "conv_1x1")])
def test_the_canonical_form_does_not_depend_on_numbering(operations):
    """With two operations many blocks are equal, which is where a greedy order would go wrong."""
    space, rng = NASNetCell(operations=operations), np.random.default_rng(0)
    for architecture in [NASNET_A, *(space.decode(space.random(rng)) for _ in range(60))]:
        canonical = space.canonical(architecture)
        assert space.canonical(canonical) == canonical
        for _ in range(4):
            other = NASNetArchitecture(
                normal=shuffled(architecture.normal, rng), reduction=shuffled(architecture.reduction, rng)
            )
            assert space.canonical(other) == canonical
            assert space.key(other) == space.key(architecture)


def test_equal_keys_mean_equal_networks():
    """The canonical child has the parameters and operations of the given one; different cells have different keys."""
    space, rng = NASNetCell(), np.random.default_rng(1)
    small = space.scaled({"num_cells": 1})
    for _ in range(2):
        architecture = space.decode(space.random(rng))
        assert small.size_of(architecture, CIFAR) == small.size_of(space.canonical(architecture), CIFAR)
    tiny = NASNetCell(blocks=1, operations=["identity", "conv_1x1"], combinations=["add"])
    keys = {tiny.key(tiny.decode(tokens)) for tokens in np.ndindex(*(d.options for d in tiny.decisions()))}
    assert len(keys) == 10**2, "per cell the multisets of two out of 2 states x 2 operations"


def test_many_equal_blocks_are_put_in_order_quickly():
    block = Block(inputs=(0, 1), operations=("identity", "identity"))
    cell = Cell(blocks=(block,) * 12)
    assert NASNetCell(blocks=12).canonical(NASNetArchitecture(normal=cell, reduction=cell)).normal == cell


def test_drawings_have_two_operations_and_a_combination_per_block():
    normal, reduction = NASNetCell().draw(NASNET_A)
    assert (normal.title, reduction.title) == ("normal cell", "reduction cell")
    for drawing, outputs in ((normal, 6), (reduction, 4)):
        assert len(drawing.nodes) == 2 + 3 * 5 + 1
        assert len(drawing.edges) == 4 * 5 + outputs
    assert NASNetCell().summary(NASNET_A).startswith("s5₀s3₁ s5₁s3₁ a3₀id₁ a3₁a3₁ s3₀id₀ / s5₀s7₁")


def test_the_cell_made_by_hand_is_a_residual_network():
    """Per normal cell: two squeezing 1x1 convolutions are not built for what nobody reads, and two 3x3 ones are."""
    space = NASNetCell(child={"num_cells": 1, "filters": 8, "stem_multiplier": 1})
    residual = space.load_named("residual")
    network = space.build_child(residual, ImageTask(14, 14, 1, 10))
    kernels = [m.kernel_size for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert kernels.count((3, 3)) == 1 + 2 * 5, "the stem, and two in each of three normal and two reduction cells"
    assert network(torch.zeros(2, 1, 14, 14)).shape == (2, 10)
