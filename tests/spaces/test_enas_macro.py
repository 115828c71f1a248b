"""ENAS's macro space (Pham et al. 2018, section 2.3): oracles, and what shared weights mean."""

import math

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nas_cluster.controllers.lstm import LSTM
from nas_cluster.core.errors import ConfigError, InvalidArchitecture
from nas_cluster.core.task import ImageTask
from nas_cluster.spaces.enas_macro import ENASMacro
from nas_cluster.spaces.enas_macro.architecture import OPERATIONS, MacroArchitecture, pool_places
from nas_cluster.strategies._skip_prior import SkipPrior
from nas_cluster.testing import check_shared, check_space

CIFAR = ImageTask(32, 32, 3, 10)
SMALL = ImageTask(8, 8, 1, 10)
PUBLISHED = ENASMacro.named()["published"]


def small(**options):
    child = {"filters": 4, **options.pop("child", {})}
    return ENASMacro(**{"layers": 6, **options}, child=child)


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def network(*layers, wiring="inputs"):
    rows = [{"operation": operation, "reads": reads} for operation, reads in layers]
    return MacroArchitecture.model_validate({"layers": rows, "wiring": wiring})


def test_size_of_the_space():
    assert ENASMacro().decisions().size == 6**12 * 2**66 == 160_618_186_625_454_535_808_756_219_904
    assert ENASMacro(preset="release").decisions().size == ENASMacro().decisions().size


def test_the_published_network_is_transcribed_right():
    """Section D.7: 24 layers, 98 skip connections, these operations, no pool."""
    assert sum(len(layer.reads) for layer in PUBLISHED.layers) == 98
    numbers = [OPERATIONS.index(layer.operation) for layer in PUBLISHED.layers]
    assert numbers == [0, 3, 0, 2, 2, 3, 2, 2, 1, 0, 2, 0, 2, 1, 0, 2, 2, 2, 3, 3, 0, 3, 0, 0]
    assert PUBLISHED.layers[2].reads == (0,)
    assert PUBLISHED.layers[7].reads == (1, 2, 4, 5, 6)
    space = ENASMacro(preset="release", layers=24)
    assert space.decode(space.encode(PUBLISHED)) == PUBLISHED


@pytest.mark.parametrize("full_separable,expected", [(True, 42_559_392), (False, 30_947_424)])
def test_the_published_networks_parameters(full_separable, expected):
    """F-E3, as the release builds it and with true separable convolutions."""
    child = {"form": "final", "filters": 96, "full_separable": full_separable}
    with torch.device("meta"):
        built = ENASMacro(layers=24, child=child).build_child(PUBLISHED, CIFAR).eval()
        maps = []
        for layer in built.layers:
            layer.register_forward_hook(lambda module, inputs, out: maps.append(tuple(out.shape[1:3])))
        with FlopCounterMode(display=False) as counter:
            built(torch.empty(1, 3, 32, 32))
    assert parameters(built) == expected
    assert maps == [(96, 32)] * 8 + [(192, 16)] * 8 + [(384, 8)] * 8
    if full_separable:
        assert counter.get_total_flops() == 2 * 5_646_094_080


def test_the_released_shared_network():
    """F-E4: the sum, and that of one layer's operations."""
    with torch.device("meta"):
        shared = ENASMacro(preset="release").build_shared(CIFAR)
    assert parameters(shared) == 697_860
    expected = {"conv_3x3": 13_104, "sep_conv_3x3": 3_060, "conv_5x5": 33_840, "sep_conv_5x5": 3_636}
    for operation in OPERATIONS:
        assert parameters(shared.layers[5].operations[operation]) == expected.get(operation, 1_368)


