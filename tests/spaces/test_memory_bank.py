"""SMASH's space (Brock et al. 2018): oracles of the released code, the sampler, what generated weights mean."""

import doctest

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nas_cluster.cluster.learners.partition import Layout
from nas_cluster.core.component import build_component
from nas_cluster.core.decisions import DecisionSpec
from nas_cluster.core.errors import ConfigError, InvalidArchitecture
from nas_cluster.core.task import ImageTask
from nas_cluster.report.drawing import layers_of
from nas_cluster.spaces import SearchSpace
from nas_cluster.spaces.memory_bank import MemoryBank, network, walk
from nas_cluster.spaces.memory_bank.architecture import BankArchitecture, BankBlock, BankOp, Convolution
from nas_cluster.spaces.memory_bank.encoding import channels_of, condition
from nas_cluster.spaces.memory_bank.geometry import Geometry
from nas_cluster.spaces.memory_bank.hypernet import pack
from nas_cluster.spaces.memory_bank.network import run_block, run_op
from nas_cluster.spaces.memory_bank.plan import NetworkPlan, middle_channels
from nas_cluster.strategies.regularized_evolution import RegularizedEvolution
from nas_cluster.strategies.reinforce import Reinforce
from nas_cluster.testing import check_shared, check_space

CIFAR = ImageTask(32, 32, 3, 10)
TASK = ImageTask(8, 8, 1, 10)
SINGLE = (Convolution(kernel=(3, 3)), None, None, None)


def small(**changes):
    options = {"unit": 4, "max_units": 4, "depth": 4, "width": 2, "groups": (1, 2, 4), "max_ops": 8, "max_kernel": 5}
    return MemoryBank(**{**options, "hypernet": {"first": 3, "growth": 4, "layers": (2, 1)}, **changes})


def tiny(**changes):
    """Networks of a few thousand weights."""
    return small(**{"unit": 2, "max_units": 3, "depth": 3, "groups": (1, 2), "max_ops": 3, **changes})


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def random_of(space, seed=0):
    return space.decode(space.random(np.random.default_rng(seed)))


def op(reads, writes, units, convolutions=SINGLE):
    return BankOp(reads=reads, writes=writes, units=units, convolutions=convolutions)


def network_of(*ops, bank_size):
    """The same block three times."""
    block = BankBlock(bank_size=bank_size, ops=ops)
    return BankArchitecture(blocks=(block, block, block))


# -- oracles of the released code --------------------------------------------------------------------------------------


def test_budgets_of_the_released_defaults():
    """F-S1."""
    blocks = MemoryBank().block_sizes
    assert [block.inputs for block in blocks] == [64, 96, 112]
    assert [block.channels for block in blocks] == [192, 224, 256]
    assert [block.reads for block in blocks] == [832, 1632, 3184]
    assert MemoryBank().max_banks == 32
    assert [channels_of(Geometry(operation=o)) for o in ("single", "variable", "big")] == [91, 143, 139]
    assert sum(block.reads for block in blocks) // (8 * 2) == sum(block.slices for block in blocks) == 353


def test_sizes_of_the_hypernetwork_layer_by_layer():
    """F-S2."""
    with torch.device("meta"):
        nets = {o: MemoryBank(operation=o).build_shared(CIFAR).generator for o in ("single", "variable")}
    assert {o: parameters(net) for o, net in nets.items()} == {"single": 582_541, "variable": 795_858}
    shapes = [tuple(p.shape) for p in nets["variable"].parameters()]
    found = {(i, o, k) for o, i, k, _ in shapes}
    expected = {(144, 7, 3), (231, 115, 3), (215, 107, 3), (147, 128, 1)}
    expected |= {(i, 10, 3) for i in (*range(151, 222, 10), *range(115, 206, 10), *range(107, 138, 10))}
    assert found == expected
    assert len(shapes) == 8 + 10 + 4 + 4


