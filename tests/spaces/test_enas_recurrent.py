"""ENAS's recurrent cells (Pham et al. 2018, section 2.1): oracles, the fast scan against the plain cell of child.py,
shared weights."""

import doctest
import math

import numpy as np
import pytest
import torch

from nas_cluster.controllers.lstm import LSTM
from nas_cluster.core.errors import ConfigError
from nas_cluster.core.task import LanguageTask
from nas_cluster.spaces.enas_recurrent import ENASRecurrent
from nas_cluster.spaces.enas_recurrent.architecture import RecurrentArchitecture
from nas_cluster.spaces.enas_recurrent.child import DagLayer
from nas_cluster.spaces.enas_recurrent.fast import plan, plan_of
from nas_cluster.testing import check_shared, check_space

NAMED = ENASRecurrent.named()
PTB = LanguageTask(10_000)
SMALL = {"hidden_size": 6}


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def layer(architecture, inputs=4, units=5, *, norm=False, per_activation=False, seed=0):
    torch.manual_seed(seed)
    edges = architecture.edges(per_activation=per_activation)
    built = DagLayer(edges, per_activation, norm, inputs, units).double()
    built.choose(architecture)
    with torch.no_grad():
        for weight in built.parameters():
            weight.uniform_(-0.8, 0.8)
    return built


def step_by_step(built, x, h, mask=None):
    """What child.py's definition of the cell gives: the layer with its fast path off."""
    built.fast = False
    outputs, (last,) = built(x, (h,), mask)
    built.fast = True
    assert "Scan" not in type(outputs.grad_fn).__name__
    assert torch.equal(last, outputs[-1])
    return outputs


def random_cell(rng, number):
    preset = "release" if number % 3 == 0 else "paper"
    space = ENASRecurrent(nodes=int(rng.integers(1 if preset == "paper" else 2, 13)), preset=preset)
    return space.decode(space.random(rng))


def test_size_of_the_space():
    assert ENASRecurrent().decisions().size == 4**12 * math.factorial(11)
    assert math.isclose(ENASRecurrent().decisions().size, 6.697e14, rel_tol=1e-3)
    assert ENASRecurrent(preset="release", nodes=9).decisions().size == 4**8 * math.factorial(8)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("name", ["published", "published_script"])
def test_the_published_cell_gives_the_known_number(name, fast):
    """F-E6, the scalar vector."""
    built = layer(NAMED[name], 1, 1)
    with torch.no_grad():
        built.input_weight.copy_(torch.tensor([[0.6, 0.9]], dtype=torch.float64))
        built.hidden_weight.copy_(torch.tensor([[-0.4, 0.3]], dtype=torch.float64))
        for edge in built.edges.values():
            edge.copy_(torch.tensor([[0.5, 1.5]]))
        x, h = (torch.full((1, 1), value, dtype=torch.float64) for value in (0.5, 0.2))
        out = built(x[None], (h,))[0][0] if fast else built.cell(x, (h,))[0]
    assert math.isclose(out.item(), 0.9707525603, abs_tol=1e-10)


def test_the_first_nodes_of_the_scalar_vector():
    for nodes, expected in ((1, 0.34975999), (2, 0.42125175)):
        built = layer(RecurrentArchitecture.of("tanh", [(0, "tanh")] * (nodes - 1)), 1, 1)
        with torch.no_grad():
            built.input_weight.copy_(torch.tensor([[0.6, 0.9]], dtype=torch.float64))
            built.hidden_weight.copy_(torch.tensor([[-0.4, 0.3]], dtype=torch.float64))
            for edge in built.edges.values():
                edge.copy_(torch.tensor([[0.5, 1.5]]))
            h = torch.full((1, 1), 0.2, dtype=torch.float64)
            out = built(torch.full((1, 1, 1), 0.5, dtype=torch.float64), (h,))[0]
        assert math.isclose(out.item(), expected, abs_tol=1e-7)