def test_the_papers_shared_network():
    """A 36x36 matrix for every layer and map it may read, one norm per layer, and the operations without a 1x1
    convolution of their own; the classifier has a matrix per layer."""
    with torch.device("meta"):
        shared = ENASMacro().build_shared(CIFAR)
    operations = 56_376 - 6 * 1_368
    joins = 36 * 36 * (12 * 13 // 2) + 12 * 72
    reductions = (5 + 9) * 1_368
    assert parameters(shared) == 12 * operations + joins + reductions + (27 * 36 + 72) + 12 * 360


def test_the_controller():
    """F-E4: 41,856 weights at 64 units; ours has biases besides, of the LSTM and of the operations' softmax. F-E7:
    67.248828 nats for uniform decisions."""
    spec = ENASMacro().decisions()
    controller = LSTM(layers=1, hidden_size=64).build(spec, seed=0)
    assert parameters(controller) == 41_856 + 4 * 64 + 6
    for parameter in controller.parameters():
        torch.nn.init.zeros_(parameter)
    tokens_BT = torch.tensor([spec.random(np.random.default_rng(seed)) for seed in range(3)])
    assert torch.allclose(-controller.scores(spec, tokens_BT).log_probs_B, torch.tensor(67.248828))
    assert math.isclose(12 * math.log(6) + 66 * math.log(2), 67.248828, abs_tol=1e-6)


def test_the_divergence_of_uniform_skips():
    """F-E7: .0204110 nats per pair from a rate of 0.4, 1.3471258 for all 66, .1224660 on average over 11 layers."""
    spec = ENASMacro().decisions()
    controller = LSTM(layers=1, hidden_size=64).build(spec, seed=0)
    for parameter in controller.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        skips = controller.scores(spec, torch.tensor([spec.random(np.random.default_rng(0))])).skips
    prior = SkipPrior(rate=0.4)
    assert [p_BN.shape for p_BN in skips] == [(1, n) for n in range(1, 12)]
    assert float(prior.divergence([skips[0]])) == pytest.approx(0.0204110, abs=1e-6)
    assert sum(float(prior.divergence([p_BN])) for p_BN in skips) == pytest.approx(1.3471258, abs=1e-5)
    assert float(prior.divergence(skips)) == pytest.approx(0.1224660, abs=1e-6)


def test_bits_are_layers_in_the_paper_and_maps_in_the_release():
    tokens = (0, 0, 1, 0b1, 2, 0b10, 3, 0b101)
    paper, release = (ENASMacro(preset=p, layers=4).decode(tokens) for p in ("paper", "release"))
    assert [layer.reads for layer in paper.layers] == [(0,), (1,), (2,), (1, 3)]
    assert [layer.reads for layer in release.layers] == [(), (0,), (1,), (0, 2)]
    assert [release.sources(n) for n in (1, 2, 3, 4)] == [(0,), (0, 1), (1, 2), (0, 2, 3)]
    assert (paper.classified, release.classified) == ((4,), (4,))


def test_in_the_paper_unread_layers_go_to_the_classifier():
    alone = network(("conv_3x3", (0,)), ("max_pool_3x3", (0,)), ("conv_5x5", (0,)), ("avg_pool_3x3", (2,)))
    assert alone.classified == (1, 3, 4)
    child = ENASMacro(layers=4, child={"filters": 4}).build_child(alone, SMALL)
    assert list(child.classifier.weights) == ["1", "3", "4"]
    assert child(torch.randn(3, 1, 8, 8)).shape == (3, 10)


@pytest.mark.parametrize("layers,expected", [(1, ()), (2, ()), (3, (1, 2)), (12, (4, 8)), (24, (8, 16))])
def test_maps_are_halved_after_each_third(layers, expected):
    assert pool_places(layers) == expected


def test_only_maps_that_are_read_behind_a_halving_are_halved():
    space = small(layers=3)
    child = space.build_child(network(("conv_3x3", (0,)), ("conv_3x3", (1,)), ("conv_3x3", (1,))), SMALL)
    assert {place: list(maps) for place, maps in child.reductions.items()} == {"1": ["1"], "2": ["1", "2"]}


def test_a_layer_of_either_wiring_by_hand():
    images = torch.randn(5, 1, 8, 8)
    normalised = torch.nn.functional.batch_norm
    for wiring, preset in (("inputs", "paper"), ("skips", "release")):
        reads = (1, 2) if wiring == "inputs" else (0, 1)
        first, second = ((0,), (1,)) if wiring == "inputs" else ((), ())
        rows = [("max_pool_3x3", first), ("max_pool_3x3", second), ("max_pool_3x3", reads)]
        shared = ENASMacro(preset=preset, layers=63, child={"filters": 3}).model_copy(update={"layers": 3})
        child = shared.build_child(network(*rows, wiring=wiring), SMALL)
        child._halved_after = ()
        seen = []
        child.layers[2].register_forward_hook(lambda module, args, out, to=seen: to.extend((args[1], out)))
        child(images)
        maps, out = seen
        if wiring == "inputs":
            weight = torch.cat([child.layers[2].join.weights[str(m)] for m in reads], 1)
            x = torch.nn.functional.conv2d(torch.cat([maps[1], maps[2]], 1), weight)
            expected = torch.nn.functional.max_pool2d(normalised(x, None, None, training=True).relu(), 3, 1, 1)
        else:
            squeezed = normalised(
                child.layers[2].operations["max_pool_3x3"].squeeze.conv(maps[2]), None, None, training=True
            )
            pooled = torch.nn.functional.max_pool2d(squeezed.relu(), 3, 1, 1)
            expected = normalised(pooled + maps[0] + maps[1], None, None, training=True)
        assert torch.allclose(out, expected, atol=1e-4)


@pytest.mark.parametrize("form", ["search", "final"])
@pytest.mark.parametrize("preset", ["paper", "release"])
@pytest.mark.parametrize("samples", [5, pytest.param(200, marks=pytest.mark.slow)])
def test_a_child_alone_computes_what_the_shared_network_does(preset, form, samples):
    check_shared(small(preset=preset, child={"form": form}), SMALL, samples=samples, seed=samples)


def test_operations_and_matrices_are_shared_by_reference_and_others_get_no_gradient():
    """F-E9."""
    shared = small(layers=3).build_shared(SMALL)
    a = network(("conv_3x3", (0,)), ("sep_conv_3x3", (1,)), ("conv_5x5", (1, 2)))
    b = network(("conv_3x3", (0,)), ("max_pool_3x3", (1,)), ("conv_5x5", (2,)))
    of_a, of_b = shared.tensors_of(a), shared.tensors_of(b)
    assert "layers.2.join.weights.1" in of_a
    assert "layers.2.join.weights.1" not in of_b
    common = set(of_a) & set(of_b)
    assert {"layers.2.join.weights.2", "layers.2.operations.conv_5x5.spatial.conv.weight"} <= common
    assert all(of_a[name] is of_b[name] for name in common)
    shared(torch.randn(4, 1, 8, 8), a).sum().backward()
    assert {name for name, p in shared.named_parameters() if p.grad is not None} == set(of_a)


def test_the_shared_network_scores_with_the_batchs_own_statistics():
    space = small(preset="release")
    shared = space.build_shared(SMALL)
    architecture = space.decode(space.random(np.random.default_rng(0)))
    images = torch.randn(8, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(shared.train()(images, architecture), shared.eval()(images, architecture))
    assert not list(shared.named_buffers())


def test_networks_of_the_other_wiring_are_refused():
    with pytest.raises(
        InvalidArchitecture, match="24 layers wired as skips; the shared network has 24, wired as inputs"
    ):
        small(layers=24).build_shared(SMALL)(torch.zeros(1, 1, 8, 8), PUBLISHED)
    with pytest.raises(ValueError, match="wired as skips, networks of preset paper as inputs"):
        ENASMacro(layers=24).encode(PUBLISHED)
    with pytest.raises(ValueError, match="24 layers, the space has 12"):
        ENASMacro(preset="release").encode(PUBLISHED)
    with pytest.raises(ValueError, match="layer 2: reads"):
        network(("conv_3x3", (0,)), ("conv_3x3", (2,)))
    with pytest.raises(ValueError, match="layer 1: reads nothing"):
        network(("conv_3x3", ()))
    with pytest.raises(ValueError, match="layer 2: reads map 0"):
        ENASMacro(layers=2).encode(network(("conv_3x3", (0,)), ("conv_3x3", (0, 1))))


def test_the_releases_mistake_is_not_made_while_searching():
    with pytest.raises(ConfigError, match="full_separable"):
        ENASMacro().scaled({"full_separable": True})


@pytest.mark.parametrize(
    "options",
    [
        {"layers": 1},
        {"layers": 2, "preset": "release"},
        {"layers": 7, "preset": "release", "operations": ("sep_conv_5x5", "avg_pool_3x3")},
        {"layers": 5, "child": {"form": "final", "full_separable": True, "dropout": 0.5}},
        {"layers": 5, "preset": "release", "child": {"form": "final"}},
    ],
)
def test_conformance_of_the_variants(options):
    check_space(small(**options), samples=6, tasks=(ImageTask(9, 11, 3, 4),))


def test_a_drawing_has_every_layer_and_connection():
    (drawing,) = ENASMacro().draw(PUBLISHED)
    assert len(drawing.nodes) == 26
    assert len(drawing.edges) == 98 + 24 + 1
