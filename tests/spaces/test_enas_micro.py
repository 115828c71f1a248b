"""ENAS's micro space (Pham et al. 2018, section 2.4): oracles, and what shared weights mean."""

import itertools

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nas_cluster.controllers.lstm import LSTM
from nas_cluster.core.errors import ConfigError
from nas_cluster.core.task import ImageTask
from nas_cluster.nn.protocols import training_logits
from nas_cluster.spaces.enas_micro import ENASMicro
from nas_cluster.spaces.enas_micro.architecture import OPERATIONS, Cell, MicroArchitecture
from nas_cluster.testing import check_shared, check_space

CIFAR = ImageTask(32, 32, 3, 10)
SMALL = ImageTask(8, 8, 1, 10)
PUBLISHED = ENASMicro.named()["published"]


def small(**options):
    child = {"layers": 2, "filters": 4, **options.pop("child", {})}
    return ENASMicro(child=child, **options)


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def architecture_of(space, seed):
    return space.decode(space.random(np.random.default_rng(seed)))


def cell(*nodes):
    words = dict(zip(("s3", "s5", "a3", "m3", "id"), OPERATIONS, strict=True))
    rows = [{"inputs": (x, y), "operations": (words[a], words[b])} for x, a, y, b in nodes]
    return Cell.model_validate({"nodes": rows})


def test_size_of_the_space():
    """Ordered: (5^(B-2) (B-1)!)^4 with B = 7."""
    assert ENASMicro().decisions().size == (5**5 * 720) ** 4 == 25_628_906_250_000_000_000_000_000


def test_the_published_network():
    """F-E1: parameters, auxiliary head, multiplications, maps (section D.7: which states are loose ends)."""
    assert PUBLISHED.normal.loose_ends == (2, 3, 4, 5, 6)
    assert PUBLISHED.reduction.loose_ends == (2, 4, 5, 6)
    space = ENASMicro(child={"form": "final", "layers": 15, "filters": 36, "auxiliary": True})
    with torch.device("meta"):
        child = space.build_child(PUBLISHED, CIFAR)
        maps = []
        for part in child.cells:
            part.register_forward_hook(lambda module, inputs, out: maps.append(tuple(out.shape[1:3])))
        with FlopCounterMode(display=False) as counter:
            child.eval()(torch.empty(1, 3, 32, 32))
    assert parameters(child.auxiliary) == 494_848
    assert parameters(child) - parameters(child.auxiliary) == 3_894_372
    assert counter.get_total_flops() == 2 * 620_907_552
    assert maps == [(180, 32)] * 5 + [(288, 16)] + [(360, 16)] * 5 + [(576, 8)] + [(720, 8)] * 5


def test_the_released_shared_network():
    """F-E2."""
    with torch.device("meta"):
        shared = ENASMicro(preset="release", child={"auxiliary": True}).build_shared(CIFAR)
    assert parameters(shared.auxiliary) == 412_928
    assert parameters(shared) - parameters(shared.auxiliary) == 5_373_140


def test_the_papers_shared_network_differs_by_the_reductions():
    """From F to 2F filters, in place of factorised reductions of the input, one for either state: 1x1 convolutions of
    two inputs (the first time the older one is the stem, 3F), a factorised reduction of the older input of the cell
    behind, and halvings of an input: an identity per half of a node and input, and the two loose ends."""
    with torch.device("meta"):
        ours, released = (
            parameters(ENASMicro(preset=p, child={"layers": 3}).build_shared(CIFAR)) for p in ("paper", "release")
        )
    between = 0
    for f, older in ((20, 60), (40, 40)):
        adjusting = (older * 2 * f + 4 * f) + (f * 2 * f + 4 * f) + (f * 2 * f + 4 * f)
        halving = (5 * 2 * 2 + 2) * (4 * f * f + 4 * f)
        between += adjusting + halving - 2 * (f * 2 * f + 4 * f)
    assert ours - released == between


def test_the_controller():
    """F-E2: 41,733 weights at 64 units; ours has the LSTM's bias besides. F-E7: 58.505763 nats."""
    spec = ENASMicro().decisions()
    network = LSTM(layers=1, hidden_size=64).build(spec, seed=0)
    assert parameters(network) == 41_733 + 4 * 64
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    tokens_BT = torch.tensor([ENASMicro().encode(PUBLISHED), spec.random(np.random.default_rng(0))])
    assert torch.allclose(-network.scores(spec, tokens_BT).log_probs_B, torch.tensor(58.505763))
    per_cell = network.scores(spec, tokens_BT).log_probs_BT[0].view(2, -1).sum(1)
    assert torch.allclose(-per_cell, torch.tensor(29.252882))


