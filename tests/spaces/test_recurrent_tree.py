"""The oracles of NAS-RL's recurrent cells (Zoph & Le 2017), and the fast scan against the plain cell of child.py."""

import doctest
import itertools
import math

import numpy as np
import pytest
import torch

from nas_cluster.core.errors import ConfigError
from nas_cluster.core.task import LanguageTask
from nas_cluster.report.drawing import layers_of
from nas_cluster.spaces.recurrent_tree import RecurrentTree
from nas_cluster.spaces.recurrent_tree.architecture import TreeArchitecture
from nas_cluster.spaces.recurrent_tree.child import TreeLayer
from nas_cluster.spaces.recurrent_tree.fast import factors, layout, layout_of
from nas_cluster.spaces.recurrent_tree.published import FIGURE_5
from nas_cluster.testing import check_space

EXTENDED = {
    "combinations": ("add", "elem_mult", "max"),
    "activations": ("identity", "tanh", "sigmoid", "relu", "sin"),
}
NAMED = RecurrentTree.named()


def layer(architecture, inputs=4, units=5, *, seed=0):
    torch.manual_seed(seed)
    built = TreeLayer(architecture, inputs, units).double()
    with torch.no_grad():
        for weight in built.parameters():
            weight.uniform_(-0.7, 0.7)
    return built


def random_tree(space, rng, number):
    """A random tree; every fifth injects where c_t is written, every seventh at the root."""
    tree = space.decode(space.random(rng))
    changes = {"cell_into": tree.cell_from} if number % 5 == 0 else {"cell_into": tree.root} if number % 7 == 0 else {}
    return tree.model_copy(update=changes)


def inputs_of(built, steps=4, batch=3):
    x = torch.randn(steps, batch, built.input_weight.shape[0], dtype=torch.float64, requires_grad=True)
    h, c = (torch.randn(batch, built.hidden_size, dtype=torch.float64, requires_grad=True) for _ in range(2))
    return x, h, c


def step_by_step(built, x, h, c, mask=None):
    """What child.py's definition of the cell gives: the layer with its fast path off."""
    built.fast = False
    outputs, (h_last, c_last) = built(x, (h, c), mask)
    built.fast = True
    assert "Scan" not in type(outputs.grad_fn).__name__
    assert torch.equal(h_last, outputs[-1])
    return outputs, c_last


@pytest.mark.parametrize("module", [layout, factors], ids=lambda module: module.__name__.rpartition(".")[2])
def test_examples_in_docstrings(module):
    names = {"FIGURE_5": FIGURE_5, "TreeArchitecture": TreeArchitecture, "layout_of": layout_of}
    found = doctest.testmod(module, extraglobs=names)
    assert found.attempted
    assert not found.failed


def test_size_and_number_of_tokens():
    """F-A4."""
    assert len(RecurrentTree(base=2).decisions()) == 10
    assert len(RecurrentTree().decisions()) == 34
    assert RecurrentTree().decisions().size == 8**15 * 8 * 15 * 15
    assert math.isclose(RecurrentTree().decisions().size, 6.333e16, rel_tol=1e-4)
    names = [d.name for d in RecurrentTree(base=2).decisions()]
    assert names[:4] == ["node_0.combination", "node_0.activation", "node_1.combination", "node_1.activation"]
    assert names[6:] == ["inject.combination", "inject.activation", "cell_from", "cell_into"]


def test_the_tokens_of_figure_5():
    space = RecurrentTree(base=2)
    assert space.decode((0, 1, 1, 3, 1, 2, 0, 3, 1, 0)) == NAMED["figure5"]


@pytest.mark.parametrize("fast", [True, False])
def test_figure_5_gives_the_papers_numbers(fast):
    """F-A1, the scalar vector of A.8."""
    built = TreeLayer(NAMED["figure5"], 1, 1).double()
    with torch.no_grad():
        for leaf, weights in enumerate(((0.5, -0.25), (2.0, 1.5))):
            for view, value in zip(built.leaf_weights(leaf), weights, strict=True):
                view.fill_(value)
        x, h, c = (torch.tensor([[v]], dtype=torch.float64) for v in (0.8, 0.6, 0.3))
        h, c = built(x[None], (h, c))[1] if fast else built.cell(x, (h, c))
    assert h.item() == pytest.approx(0.6866885018, abs=1e-10)
    assert c.item() == pytest.approx(1.44, abs=1e-10)


