"""The oracles of NAS-RL's convolutional space (Zoph & Le 2017) and its three compile rules."""

import math

import numpy as np
import pytest
import torch

from nas_cluster.core.errors import ConfigError
from nas_cluster.core.task import ImageTask
from nas_cluster.spaces.layerwise_cnn import LayerwiseCNN
from nas_cluster.spaces.layerwise_cnn.architecture import CNNArchitecture, LayerwiseLayer
from nas_cluster.testing import check_space

CIFAR = ImageTask(32, 32, 3, 10)


def network(*layers, space=None):
    built = [
        LayerwiseLayer(filter_height=3, filter_width=3, filters=n, inputs=inputs, stride_height=s, stride_width=s)
        for n, inputs, s in layers
    ]
    return CNNArchitecture(layers=tuple(built))


@pytest.mark.parametrize("layers,expected", [(6, 2.25e15), (15, 5.02e58), (20, 2.09e93)])
def test_size_of_the_space(layers, expected):
    space = LayerwiseCNN(layers=layers)
    assert space.decisions().size == 64**layers * 2 ** (layers * (layers - 1) // 2)
    assert math.isclose(float(space.decisions().size), expected, rel_tol=0.01)


def test_nas_v1_has_the_papers_parameters():
    """F-A5: the convolution weights of Figure 7 round to 4.2 million; MACs at stride 1 are weights times 1,024."""
    child = LayerwiseCNN(layers=15).build_child(LayerwiseCNN.named()["nas_v1"], CIFAR)
    weights = sum(m.weight.numel() for m in child.modules() if isinstance(m, torch.nn.Conv2d))
    assert round(weights / 1e6, 1) == 4.2
    assert LayerwiseCNN.named()["nas_v1"].unread == (15,)
    from torch.utils.flop_counter import FlopCounterMode

    child = child.to("meta").eval()
    with FlopCounterMode(display=False) as counter:
        child(torch.empty(1, 3, 32, 32, device="meta"))
    assert counter.get_total_flops() == 2 * (weights * 1024 + child.classifier.weight.numel())


def test_without_inputs_a_layer_reads_the_image_and_the_classifier_reads_all():
    """F-A6 (i)."""
    space = LayerwiseCNN(layers=4, filters=(24, 36))
    tokens = tuple(0 if d.head == "skips" else 1 for d in space.decisions())
    child = space.build_child(space.decode(tokens), CIFAR)
    assert [layer.conv.in_channels for layer in child.layers] == [3, 3, 3, 3]
    assert child.classifier.in_features == 4 * 36


def test_with_all_skips_a_layer_reads_all_earlier_ones_and_the_classifier_the_last():
    """F-A6 (ii)."""
    space = LayerwiseCNN(layers=5, filters=(24, 36))
    tokens = tuple(2**d.options - 1 if d.head == "skips" else 0 for d in space.decisions())
    child = space.build_child(space.decode(tokens), CIFAR)
    assert [layer.conv.in_channels for layer in child.layers] == [3, 24, 48, 72, 96]
    assert child.classifier.in_features == 24


@pytest.mark.parametrize("centre", [False, True])
def test_smaller_inputs_are_padded_with_zeros_to_the_largest(centre):
    """F-A6 (iii): 32x32 and 16x16 concatenate at 32x32."""
    space = LayerwiseCNN(child={"padding": "centre" if centre else "bottom_right"})
    child = space.build_child(network((8, (0,), 1), (8, (1,), 2), (8, (1, 2), 1)), CIFAR).eval()
    seen = []
    child.layers[2].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    child(torch.randn(2, 3, 32, 32))
    joined = seen[0]
    assert joined.shape == (2, 16, 32, 32)
    small = joined[:, 8:]
    inside = small[:, :, 8:24, 8:24] if centre else small[:, :, :16, :16]
    assert inside.abs().sum() > 0
    assert torch.allclose(small.abs().sum(), inside.abs().sum())


@pytest.mark.parametrize("size,channels", [((8, 8), 1), ((17, 23), 3), ((28, 28), 1), ((33, 32), 3), ((1, 5), 2)])
def test_random_networks_with_strides_build_and_run(size, channels):
    space = LayerwiseCNN(layers=7, strides=(1, 2, 3), filters=(4, 6))
    rng = np.random.default_rng(0)
    task = ImageTask(*size, channels, 5)
    for _ in range(60):
        architecture = space.decode(space.random(rng))
        child = space.build_child(architecture, task).eval()
        sizes = [size]
        for layer in child.layers:
            layer.register_forward_hook(lambda module, inputs, out, to=sizes: to.append(tuple(out.shape[2:])))
        with torch.no_grad():
            assert torch.isfinite(child(torch.randn(2, channels, *size))).all()
        for layer, got in zip(architecture.layers, sizes[1:], strict=True):
            largest = [max(sizes[j][d] for j in layer.inputs) for d in range(2)]
            strides = (layer.stride_height, layer.stride_width)
            assert got == tuple(math.ceil(n / s) for n, s in zip(largest, strides, strict=True))


V1 = {"layers": 15}
V2 = {"layers": 20, "strides": (1, 2, 3)}
V3 = {"layers": 13, "block": 3, "pools": (13, 24), "filters": (6, 12, 24, 36)}
"""Table 1 of the paper."""


def output_sizes(child, architecture, image):
    """(height, width) of every map as its layer computed it, the image first."""
    sizes = [image]
    hooks = [
        layer.register_forward_hook(lambda module, inputs, out: sizes.append(tuple(out.shape[2:])))
        for layer in child.layers
    ]
    return sizes, hooks


@pytest.mark.parametrize("count", [3, pytest.param(67, marks=pytest.mark.slow)])
@pytest.mark.parametrize("size", [(32, 32), (28, 28), (33, 31), (7, 5), (1, 1)])
@pytest.mark.parametrize("variant", [V1, V2, V3], ids=["v1", "v2", "v3"])
def test_the_compile_rules_hold_for_random_networks_of_every_variant(variant, size, count):
    """Rules 1 to 3 on 1,050 networks at odd and even sizes, on the meta device (shapes only)."""
    space = LayerwiseCNN(**variant)
    rng = np.random.default_rng(count)
    task = ImageTask(*size, 3, 10)
    with torch.device("meta"):
        for _ in range(count):
            architecture = space.decode(space.random(rng))
            child = space.build_child(architecture, task).eval()
            sizes, _ = output_sizes(child, architecture, size)
            assert child(torch.empty(2, 3, *size)).shape == (2, 10)
            filters = [3, *(layer.filters for layer in architecture.layers)]
            for number, (layer, built) in enumerate(zip(architecture.layers, child.layers, strict=True), start=1):
                assert layer.inputs  # rule 1: a layer that selects nothing reads the image
                assert built.conv.in_channels == sum(filters[j] for j in layer.inputs)
                here = [
                    tuple(halved(n, pools_between(architecture, j, number)) for n in sizes[j]) for j in layer.inputs
                ]
                largest = tuple(max(shape[d] for shape in here) for d in range(2))  # rule 3
                strides = (layer.stride_height, layer.stride_width)
                assert sizes[number] == tuple(math.ceil(n / s) for n, s in zip(largest, strides, strict=True))
            read = {j for layer in architecture.layers for j in layer.inputs}
            unread = [number for number in range(1, len(filters)) if number not in read]  # rule 2
            assert child.classifier.in_features == sum(filters[j] for j in unread)


def pools_between(architecture, source, reader):
    return sum(max(source, 1) <= pool < reader for pool in architecture.pools)


def halved(n, times):
    return n if times == 0 else halved(-(-n // 2), times - 1)


def test_blocks_of_three_are_fully_connected_and_pooled_at_the_papers_depths():
    """v3: 13 decided layers, 39 layers; maps halve after layers 13 and 24."""
    space = LayerwiseCNN(**V3)
    assert len(space.decisions()) == 13 * 4
    architecture = space.decode(space.random(np.random.default_rng(0)))
    assert len(architecture.layers) == 39
    assert architecture.pools == (13, 24)
    for first in range(0, 39, 3):
        a, b, c = architecture.layers[first : first + 3]
        assert b.inputs == (*a.inputs, first + 1)
        assert c.inputs == (*a.inputs, first + 1, first + 2)
        assert all(j % 3 == 0 for j in a.inputs)
    child = space.build_child(architecture, CIFAR).eval()
    sizes, _ = output_sizes(child, architecture, (32, 32))
    with torch.no_grad():
        child(torch.randn(1, 3, 32, 32))
    assert [sizes[n] for n in (1, 13, 14, 24, 25, 39)] == [(32, 32)] * 2 + [(16, 16)] * 2 + [(8, 8)] * 2


def test_more_filters_is_an_option_of_the_child():
    """The paper's final network has 40 filters more in every layer; its architecture is the same."""
    space = LayerwiseCNN(**V3)
    architecture = space.decode(space.random(np.random.default_rng(1)))
    with torch.device("meta"):
        plain = space.build_child(architecture, CIFAR)
        more = space.scaled({"extra_filters": 40}).build_child(architecture, CIFAR)
    assert [b.conv.out_channels - a.conv.out_channels for a, b in zip(plain.layers, more.layers, strict=True)] == [
        40
    ] * 39
    with pytest.raises(ConfigError, match=r"scale\.extra_filter: unknown key; did you mean 'extra_filters'"):
        space.scaled({"extra_filter": 40})


def test_a_network_that_is_not_made_of_blocks_is_refused():
    space = LayerwiseCNN(**V3, skip_connections=True).model_copy(update={"layers": 1, "pools": ()})
    good = space.decode(space.random(np.random.default_rng(0)))
    assert space.encode(good)
    wrong = good.model_copy(update={"layers": (*good.layers[:2], good.layers[2].model_copy(update={"inputs": (0,)}))})
    with pytest.raises(ValueError, match="fully connected block of 3"):
        space.encode(wrong)
    with pytest.raises(ValueError, match="pools after layers"):
        space.encode(good.model_copy(update={"pools": (2,)}))


@pytest.mark.parametrize(
    "options",
    [
        {"skip_connections": False},
        {"strides": (1, 2, 3)},
        {"block": 3, "pools": (4, 8)},
        {"block": 2, "skip_connections": False, "pools": (1,)},
        {"layers": 1},
        {"filter_heights": (2, 4), "child": {"padding": "centre"}},
    ],
)
def test_conformance_of_the_variants(options):
    check_space(LayerwiseCNN(**{"layers": 4, "filters": (4, 8), **options}), samples=8)


def test_the_depth_schedule_is_the_papers():
    """F-A7: depth(n) = 6 + 2 floor(n / 1600)."""
    space = LayerwiseCNN(growth={"by": 2, "every": 1600})
    assert [space.at(n).layers for n in (0, 1599, 1600, 12_799)] == [6, 6, 8, 20]
    assert {d.group for d in space.decisions()} == {d.group for d in space.at(12_799).decisions()}
    assert LayerwiseCNN(growth={"until": 10}).at(10**6).layers == 10


def test_architectures_outside_the_space_are_named():
    space = LayerwiseCNN(layers=2)
    with pytest.raises(ValueError, match="layer 2: filters 99"):
        space.encode(network((24, (0,), 1), (99, (1,), 1)))
    with pytest.raises(ValueError, match="layer 1: has strides"):
        space.encode(network((24, (0,), 2), (24, (1,), 1)))
    with pytest.raises(ValueError, match="layer 1: inputs"):
        space.encode(network((24, (1,), 1), (24, (1,), 1)))
    with pytest.raises(ConfigError, match="did you mean 'nas_v1'"):
        space.load_named("nas_v2")


def test_a_drawing_has_every_layer_and_connection():
    architecture = LayerwiseCNN.named()["nas_v1"]
    (drawing,) = LayerwiseCNN(layers=15).draw(architecture)
    assert len(drawing.nodes) == 17
    assert len(drawing.edges) == sum(len(layer.inputs) for layer in architecture.layers) + 1