def test_the_released_controller_favours_convolutions():
    """Spec D.4: with zero weights and C = 1.10 an operation's probabilities are those of its biases alone."""
    spec = ENASMicro(preset="release").decisions()
    settings = LSTM(
        layers=1,
        hidden_size=64,
        tanh_constant=1.10,
        choice_tanh_constant=1.10 / 2.5,
        initial_biases={"operation": (10, 10, 0, 0, 0)},
    )
    network = settings.build(spec, seed=0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name != "outputs.operation.bias":
                parameter.zero_()
    of_cell = {
        "normal": (0.3153, 0.3153, 0.1232, 0.1232, 0.1232),
        "reduction": (0.2543, 0.2543, 0.1638, 0.1638, 0.1638),
    }
    for token in range(5):
        tokens = [token if d.group == "operation" else 0 for d in spec]
        log_probs_T = network.scores(spec, torch.tensor([tokens])).log_probs_BT[0].detach()
        for d, log_prob in zip(spec, log_probs_T, strict=True):
            if d.group == "operation":
                assert float(log_prob.exp()) == pytest.approx(of_cell[d.name.partition(".")[0]][token], abs=5e-5)


def test_decisions_are_in_the_order_of_the_released_sampler():
    spec = ENASMicro(nodes=2).decisions()
    names = [d.name for d in spec][: len(spec) // 2]
    assert names[:7] == [
        "normal.cell_before",
        "normal.previous_cell",
        "normal.node_0.input_1",
        "normal.node_0.input_2",
        "normal.node_0.operation_1",
        "normal.node_0.operation_2",
        "normal.node_0",
    ]
    assert spec[names.index("normal.node_1.input_2")].candidates == (0, 1, 6)
    assert {d.group for d in spec} == {"anchor", "input", "operation"}


@pytest.mark.parametrize("order", list(itertools.permutations(range(2))))
def test_numbering_and_halves_do_not_matter(order):
    first, second = (0, "s3", 1, "id"), (1, "s5", 1, "m3")
    rows = [(first, second)[i] for i in order]
    at = {number: 2 + place for place, number in enumerate(order)}
    one = cell(*rows, (at[0], "a3", at[1], "s3"))
    other = cell((1, "m3", 1, "s5"), (1, "id", 0, "s3"), (2, "s3", 3, "a3"))
    different = cell(*rows, (at[0], "s3", at[1], "a3"))
    keys = [ENASMicro().key(MicroArchitecture(normal=c, reduction=c)) for c in (one, other, different)]
    assert keys[0] == keys[1] != keys[2]


def test_canonical_cells_are_the_same_for_every_order_of_random_cells():
    rng = np.random.default_rng(0)
    space = ENASMicro()
    for _ in range(30):
        normal = space.decode(space.random(rng)).normal
        nodes, order = normal.nodes, []
        while len(order) < len(nodes):
            ready = [
                n for n in range(len(nodes)) if n not in order and all(s < 2 or s - 2 in order for s in nodes[n].inputs)
            ]
            order.append(int(rng.choice(ready)))
        at = {0: 0, 1: 1, **{2 + n: 2 + place for place, n in enumerate(order)}}
        shuffled = []
        for n in order:
            halves = [(at[s], o) for s, o in nodes[n].halves]
            inputs, operations = zip(*(halves[::-1] if rng.random() < 0.5 else halves), strict=True)
            shuffled.append({"inputs": inputs, "operations": operations})
        again = Cell.model_validate({"nodes": shuffled})
        one, other = (space.canonical(MicroArchitecture(normal=c, reduction=c)) for c in (normal, again))
        assert one == other


@pytest.mark.parametrize("preset", ["paper", "release"])
@pytest.mark.parametrize("samples", [4, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_a_child_alone_computes_what_the_shared_network_does(preset, samples):
    space = small(preset=preset, child={"layers": 2 if samples < 10 else 3})
    check_shared(space, SMALL, samples=samples, seed=samples)


@pytest.mark.parametrize("preset", ["paper", "release"])
def test_with_auxiliary_head_drop_path_and_dropout_too(preset):
    space = small(preset=preset, child={"auxiliary": True, "drop_path_keep": 0.5, "dropout": 0.2})
    check_shared(space, ImageTask(17, 23, 3, 4), samples=2)


def test_edges_are_shared_by_reference_and_others_get_no_gradient():
    """F-E9."""
    space = small(nodes=2)
    shared = space.build_shared(SMALL)
    one = cell((0, "s3", 1, "s5"), (2, "id", 1, "a3"))
    other = cell((0, "s3", 1, "s3"), (2, "id", 1, "a3"))
    a, b = (MicroArchitecture(normal=c, reduction=one) for c in (one, other))
    of_a, of_b = shared.tensors_of(a), shared.tensors_of(b)
    kept, left, new = (
        "cells.0.edges.0_0_0_sep_conv_3x3",
        "cells.0.edges.0_1_1_sep_conv_5x5",
        "cells.0.edges.0_1_1_sep_conv_3x3",
    )
    for name in set(of_a) & set(of_b):
        assert of_a[name] is of_b[name]
    weight = "depthwise_1.weight"
    assert f"{kept}.{weight}" in of_a
    assert f"{kept}.{weight}" in of_b
    shared(torch.randn(4, 1, 8, 8), a).sum().backward()
    named = dict(shared.named_parameters())
    assert named[f"{kept}.{weight}"].grad is not None
    assert named[f"{left}.{weight}"].grad is not None
    assert named[f"{new}.{weight}"].grad is None
    assert {name for name, p in named.items() if p.grad is not None} == set(of_a)


def test_the_shared_network_scores_with_the_batchs_own_statistics():
    shared = small().build_shared(SMALL)
    images, architecture = torch.randn(8, 1, 8, 8), architecture_of(small(), 0)
    with torch.no_grad():
        assert torch.equal(shared.train()(images, architecture), shared.eval()(images, architecture))
    assert not [name for name, _ in shared.named_buffers() if name != "progress"]


def test_the_two_presets_reduce_differently():
    """Section G: in the released search both inputs of a reduction cell are made from one map; in the paper they are
    the outputs of two cells, and the operations on them halve."""
    architecture = MicroArchitecture(normal=cell((0, "id", 1, "id")), reduction=cell((0, "id", 1, "id")))
    seen = {}
    for preset in ("paper", "release"):
        shared = small(preset=preset, nodes=1, child={"layers": 3}).build_shared(SMALL)
        reduction = shared.cells[1]
        reduction.register_forward_pre_hook(lambda module, args, to=preset: seen.update({to: args[1:3]}))
        shared(torch.randn(4, 1, 8, 8), architecture)
        assert ("0_0_0_identity" in reduction.edges) is (preset == "paper")
    sizes = {preset: [m.raw.shape[2] for m in maps] for preset, maps in seen.items()}
    assert sizes == {"paper": [8, 8], "release": [8, 4]}


def test_a_cell_of_pools_and_identities_by_hand():
    """Search form, one cell: batch norm of the 1x1 convolution of the rectified sum."""
    space = ENASMicro(nodes=1, child={"layers": 1, "filters": 4, "stem_multiplier": 1})
    child = space.build_child(
        MicroArchitecture(normal=cell((0, "a3", 1, "id")), reduction=cell((0, "a3", 1, "id"))), SMALL
    )
    part = child.cells[-1]  # the normal cell, behind two reductions: inputs of 8 and 16 filters
    maps = []
    part.register_forward_pre_hook(lambda module, args: maps.extend(m.raw for m in args[1:3]))
    part.register_forward_hook(lambda module, args, out: maps.append(out))
    child(torch.randn(6, 1, 16, 16))
    before, previous, out = maps
    x = part.adjust_before(before.relu())
    total = torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False) + previous
    weight = part.output.weights["2"]
    assert list(part.output.weights) == ["2"]
    y = torch.nn.functional.conv2d(total.relu(), weight)
    expected = (y - y.mean((0, 2, 3), keepdim=True)) / (y.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
    assert torch.allclose(out, expected, atol=1e-5)


def test_an_unread_input_is_a_loose_end():
    only_newer = cell((1, "s3", 1, "id"))
    assert only_newer.loose_ends == (0, 2)
    both = MicroArchitecture(normal=only_newer, reduction=only_newer)
    child = small(nodes=1, child={"form": "final", "layers": 3}).build_child(both, SMALL)
    assert {part.channels // 4 for part in child.cells} == {2, 4, 8}
    assert child(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_drop_path_follows_the_progress():
    child = small(child={"drop_path_keep": 0.3}).build_child(architecture_of(small(), 1), SMALL)
    images = torch.randn(16, 1, 8, 8)
    with torch.no_grad():
        child.progress.zero_()
        assert torch.allclose(child(images), child(images), atol=1e-6)
        child.progress.fill_(1)
        assert not torch.allclose(child(images), child(images), atol=1e-3)


def test_the_auxiliary_head_is_asked_for_as_in_every_space():
    architecture = architecture_of(small(), 2)
    with_head = small(child={"auxiliary": True}).build_child(architecture, SMALL)
    _, auxiliary = training_logits(with_head, torch.randn(4, 1, 8, 8))
    assert auxiliary.shape == (4, 10)
    assert training_logits(small().build_child(architecture, SMALL), torch.randn(4, 1, 8, 8))[1] is None


def test_final_networks_share_nothing():
    with pytest.raises(ConfigError, match="form: final"):
        small(child={"form": "final"}).build_shared(SMALL)


@pytest.mark.parametrize(
    "options",
    [
        {"nodes": 1, "operations": ("identity", "avg_pool_3x3")},
        {"nodes": 3, "preset": "release"},
        {"nodes": 6, "operations": ("sep_conv_5x5", "max_pool_3x3")},
        {"nodes": 2, "child": {"layers": 1, "auxiliary": True}},
    ],
)
def test_conformance_of_the_variants(options):
    check_space(small(**options), samples=6, tasks=(ImageTask(9, 11, 3, 4),))


def test_architectures_outside_the_space_are_named():
    with pytest.raises(ValueError, match="normal cell: 5 nodes, the space has 3"):
        ENASMicro(nodes=3).encode(PUBLISHED)
    with pytest.raises(ValueError, match="node 0: avg_pool_3x3 is not among"):
        ENASMicro(operations=("sep_conv_3x3",)).encode(PUBLISHED)
    with pytest.raises(ValueError, match="node 0 reads state 2"):
        cell((2, "id", 0, "id"))