def test_figure_5_is_the_papers_equations():
    """F-A1 with matrices: inject before use, c_t before the activation."""
    built = layer(NAMED["figure5"])
    x, h, c = inputs_of(built, steps=1)
    (w1, w2), (w3, w4) = built.leaf_weights(0), built.leaf_weights(1)
    a0 = torch.relu(torch.tanh(x[0] @ w1 + h @ w2) + c)
    product = (x[0] @ w3) * (h @ w4)
    expected = torch.sigmoid(a0 * torch.relu(product))
    h_1, (h_last, c_last) = built(x, (h, c))
    assert torch.allclose(h_1[0], expected, atol=1e-12, rtol=0)
    assert torch.equal(h_last, h_1[0])
    assert torch.allclose(c_last, product, atol=1e-12, rtol=0)


def test_the_published_cell_is_its_equations():
    """A.9, written out; 8D(I+D) parameters."""
    built = layer(NAMED["nascell"])
    assert sum(p.numel() for p in built.parameters()) == 8 * 5 * (4 + 5)
    x, h, c = start = inputs_of(built, steps=3)
    sigmoid, relu, tanh = torch.sigmoid, torch.relu, torch.tanh
    expected = []
    for x_t in x:
        xs, hs = zip(*((x_t @ w, h @ u) for w, u in map(built.leaf_weights, range(8))), strict=True)
        o = [sigmoid(xs[0] + hs[0]), relu(xs[1] + hs[1]), sigmoid(xs[2] + hs[2]), relu(xs[3] * hs[3])]
        o += [tanh(xs[4] + hs[4]), sigmoid(xs[5] + hs[5]), tanh(xs[6] + hs[6]), sigmoid(xs[7] + hs[7])]
        c = tanh(tanh(o[0] * o[1]) + c) * tanh(o[2] + o[3])
        h = tanh(c * tanh(tanh(o[4] * o[5]) + sigmoid(o[6] + o[7])))
        expected.append(h)
    outputs, (_, c_last) = built(x, start[1:])
    assert torch.allclose(outputs, torch.stack(expected), atol=1e-12, rtol=0)
    assert torch.allclose(c_last, c, atol=1e-12, rtol=0)


@pytest.mark.parametrize("shares", [(1.0, 0.0, 0.0, 0.0), (0.25, 0.25, 0.25, 0.25), (2.0, -1.0, 0.5, -0.5)])
def test_the_lstm_is_torchs(shares):
    """`lstm` equals torch.nn.LSTMCell(bias=False); leaves that are added before a gate share its weights in any way."""
    torch.manual_seed(0)
    cell = torch.nn.LSTMCell(4, 5, bias=False).double()
    gates = [dict(zip("ifgo", weight.chunk(4), strict=True)) for weight in (cell.weight_ih, cell.weight_hh)]
    built = layer(NAMED["lstm"])
    of_leaf = [("f", shares[0] + shares[2]), ("f", shares[1] + shares[3]), ("i", 1.0), ("g", 1.0)]
    of_leaf += [("o", share) for share in shares]
    with torch.no_grad():
        for leaf, (gate, share) in enumerate(of_leaf):
            for view, weights in zip(built.leaf_weights(leaf), gates, strict=True):
                view.copy_(share * weights[gate].t())
    x, h, c = inputs_of(built, steps=6)
    outputs, (h_last, c_last) = built(x, (h, c))
    state = (h, c)
    for x_t, output in zip(x, outputs, strict=True):
        state = cell(x_t, state)
        assert torch.allclose(output, state[0], atol=1e-12, rtol=0)
    assert torch.allclose(h_last, state[0], atol=1e-12, rtol=0)
    assert torch.allclose(c_last, state[1], atol=1e-12, rtol=0)
    of = (x, h, c)
    for a, b in zip(torch.autograd.grad(h_last.sum(), of), torch.autograd.grad(state[0].sum(), of), strict=True):
        assert torch.allclose(a, b, atol=1e-12, rtol=0)