def test_sizes_of_what_is_learned_freely():
    """F-S3. Convolutions that no operation has are not made: three of four where each has one."""
    with torch.device("meta"):
        shared = MemoryBank().build_shared(ImageTask(32, 32, 3, 100))
        ten = MemoryBank().build_shared(CIFAR)
        single = MemoryBank(operation="single").build_shared(ImageTask(32, 32, 3, 100))
    convolutions = parameters(shared.blocks)
    assert convolutions == 3 * 49 * 64 * (128 + 64 + 128 + 64) == 3_612_672
    assert parameters(shared.stem) == 9_408
    assert parameters(shared) - convolutions - parameters(shared.generator) == 79_972
    assert parameters(shared) == 4_488_502
    assert parameters(ten) == 4_465_372
    assert parameters(single) == 4_275_185 - 3 * 49 * 64 * (64 + 128 + 64)


@pytest.mark.parametrize("unit,compression,k,slices,columns", [(3, 2, 4, 5, 1), (2, 3, 2, 4, 1), (2, 2, 3, 3, 2)])
def test_packing(unit, compression, k, slices, columns):
    """F-S5: W[q D N + j, i N + m] = O[m D N + j, i, q]."""
    rows, n = compression * unit, unit * columns
    out = torch.arange(rows * n * k * slices).view(rows * n, k, slices)
    w = pack(out, rows)
    assert w.shape == (slices * rows, k * n)
    for q in range(slices):
        for j in range(rows):
            for i in range(k):
                for m in range(n):
                    assert w[q * rows + j, i * n + m] == out[m * rows + j, i, q]


def test_generated_matrices_have_norm_one():
    """F-S6."""
    space = small()
    torch.manual_seed(0)
    shared = space.build_shared(TASK)
    for seed in range(5):
        tensors = shared.tensors_of(random_of(space, seed))
        norms = torch.stack([torch.linalg.vector_norm(t) for name, t in tensors.items() if name.endswith("reduce")])
        assert torch.allclose(norms, torch.ones_like(norms), atol=1e-6)


def test_only_architecture_and_noise_decide_the_weights():
    """F-S8."""
    space = small()
    torch.manual_seed(0)
    generator = space.build_shared(TASK).generator
    architecture = random_of(space)
    plan = NetworkPlan(space.geometry, architecture)
    c = torch.from_numpy(condition(space.geometry, plan))

    def weights(c, seed):
        torch.manual_seed(seed)
        return generator(c)

    assert torch.equal(weights(c, 1), weights(c, 1))
    assert not torch.allclose(weights(c, 1), weights(c, 2))
    for channel in range(len(c)):
        other = c.clone()
        other[channel] *= -1
        assert not torch.equal(weights(c, 1), weights(other, 1)), channel


def test_one_bank_read_and_written_is_a_residual_network():
    """F-S7."""
    space = MemoryBank(bank_sizes=(8,), depth=2)
    two = (Convolution(kernel=(3, 3)), Convolution(kernel=(3, 3)), None, None)
    architecture = network_of(op((0,), (0,), 8, two), op((0,), (0,), 8, two), bank_size=8)
    assert space.decode(space.encode(architecture)) == architecture
    child = space.scaled({"norm": "none"}).build_child(architecture, CIFAR)
    x = torch.randn(2, 64, 8, 8)
    expected = x
    for part in child.blocks[0]:
        inside = F.relu(F.conv2d(expected, part.reduce))
        inside = F.conv2d(inside, part.weights["0"], padding=1)
        expected = expected + F.conv2d(F.relu(inside), part.weights["1"], padding=1)
    assert torch.allclose(run_block(NetworkPlan(space.geometry, architecture).blocks[0], child.blocks[0], x), expected)


def test_reading_all_and_writing_anew_is_a_dense_network():
    """F-S7."""
    space = MemoryBank()
    architecture = MemoryBank.named()["densenet"]
    child = space.scaled({"norm": "none"}).build_child(architecture, TASK)
    x = torch.randn(2, 64, 8, 8)
    features = x
    for part in child.blocks[0]:
        y = F.conv2d(F.relu(F.conv2d(features, part.reduce)), part.weights["0"], padding=1)
        features = torch.cat([features, y], 1)
    assert torch.allclose(run_block(NetworkPlan(space.geometry, architecture).blocks[0], child.blocks[0], x), features)
    assert features.shape[1] == 64 + 7 * 16