def test_the_two_published_forms_are_one_cell():
    space = ENASRecurrent()
    published, script = NAMED["published"], NAMED["published_script"]
    assert published != script
    assert space.key(published) == space.key(script)
    assert space.canonical(published) == space.canonical(script)
    assert published.averaged == (3, 5, 6, 9, 10, 11)
    assert script.averaged == (3, 4, 7, 9, 10, 11)


def test_isomorphic_trees_have_one_key_and_others_do_not():
    rng = np.random.default_rng(0)
    for number in range(60):
        cell = random_cell(rng, number)
        order = [0]
        while len(order) < len(cell.nodes):  # another numbering in which every node comes after the one it reads
            ready = [n for n in range(len(cell.nodes)) if n not in order and cell.nodes[n].previous in order]
            order.append(int(rng.choice(ready)))
        rest = [(order.index(cell.nodes[n].previous), cell.nodes[n].activation) for n in order[1:]]
        again = RecurrentArchitecture.of(cell.nodes[0].activation, rest, cell.average)
        assert ENASRecurrent().key(cell) == ENASRecurrent().key(again)
    chain = RecurrentArchitecture.of("tanh", [(0, "relu"), (1, "relu")])
    fork = RecurrentArchitecture.of("tanh", [(0, "relu"), (0, "relu")])
    assert len({ENASRecurrent().key(c) for c in (chain, fork, NAMED["published"])}) == 3


def test_the_figure_1_example():
    cell = RecurrentArchitecture.of("tanh", [(0, "relu"), (1, "relu"), (0, "tanh")])
    assert cell.averaged == (2, 3)
    space = ENASRecurrent(nodes=4)
    assert space.encode(cell) == (0, 0, 0, 1, 1, 1, 0, 0)


def test_parameters():
    """F-E5: 26 D^2 + V D for 12 nodes; `enas_lm`'s 20 D^2 + V D; its shared network; that of the first release, which
    also has four matrices per edge and for the first node: four times ours."""
    with torch.device("meta"):
        final = ENASRecurrent(child={"form": "final", "hidden_size": 748}).build_child(NAMED["published"], PTB)
        later = ENASRecurrent(preset="release", nodes=9, child={"hidden_size": 800}).build_child(NAMED["enas_lm"], PTB)
        searched = ENASRecurrent(preset="release", nodes=10, child={"hidden_size": 200}).build_shared(PTB)
        ours = ENASRecurrent(child={"form": "final", "hidden_size": 720}).build_shared(PTB)
    assert parameters(final) == 26 * 748**2 + 10_000 * 748 == 22_027_104
    assert parameters(later) == 20_800_000
    assert parameters(searched) == 16_560_000
    table = 720 * 10_000
    assert parameters(ours) == 136 * 720**2 + table
    assert 4 * (parameters(ours) - table) + table == 289_209_600


def test_the_hidden_size_of_24_million_parameters():
    with torch.device("meta"):
        child = ENASRecurrent(child={"form": "final", "parameters": 24_000_000}).build_child(NAMED["published"], PTB)
    assert abs(parameters(child) - 24_000_000) < 26 * 2 * 788 + 10_000
    assert child.decoder.weight is child.embedding.weight


def test_the_shared_network_has_the_childs_hidden_size():
    space = ENASRecurrent(child={"parameters": 30_000})
    shared = space.build_shared(LanguageTask(50))
    child = space.build_child(NAMED["published"], LanguageTask(50))
    assert shared.decoder.weight.shape == child.decoder.weight.shape
    with pytest.raises(ConfigError, match="child.parameters"):
        ENASRecurrent(child={"parameters": 10}).check(LanguageTask(50))


def test_the_controller():
    """F-E5: 101,000 weights at 100 units; ours has biases besides, of the LSTM and of the activations' softmax."""
    spec = ENASRecurrent().decisions()
    controller = LSTM(layers=1, hidden_size=100).build(spec, seed=0)
    assert parameters(controller) == 101_000 + 4 * 100 + 4
    for parameter in controller.parameters():
        torch.nn.init.zeros_(parameter)
    tokens_BT = torch.tensor([ENASRecurrent().encode(NAMED[name]) for name in ("published", "published_script")])
    expected = 12 * math.log(4) + math.lgamma(12)
    assert torch.allclose(-controller.scores(spec, tokens_BT).log_probs_B, torch.tensor(expected))