@pytest.mark.parametrize("base", [2, 4, 8])
def test_the_scan_equals_the_steps(base):
    """Outputs and gradients of 100 random trees, extensions included, to 1e-10 in float64."""
    space = RecurrentTree(base=base, **EXTENDED)
    rng = np.random.default_rng(base)
    for number in range(100):
        tree = random_tree(space, rng, number)
        built = layer(tree, seed=number)
        x, h, c = inputs_of(built)
        mask = (torch.rand_like(h) < 0.5) * 2.0 if number % 3 == 0 else None
        outputs, (h_last, c_last) = built(x, (h, c), mask)
        expected, c_expected = step_by_step(built, x, h, c, mask)
        weights = torch.randn_like(outputs), torch.randn_like(c_last)
        of = (x, h, c, *built.parameters())
        grads = torch.autograd.grad((outputs * weights[0]).sum() + (c_last * weights[1]).sum(), of)
        grads_expected = torch.autograd.grad((expected * weights[0]).sum() + (c_expected * weights[1]).sum(), of)
        assert torch.equal(h_last, outputs[-1])
        pairs = zip((outputs, c_last, *grads), (expected, c_expected, *grads_expected), strict=True)
        for got, wanted in pairs:
            assert torch.allclose(got, wanted, atol=1e-10, rtol=1e-10), f"{number}: {space.summary(tree)}"


@pytest.mark.parametrize("used", ["h", "c"])
def test_gradients_when_only_one_result_is_used(used):
    built = layer(NAMED["nascell"])
    x, h, c = inputs_of(built)
    outputs, (_, c_last) = built(x, (h, c))
    expected, c_expected = step_by_step(built, x, h, c)
    of = (x, h, c, *built.parameters())
    got, wanted = (outputs, expected) if used == "h" else (c_last, c_expected)
    for a, b in zip(torch.autograd.grad(got.sum(), of), torch.autograd.grad(wanted.sum(), of), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 12])
def test_windows_of_any_length_may_be_gone_through_twice(steps):
    """The shortest too, of so many units that tanh is computed another way; a gradient leaves what it needs intact."""
    built = layer(NAMED["nascell"], 8, 64)
    x, h, c = inputs_of(built, steps, batch=40)
    outputs, _ = built(x, (h, c))
    expected, _ = step_by_step(built, x, h, c)
    assert torch.allclose(outputs, expected, atol=1e-10)
    (wanted,) = torch.autograd.grad(expected.sum(), built.hidden_weight)
    for _ in range(2):
        (got,) = torch.autograd.grad(outputs.sum(), built.hidden_weight, retain_graph=True)
        assert torch.allclose(got, wanted, atol=1e-10)
    with torch.no_grad():
        assert torch.equal(built(x, (h, c))[0], outputs)


@pytest.mark.parametrize("name", ["nascell", "figure5", "lstm", "sine"])
def test_gradients_by_finite_differences(name):
    space = RecurrentTree(base=4, activations=("tanh", "sigmoid", "sin"))
    tree = NAMED[name] if name in NAMED else space.decode(space.random(np.random.default_rng(2)))
    built = layer(tree, 2, 3)
    x, h, c = inputs_of(built, steps=3, batch=2)

    def run(x, h, c, input_weight, hidden_weight):
        names = {"input_weight": input_weight, "hidden_weight": hidden_weight}
        outputs, (_, c_last) = torch.func.functional_call(built, names, (x, (h, c)))
        return outputs, c_last

    assert torch.autograd.gradcheck(run, (x, h, c, *built.parameters()))


@pytest.mark.parametrize("batch", [1, 40])
def test_in_float32_the_scan_is_as_good_as_the_steps(batch):
    built = layer(NAMED["nascell"], 64, 64)
    with torch.no_grad():
        for weight in built.parameters():
            weight *= 0.2
    x, h, c = (value.detach() for value in inputs_of(built, steps=20, batch=batch))
    exact = step_by_step(built, x, h, c)[0]
    built = built.float()
    x, h, c = x.float(), h.float(), c.float()
    for outputs in (built(x, (h, c))[0], step_by_step(built, x, h, c)[0]):
        assert (outputs - exact).abs().max() < 2e-6


@pytest.mark.parametrize("name", ["nascell", "figure5"])
def test_autocast_leaves_the_scan_alone(name):
    built = layer(NAMED[name]).float()
    x, h, c = (value.detach().float().requires_grad_() for value in inputs_of(built))
    of, results = (x, h, c, *built.parameters()), []
    for enabled in (True, False):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            outputs, (_, c_last) = built(x, (h, c))
            results.append((outputs, c_last, *torch.autograd.grad(outputs.sum() + c_last.sum(), of)))
    for with_autocast, without in zip(*results, strict=True):
        assert torch.equal(with_autocast, without)