# -- operations and encoding -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mask,formula",
    [
        ("1000", lambda w, r: w[0](r)),
        ("1010", lambda w, r: w[0](r) + w[2](r)),
        ("1100", lambda w, r: w[1](F.relu(w[0](r)))),
        ("1110", lambda w, r: w[1](F.relu(w[0](r))) + w[2](r)),
        ("1111", lambda w, r: w[1](F.relu(w[0](r))) + w[3](F.relu(w[2](r)))),
    ],
)
def test_paths_of_an_operation(mask, formula):
    space = MemoryBank()
    convolutions = [Convolution(kernel=k) for k in ((3, 5), (7, 3), (3, 3), (5, 5))]
    chosen = tuple(c if there == "1" else None for c, there in zip(convolutions, mask, strict=True))
    plan = NetworkPlan(space.geometry, network_of(op((0,), (0,), 4, chosen), bank_size=4)).blocks[0].ops[0]
    torch.manual_seed(0)
    reduce = torch.randn(plan.middle, plan.inputs, 1, 1)
    modules = [nn.Conv2d(32, 32, c.kernel, padding=c.padding, bias=False) for c in convolutions]
    x = torch.randn(2, 32, 9, 9)
    weights = [m.weight if there == "1" else None for m, there in zip(modules, mask, strict=True)]
    expected = formula(modules, F.relu(F.conv2d(x, reduce)))
    assert torch.allclose(run_op(plan, x, reduce, weights), expected, atol=1e-5)


@pytest.mark.parametrize(
    "options,expected",
    [
        ({}, {(32, 32): 32, (8, 32): 8, (128, 32): 128 - 64, (64, 8): 32, (24, 16): 16, (256, 64): 64}),
        ({"max_bottleneck": 4, "columns": 4}, {(128, 32): 128, (256, 8): 32, (40, 16): 32}),
        ({"bottleneck_rule": "constant", "max_bottleneck": 4, "columns": 4}, {(8, 8): 32, (128, 64): 256}),
        ({"bottleneck_rule": "capped", "bottleneck": 2, "columns": 2}, {(24, 16): 24, (40, 16): 32, (8, 64): 8}),
    ],
)
def test_outputs_of_the_1x1_convolution(options, expected):
    """Section B.3: by the release's rule, SMASHv1's and SMASHv2's; here no more than there are columns."""
    assert {sizes: middle_channels(Geometry(**options), *sizes) for sizes in expected} == expected


def test_dilations_keep_the_extent_within_nine():
    space = MemoryBank()
    assert [space.most_dilation(kernel) for kernel in space.kernels] == [3, 2, 1]
    assert max((k - 1) * space.most_dilation(k) + 1 for k in space.kernels) == 9


def test_channels_of_the_encoding():
    """Reads 32, writes 32, block 3, units 8, then per convolution 6 dilations and 6 kernels, the mask, 4 groups."""
    space = MemoryBank()
    second = Convolution(kernel=(7, 3), dilation=(1, 2), groups=4)
    first = op((0, 1, 2, 3), (3, 8), 2, (Convolution(kernel=(5, 3), dilation=(2, 3)), None, second, None))
    block = BankBlock(bank_size=1, ops=(first, op((1, 8), (0,), 1, SINGLE)))
    plan = NetworkPlan(space.geometry, BankArchitecture(blocks=(block, block, block)))
    c = condition(space.geometry, plan)
    assert c.shape == (143, 8, 3 * 3)
    on = [set(np.flatnonzero(c[:, 0, s] == 1)) for s in range(9)]
    write, at, dilation, kernel, mask, groups = 32, 64, 75, 99, 123, 127
    shared = {write + 3, write + 8, at + 0, at + 3 + 1}
    shared |= {dilation + 1, dilation + 3 + 2, dilation + 12 + 0, dilation + 15 + 1}
    shared |= {kernel + 1, kernel + 3 + 0, kernel + 12 + 2, kernel + 15 + 0}
    shared |= {mask + 0, mask + 2, groups + 0, groups + 8 + 2}
    assert on[0] == shared | {0, 1}
    assert on[1] == shared | {2, 3}
    assert {1, 8, write, at, at + 3, mask} < on[2]
    assert at + 1 in on[3] and at + 2 in on[8]
    rows = (c[0] == 1).any(1)
    assert rows.tolist() == [True, True, *[False] * 6], "as many rows as the output has units"
    assert set(np.unique(c)) == {-1, 1}