def test_weights_start_as_the_paper_has_them():
    for form, bound in (("search", 0.025), ("final", 0.04)):
        child = ENASRecurrent(child={"form": form, "hidden_size": 20}).build_child(NAMED["published"], LanguageTask(50))
        weights = torch.cat([p.flatten() for name, p in child.named_parameters() if "norm" not in name])
        assert bound * 0.99 < float(weights.detach().abs().max()) <= bound
    norm = ENASRecurrent(child=SMALL).build_child(NAMED["published"], LanguageTask(50)).layers[0].norm
    assert torch.equal(norm.weight, torch.ones(6))
    assert torch.equal(norm.bias, torch.zeros(6))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_the_scan_is_the_plain_cell(norm, masked):
    """Values and gradients of x, h and every weight, for random cells of 1 to 12 nodes."""
    rng = np.random.default_rng(0)
    for number in range(12):
        cell = random_cell(rng, number)
        built = layer(cell, norm=norm, per_activation=number % 3 == 0, seed=number)
        x = torch.randn(4, 3, 4, dtype=torch.float64, requires_grad=True)
        h = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
        mask = (torch.rand(3, 5) > 0.3).double() / 0.7 if masked else None
        weight = torch.randn(4, 3, 5, dtype=torch.float64)
        found = [
            [outputs, *torch.autograd.grad((outputs * weight).sum(), [x, h, *built.parameters()])]
            for outputs in (step_by_step(built, x, h, mask), built(x, (h,), mask)[0])
        ]
        for one, other in zip(*found, strict=True):
            assert torch.allclose(one, other, rtol=1e-7, atol=1e-9), cell