def test_a_step_of_the_published_cell_is_few_operations():
    """Eight combinations, 14 activations and the inject's two: 24 calls one by one."""
    found = layout_of(NAMED["nascell"])
    assert len(found.instructions) <= 17
    assert found.added == 7


def test_forward_operations_are_counted_exactly():
    """2·T·B·8D(I+D) per layer, which `plan` shows."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        child = RecurrentTree(child={"hidden_size": 20}).build_child(NAMED["nascell"], LanguageTask(50))
        tokens = torch.zeros(7, 3, dtype=torch.int64)
        with FlopCounterMode(display=False) as counter:
            child(tokens, child.initial_state(3))
    assert counter.get_total_flops() == 2 * (2 * 7 * 3) * 8 * 20 * (20 + 20)


def same_function(first, second):
    """Whether two cells compute the same when leaves of one kind have the same weights."""
    layers = [layer(tree, 3, 3) for tree in (first, second)]
    kinds = {}
    with torch.no_grad():
        for built in layers:
            for leaf in range(first.base):
                for index, view in enumerate(built.leaf_weights(leaf)):
                    kind = (index, *built.architecture.nodes[leaf].model_dump().values())
                    view.copy_(kinds.setdefault(kind, torch.randn(3, 3, dtype=torch.float64) * 0.7))
    torch.manual_seed(1)
    x, h, c = inputs_of(layers[0])
    results = [step_by_step(built, x, h, c) for built in layers]
    grads = [torch.autograd.grad(outputs.sum() + c_last.sum(), (x, h, c)) for outputs, c_last in results]
    pairs = [*zip(*results, strict=True), *zip(*grads, strict=True)]
    return all(torch.allclose(a, b, atol=1e-10, rtol=1e-10) for a, b in pairs)


def swapped(tree, rng):
    """The same cell with left and right changed at random nodes."""

    def rows(number):
        if number < tree.base:
            return [[number]]
        left, right = (rows(child) for child in tree.children(number))
        if rng.random() < 0.5:
            left, right = right, left
        return [*(a + b for a, b in zip(left, right, strict=True)), [number]]

    order = [number for row in rows(tree.root) for number in row]
    return TreeArchitecture(
        nodes=tuple(tree.nodes[n] for n in order),
        inject=tree.inject,
        cell_from=order.index(tree.cell_from),
        cell_into=order.index(tree.cell_into),
    )


@pytest.mark.parametrize("base", [2, 4, 8])
def test_the_canonical_form_computes_the_same_function(base):
    rng = np.random.default_rng(base)
    spaces = [RecurrentTree(base=base, **EXTENDED), RecurrentTree(base=base, activations=("identity", "relu"))]
    for number in range(60):
        space = spaces[number % 2]
        tree = random_tree(space, rng, number)
        assert same_function(tree, space.canonical(tree)), space.summary(tree)
        assert space.key(swapped(tree, rng)) == space.key(tree)


def test_associative_chains_and_idle_relus_have_one_key():
    space = RecurrentTree(base=4)
    leaves = [("add", "tanh"), ("elem_mult", "relu"), ("add", "sigmoid"), ("elem_mult", "tanh")]

    def key(order, *, middle="identity", top="identity"):
        rows = ((*(leaves[i] for i in order), ("add", middle), ("add", middle), ("add", top)), ("add", "tanh"), (6, 6))
        return space.key(TreeArchitecture.from_rows(rows))

    assert len({key(order) for order in itertools.permutations(range(4))}) == 1
    assert len({key(order, middle="tanh") for order in itertools.permutations(range(4))}) == 3
    assert key((1, 2, 1, 2), top="relu") == key((1, 1, 2, 2)), "sigmoids and relus are never negative"
    assert key((1, 2, 1, 0), top="relu") != key((1, 2, 1, 0)), "a tanh may be"


def test_number_of_different_cells_of_a_small_space():
    """Orbits of left and right, less the cells whose root's relu is idle: (729 + 27) / 2 - (36 + 6) / 2 - 72 / 2."""
    space = RecurrentTree(base=2, combinations=("add",), activations=("identity", "sigmoid", "relu"))
    every = itertools.product(*(range(d.options) for d in space.decisions()))
    assert len({space.key(space.decode(tokens)) for tokens in every}) == 321