# -- random architectures ----------------------------------------------------------------------------------------------


def test_random_architectures_are_those_of_the_released_sampler():
    space = MemoryBank()
    rng = np.random.default_rng(0)
    architectures = [space.decode(space.random(rng)) for _ in range(60)]
    masks, kernels = {}, {}
    for architecture in architectures:
        for sizes, block in zip(space.block_sizes, architecture.blocks, strict=True):
            size, live = block.bank_size, sizes.live(block.bank_size)
            assert size % 2 == 0 or live >= 2
            cost = 0
            for one in block.ops:
                assert one.reads[-1] < live, "an empty bank is never read"
                assert len(one.reads) * size % 2 == 0
                pieces = one.units // size
                assert one.units % size == 0
                assert pieces <= len(one.writes) <= max(live // 2, pieces)
                new = [bank for bank in one.writes if bank >= live]
                assert new == list(range(live, live + len(new))), "banks fill in order"
                live += len(new)
                cost += len(one.reads) * size // 2
                masks[one.mask] = masks.get(one.mask, 0) + 1
                for c in one.convolutions:
                    if c is not None:
                        kernels[c.kernel] = kernels.get(c.kernel, 0) + 1
                        assert all(d <= space.most_dilation(k) for k, d in zip(c.kernel, c.dilation, strict=True))
            assert live <= sizes.banks(size)
            assert cost <= sizes.slices
            assert len(block.ops) == space.max_ops or cost >= 0.3 * sizes.slices - max(size, 2)
    total = sum(masks.values())
    expected = {"1000": 0.05, "1010": 0.10, "1100": 0.15, "1110": 0.25, "1111": 0.45}
    for word, share in expected.items():
        found = masks[tuple(bit == "1" for bit in word)] / total
        assert abs(found - share) < 4 * (share * (1 - share) / total) ** 0.5
    assert len(kernels) == 9
    assert max(kernels.values()) < 1.4 * min(kernels.values())


def test_reads_are_as_many_as_the_budget_pays_and_sizes_follow_them():
    """How many banks are read is even over all that are live; outputs are most often as large as what is read."""
    space = MemoryBank(bank_sizes=(2,), max_ops=1)
    rng = np.random.default_rng(0)
    first = [space.decode(space.random(rng)).blocks[0].ops[0] for _ in range(300)]
    counts = np.bincount([len(one.reads) for one in first], minlength=5)[1:]
    assert len(counts) == 4
    assert counts.min() > 45, "four banks are live: 1 to 4, even"
    same = np.mean([one.units == 2 * len(one.reads) for one in first])
    assert same > 0.97, "1 / 0.01 against 1 / 20.01 for the neighbours"


def test_a_search_begins_with_small_networks():
    space = MemoryBank()
    early, late = space.during(0.0), space.during(0.5)
    assert early.decisions() == space.decisions()
    assert (early.sampling.max_budget, early.sampling.max_kernel) == (0.5, 3)
    assert (space.during(0.25).sampling.max_budget, space.during(0.25).sampling.max_kernel) == (0.75, 5)
    assert (late.sampling.max_budget, late.sampling.max_kernel) == (1.0, 7)
    assert space.during(0.9).random(np.random.default_rng(0)) == late.random(np.random.default_rng(0))
    rng = np.random.default_rng(0)
    for _ in range(20):
        architecture = space.decode(early.random(rng))
        assert all(c is None or c.kernel == (3, 3) for b in architecture.blocks for o in b.ops for c in o.convolutions)
    steady = MemoryBank(sampling={"growing": 0})
    assert steady.during(0.0).sampling.max_budget == 1.0


def test_perturbation_draws_one_element_in_twenty():
    space = small()
    rng = np.random.default_rng(0)
    changed, elements = 0, 0
    for seed in range(40):
        tokens = space.random(np.random.default_rng(seed))
        before = space.decode(tokens)
        assert space.decisions().resample(tokens, 0.0, rng) == tokens
        after = space.decode(space.decisions().resample(tokens, 0.05, rng))
        for old, new in zip(before.blocks, after.blocks, strict=True):
            assert old.bank_size == new.bank_size
            for one, other in zip(old.ops, new.ops, strict=False):
                changed += one.mask != other.mask
                elements += 1
    assert 0.01 < changed / elements < 0.06, "a mask drawn anew may be the same: 0.05 * 0.7"
    tokens = space.random(rng)
    assert space.decode(space.decisions().resample(tokens, 1.0, rng)) != space.decode(tokens)


def test_tokens_of_any_origin_are_an_architecture():
    space = small()
    spec, rng = space.decisions(), np.random.default_rng(0)
    for _ in range(100):
        architecture = space.decode(DecisionSpec.random(spec, rng))
        again = space.encode(architecture)
        assert space.decode(again) == architecture
        mutated = space.mutate(again, rng)
        assert space.decode(mutated) != architecture, "a mutation is of something that is there"


def test_what_does_not_fit_is_named():
    space = MemoryBank()
    good = op((0, 1), (2,), 4)

    def wrong(*ops, bank_size=4):
        with pytest.raises(ValueError, match="block 1") as error:
            space.encode(network_of(*ops, bank_size=bank_size))
        return str(error.value)

    assert "operation 1: reads [0, 5], what would fit is [0]" in wrong(good, op((0, 5), (0,), 4))
    assert "operation 0: writes [4], what would fit is [2]" in wrong(op((0,), (4,), 4))
    assert "units 9 is not among" in wrong(op((0,), (0,), 9))
    assert "bank size 3 is not among" in wrong(good, bank_size=9).replace("9", "3", 1)
    assert "kernel height 9 is not among [3, 5, 7]" in wrong(
        op((0,), (0,), 4, (Convolution(kernel=(9, 3)), None, None, None))
    )
    assert "groups 3 is not among" in wrong(op((0,), (0,), 4, (Convolution(kernel=(3, 3), groups=3), None, None, None)))
    assert "operations from 13 on cost more than the block's budget" in wrong(*[op((0, 1), (0,), 4)] * 15)
    assert "40 operations, the space has at most 36" in wrong(*[op((0,), (0,), 4)] * 40)


# -- children ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "space",
    [
        small(),
        tiny(operation="single", compression=3, max_kernel=3, groups=(1,), bottleneck_rule="constant"),
        tiny(operation="long", child={"norm": "full", "stem_kernel": 3}),
        tiny(operation="big", hypernet={"transition_kernel": 1}, columns=2, bottleneck_rule="capped", bottleneck=2),
    ],
    ids=["variable", "single", "long", "big"],
)
def test_conformance(space):
    check_space(space, samples=10)