def test_two_windows_may_be_open_at_once():
    """The memory of a window is used again only once its gradient is known."""
    built = layer(NAMED["published"])
    windows = [torch.randn(4, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    h = torch.zeros(3, 5, dtype=torch.float64)
    alone = [torch.autograd.grad(step_by_step(built, x, h).square().sum(), x)[0] for x in windows]
    built(windows[0], (h,))[0].square().sum().backward()
    windows[0].grad = None
    open_at_once = [built(x, (h,))[0] for x in windows]
    with torch.no_grad():
        built(windows[1], (h,))
    for x, outputs, expected in zip(windows, open_at_once, alone, strict=True):
        assert torch.allclose(torch.autograd.grad(outputs.square().sum(), x, retain_graph=True)[0], expected)
    with pytest.raises(RuntimeError, match="once"):
        open_at_once[0].sum().backward()


def test_examples_in_docstrings():
    found = doctest.testmod(plan)
    assert found.attempted
    assert not found.failed


def test_slots_are_a_numbering_of_the_nodes():
    rng = np.random.default_rng(1)
    for number in range(40):
        cell = random_cell(rng, number)
        found = plan_of(cell)
        assert sorted(found.order) == list(range(len(cell.nodes)))
        for slot, parent in enumerate(found.parents, start=1):
            assert parent < slot
            assert found.order[parent] == cell.nodes[found.order[slot]].previous
        averaged = [found.order[slot] for slots in found.averaged for slot in slots]
        assert tuple(sorted(averaged)) == cell.averaged
        assert found.count == len(averaged)
        activations = {
            slot: r.activation for level in found.levels for r in level.runs for slot in range(r.start, r.stop)
        }
        assert all(cell.nodes[found.order[slot]].activation == activation for slot, activation in activations.items())
        assert len(activations) == len(cell.nodes) - 1


@pytest.mark.parametrize("options", [{}, {"preset": "release"}, {"child": {"form": "final", "layers": 2}}])
@pytest.mark.parametrize("samples", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_a_child_alone_computes_what_the_shared_network_does(options, samples):
    space = ENASRecurrent(**{**options, "child": {**SMALL, **options.get("child", {})}})
    check_shared(space, LanguageTask(20), samples=samples, seed=samples)


def test_with_variational_dropout_too():
    check_shared(ENASRecurrent(child={**SMALL, "dropout": 0.4, "recurrent_dropout": 0.3}), LanguageTask(20))


def test_edges_are_shared_by_reference_and_others_get_no_gradient():
    """F-E9."""
    space = ENASRecurrent(nodes=4, child=SMALL)
    shared = space.build_shared(LanguageTask(20))
    a = RecurrentArchitecture.of("tanh", [(0, "relu"), (1, "relu"), (0, "tanh")])
    b = RecurrentArchitecture.of("relu", [(0, "sigmoid"), (0, "relu"), (0, "tanh")])
    of_a, of_b = shared.tensors_of(a), shared.tensors_of(b)
    assert {name for name in of_a if "edges" in name} == {f"layers.0.edges.{e}" for e in ("1_0", "2_1", "3_0")}
    assert all(of_a[name] is of_b[name] for name in set(of_a) & set(of_b))
    tokens_TB = torch.randint(20, (5, 3))
    shared(tokens_TB, shared.initial_state(3), a)[0].sum().backward()
    used = {name for name, p in shared.named_parameters() if p.grad is not None}
    assert used == set(of_a)
    assert dict(shared.named_parameters())["layers.0.edges.2_0"].grad is None


def test_an_activation_has_its_own_matrices_in_the_release_only():
    for preset, same in (("paper", True), ("release", False)):
        space = ENASRecurrent(preset=preset, nodes=2, child=SMALL)
        shared = space.build_shared(LanguageTask(20))
        average = "loose_ends" if preset == "paper" else "all"
        cells = [RecurrentArchitecture.of("tanh", [(0, activation)], average) for activation in ("relu", "tanh")]
        one, other = (set(shared.tensors_of(cell)) for cell in cells)
        assert (one == other) is same


@pytest.mark.parametrize(
    "options",
    [
        {"nodes": 1},
        {"nodes": 2, "preset": "release"},
        {"nodes": 5, "activations": ("relu", "tanh")},
        {"nodes": 3, "child": {"layers": 2, "tied": False, "decoder_bias": True, "form": "final"}},
    ],
)
def test_conformance_of_the_variants(options):
    check_space(ENASRecurrent(**{**options, "child": {**SMALL, **options.get("child", {})}}), samples=6)


def test_architectures_outside_the_space_are_named():
    with pytest.raises(ValueError, match="12 nodes, the space has 4"):
        ENASRecurrent(nodes=4).encode(NAMED["published"])
    with pytest.raises(ValueError, match="node 2: relu is not among"):
        ENASRecurrent(activations=("tanh",)).encode(NAMED["published"])
    with pytest.raises(ValueError, match="mean of all"):
        ENASRecurrent(nodes=9).encode(NAMED["enas_lm"])
    with pytest.raises(ValueError, match="node 1 reads node 1"):
        RecurrentArchitecture.of("tanh", [(1, "relu")])


def test_a_drawing_has_every_node_and_its_source():
    (drawing,) = ENASRecurrent().draw(NAMED["published"])
    assert len(drawing.nodes) == 12 + 3
    assert len(drawing.edges) == 2 + 11 + 6


def test_locality_favours_near_nodes():
    """F-E7: the first release's prior on the previous node of node 3, with zero weights."""
    spec = ENASRecurrent(nodes=4, locality=True).decisions()
    controller = LSTM(layers=1, hidden_size=100).build(spec, seed=0)
    for parameter in controller.parameters():
        torch.nn.init.zeros_(parameter)
    step = next(t for t, d in enumerate(spec) if d.name == "node_3.previous")
    tokens_BT = torch.tensor([[n if t == step else 0 for t in range(len(spec))] for n in range(3)])
    found = controller.scores(spec, tokens_BT).log_probs_BT[:, step].exp()
    assert found.tolist() == pytest.approx([0.1410, 0.3243, 0.5347], abs=5e-5)