@pytest.mark.parametrize(
    "options",
    [
        {"base": 2},
        {"base": 4, **EXTENDED},
        {"child": {"parameters": 60_000, "tied": True, "dropout": 0.2, "variational": True, "recurrent_dropout": 0.3}},
        {"child": {"hidden_size": 8, "layers": 3, "decoder_bias": False, "dropout": 0.5}},
    ],
)
def test_conformance_of_the_variants(options):
    check_space(RecurrentTree(**{"child": {"hidden_size": 6}, **options}), samples=8)


def test_conformance_finds_a_child_that_forgets():
    class Forgets(RecurrentTree):
        def build_child(self, architecture, task):
            child = super().build_child(architecture, task)
            run, initial = child.forward, child.initial_state
            child.forward = lambda tokens, state: run(tokens, initial(tokens.shape[1]))
            return child

    with pytest.raises(AssertionError, match="the state must carry all that was read"):
        check_space(Forgets(child={"hidden_size": 8, "init_range": 1.0}), samples=3)


@pytest.mark.parametrize("name", NAMED)
def test_published_cells_build_and_draw_in_a_space_of_any_base(name):
    space = RecurrentTree(base=4, child={"hidden_size": 5})
    tree = space.load_named(name)
    child = space.build_child(tree, LanguageTask(9))
    assert len(child.layers) == 2
    (drawing,) = space.draw(tree)
    assert len(drawing.nodes) == 2 * tree.base - 1 + 4
    assert len(drawing.edges) == 3 * tree.base + 1
    layers = layers_of(drawing)
    assert [layers[str(n)] for n in range(tree.base)] == [1] * tree.base
    assert {edge.target for edge in drawing.edges if edge.source == "c_in"} == {str(tree.cell_into)}
    assert space.summary(tree).endswith(f"into {tree.cell_into}, from {tree.cell_from}")
    with pytest.raises(ValueError, match=f"base {tree.base}, the space has base 4"):
        space.encode(tree)


def test_a_drawing_keeps_the_arrows_of_the_cell_state_short():
    """c(t-1) enters at the right end of its row."""
    space = RecurrentTree(**EXTENDED)
    rng = np.random.default_rng(0)
    for _ in range(50):
        tree = space.decode(space.random(rng))
        (drawing,) = space.draw(tree)
        row = next(level for level in tree.levels if tree.cell_into in level)
        boxes = [node.id for node in drawing.nodes if node.id.isdigit() and int(node.id) in row]
        assert boxes[-1] == str(tree.cell_into)
        assert sorted(map(int, boxes)) == list(row)


def test_architectures_outside_the_space_are_named():
    tree = RecurrentTree(base=2, **EXTENDED).decode((2, 4, 0, 0, 0, 0, 0, 0, 0, 0))
    with pytest.raises(ValueError, match="node 0: combination 'max' is not among"):
        RecurrentTree(base=2).encode(tree)
    with pytest.raises(ValueError, match="node 0: activation 'sin' is not among"):
        RecurrentTree(base=2, combinations=("add", "max")).encode(tree)
    with pytest.raises(ValueError, match="4 nodes, a tree of b leaves has 2b-1"):
        TreeArchitecture(nodes=tree.nodes + tree.nodes[:1], inject=tree.inject, cell_from=0, cell_into=0)
    with pytest.raises(ValueError, match="cell_from: 3 is not a node, the last is 2"):
        TreeArchitecture(nodes=tree.nodes, inject=tree.inject, cell_from=3, cell_into=0)


@pytest.mark.parametrize(
    "options,message",
    [
        ({"base": 6}, "a power of two, from 2"),
        ({"base": 1}, "a power of two, from 2"),
        ({"activations": ("tanh", "tanh")}, "each may be named once"),
        ({"activations": ("tanh", "swish")}, "'sin'"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RecurrentTree(**options)


def test_too_few_parameters_for_any_child_are_refused():
    space = RecurrentTree(child={"parameters": 20_000})
    space.check(LanguageTask(50))
    with pytest.raises(ConfigError, match=r"child.parameters: 20,000, but a child of one unit has 30,032"):
        space.check(LanguageTask(10_000))