@pytest.mark.slow
def test_200_networks_with_generated_weights_equal_children_with_the_same_tensors():
    check_shared(tiny(), TASK, samples=200)


def test_more_banks_than_a_decision_selects_from():
    space = tiny(width=20, max_units=2)
    assert space.block_sizes[2].banks(1) > 62
    assert {d.options for d in space.decisions() if d.head == "skips"} == {62, 120 - 62, 140 - 124, 160 - 124}
    rng = np.random.default_rng(0)
    for _ in range(5):
        tokens = space.random(rng)
        assert space.encode(space.decode(tokens)) == tokens


def test_a_child_alone_has_batch_norms_and_weights_of_its_own():
    space = small()
    architecture = random_of(space, 1)
    sizes = {}
    for norm in ("none", "sandwich", "full"):
        child = space.scaled({"norm": norm}).build_child(architecture, TASK)
        sizes[norm] = parameters(child)
    plan = NetworkPlan(space.geometry, architecture)
    ops = [one for block in plan.blocks for one in block.ops]
    assert sizes["sandwich"] - sizes["none"] == 2 * sum(one.inputs + one.middle for one in ops)
    inside = sum(part.inputs for one in ops for part in one.convolutions if part is not None)
    assert sizes["full"] - sizes["none"] == 2 * (sum(one.inputs for one in ops) + inside)
    free = space.build_child(architecture, TASK)
    first, second = free.blocks[2][0], free.blocks[2][1]
    assert first.weights["0"].data_ptr() != second.weights["0"].data_ptr()


def test_published_networks():
    """Figure 1: what reads and writes what."""
    space = MemoryBank()
    for architecture in space.named().values():
        assert space.decode(space.encode(architecture)) == architecture
    residual, dense, fractal = (space.named()[name] for name in ("resnet", "densenet", "fractalnet"))
    assert {(o.reads, o.writes) for b in residual.blocks for o in b.ops} == {((0,), (0,))}
    for place, one in enumerate(dense.blocks[0].ops):
        assert (one.reads, one.writes) == (tuple(range(4 + place)), (4 + place,))
    pattern = [(o.reads, o.writes) for o in fractal.blocks[0].ops]
    inputs = (0, 1)
    assert pattern == [
        (inputs, (2,)),
        ((2,), (3,)),
        (inputs, (3,)),
        ((3,), (4,)),
        ((4,), (5,)),
        ((3,), (5,)),
        (inputs, (5,)),
    ]


def test_drawing_of_banks():
    """The residual network is a chain bank, operation, bank, ...; the dense one reads every bank that is there."""
    space = MemoryBank()
    drawing = space.draw(space.named()["resnet"])[0]
    layers = layers_of(drawing)
    banks = [node for node in drawing.nodes if node.style == "memory"]
    assert len(banks) == 7, "the input and after each of six operations"
    assert layers["output"] == 2 + 2 * 6
    dense = space.draw(space.named()["densenet"])[0]
    for place in range(7):
        assert sum(edge.target == f"op{place}" for edge in dense.edges) == 4 + place
    known = [node.id for node in dense.nodes]
    assert all(known.index(edge.source) < known.index(edge.target) for edge in dense.edges), "topological order"
    assert space.summary(space.named()["resnet"]) == "1·64 6 ops / 1·64 6 ops / 1·64 6 ops"


@pytest.mark.parametrize(
    "strategy", [Reinforce(), RegularizedEvolution(population=2, tournament=2)], ids=lambda strategy: strategy.kind
)
def test_any_strategy_searches_it(strategy):
    """A controller samples tokens of any kind; evolution begins with the sampler's. All are architectures."""
    space = tiny()
    spec = space.decisions()
    tensors = strategy.initial_weights(spec, 1)
    weights = Layout.of(tensors).flatten(tensors)
    proposer, state = strategy.proposer(spec), strategy.initial_state()
    for seed in range(2):
        proposal = proposer.propose(weights, state, spec, 3, seed)
        for tokens in proposal.tokens:
            architecture = space.decode(tokens)
            assert space.decode(space.encode(architecture)) == architecture
        gradient = proposer.gradient(weights, state, spec, proposal, [0.1, 0.5, 0.3])
        assert np.isfinite(gradient.vector).all()
        state = strategy.observe(state, proposal.tokens, [0.1, 0.5, 0.3])


@pytest.mark.parametrize("module", [network, walk], ids=lambda module: module.__name__.rpartition(".")[2])
def test_examples_in_docstrings(module):
    found = doctest.testmod(module, extraglobs={"Geometry": Geometry})
    assert found.attempted
    assert not found.failed


def test_a_geometry_is_the_numbers_of_its_space():
    """How architectures are drawn and networks built is not part of it, so that spaces that differ there share it."""
    assert tiny().geometry == tiny(sampling={"growing": 0}, child={"norm": "none"}).geometry
    assert tiny().geometry == Geometry(**{name: tiny().model_dump()[name] for name in Geometry.model_fields})
    assert tiny(depth=4).geometry != tiny().geometry


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options,message",
    [
        ({"groups": (1, 3)}, "3 does not divide the unit of 8 channels"),
        ({"max_kernel": 4}, "max_kernel 4 is even; use 5"),
        ({"bank_sizes": (9,)}, "9 units are more than max_units 8"),
        ({"bank_sizes": (3,), "width": 1}, "block 1, 16 channels, has no bank size"),
        ({"sampling": {"min_budget": 0.8}}, "must be in this order"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        build_component(SearchSpace, {"kind": "memory_bank", **options}, where="space")


def test_images_that_are_too_small_are_refused():
    space = tiny()
    with pytest.raises(ConfigError, match="3x8 are too small"):
        space.check(ImageTask(3, 8, 1, 10))
    with pytest.raises(InvalidArchitecture):
        space.build_child(random_of(space), ImageTask(3, 8, 1, 10))
