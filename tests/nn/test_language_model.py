"""The language model around any recurrent layer."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from nas_cluster.core.component import explain
from nas_cluster.core.errors import ConfigError
from nas_cluster.core.task import LanguageTask
from nas_cluster.nn.language_model import LanguageModel, choose_hidden_size, unroll
from nas_cluster.nn.language_options import LanguageModelOptions

TASK = LanguageTask(11)


class Elman(nn.Module):
    """The least a layer must be: one state, no mask."""

    def __init__(self, inputs, units):
        super().__init__()
        self.units = units
        self.x = nn.Linear(inputs, units)
        self.h = nn.Linear(units, units, bias=False)

    def initial_state(self, batch):
        return (self.h.weight.new_zeros(batch, self.units),)

    def forward(self, x_TBI, state):
        (h,) = state
        outputs = []
        for x in x_TBI:
            h = torch.tanh(self.x(x) + self.h(h))
            outputs.append(h)
        return torch.stack(outputs), (h,)


class Recorder(Elman):
    """Keeps what it was given."""

    def forward(self, x_TBI, state, mask_BH=None):
        self.seen, self.mask = x_TBI, mask_BH
        return super().forward(x_TBI, state)


class Sized(nn.Module):
    """A layer of `matrices` H² + `vectors` H parameters that computes nothing."""

    def __init__(self, units, matrices, vectors):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(matrices * units * units + vectors * units))


def model(layer=Elman, task=TASK, **options):
    torch.manual_seed(0)
    return LanguageModel(LanguageModelOptions(**{"hidden_size": 6, **options}), task, layer)


def tokens(steps=5, batch=3):
    return torch.randint(TASK.vocabulary, (steps, batch), generator=torch.Generator().manual_seed(1))


def test_it_is_embeddings_layers_decoder():
    child = model(layers=3)
    state = child.initial_state(3)
    features, after = child(tokens(), state)
    assert features.shape == (5, 3, 6)
    assert len(state) == len(after) == 3
    x = child.embedding(tokens())
    for layer, begin, end in zip(child.layers, state, after, strict=True):
        x, (h,) = layer(x, (begin,))
        assert torch.equal(h, end)
    assert torch.equal(x, features)
    assert child.decoder(features).shape == (5, 3, TASK.vocabulary)


def test_a_layer_may_be_its_cell_step_by_step():
    """The mask is on the hidden state that is read, and on nothing else of the state."""

    def cell(x, state):
        h, c = state
        return x + 2 * h, c + h

    x, mask = torch.arange(6.0).view(3, 2, 1), torch.tensor([[1.0], [0.0]])
    zeros = torch.zeros(2, 1)
    outputs, (h, c) = unroll(cell, x, (zeros, zeros))
    assert outputs.flatten(1).tolist() == [[0, 1], [2, 5], [8, 15]]
    assert (h.flatten().tolist(), c.flatten().tolist()) == ([8, 15], [2, 6])
    outputs, (h, c) = unroll(cell, x, (zeros, zeros), mask)
    assert outputs.flatten(1).tolist() == [[0, 1], [2, 3], [8, 5]]
    assert (h.flatten().tolist(), c.flatten().tolist()) == ([8, 5], [2, 0])


def test_the_state_carries_the_text_and_its_graph():
    child = model().double()
    whole, _ = child(tokens(), child.initial_state(3))
    first, state = child(tokens()[:2], child.initial_state(3))
    second, _ = child(tokens()[2:], state)
    assert torch.allclose(torch.cat([first, second]), whole, atol=1e-12)
    assert all(part.dtype == torch.float64 for part in child.initial_state(2))
    (grad,) = torch.autograd.grad(second[-1].sum(), child.embedding.weight)
    assert grad[tokens()[0]].abs().sum() > 0, "detaching is the trainer's"


@pytest.mark.parametrize("tied,bias", [(False, True), (True, True), (True, False)])
def test_parameters(tied, bias):
    child = model(tied=tied, decoder_bias=bias)
    v, h = TASK.vocabulary, 6
    assert sum(p.numel() for p in child.parameters()) == 2 * (2 * h * h + h) + (2 - tied) * v * h + bias * v
    assert (child.decoder.weight is child.embedding.weight) == tied
    assert (child.decoder.bias is not None) == bias


def test_all_parameters_start_uniform_in_the_range():
    child = model(hidden_size=64, init_range=0.04)
    for name, parameter in child.named_parameters():
        assert parameter.abs().max() <= 0.04, name
        if parameter.numel() > 1000:
            assert parameter.std().item() == pytest.approx(0.04 / math.sqrt(3), rel=0.05), name


def zero_pattern(x_TBE):
    return x_TBE == 0


def test_dropout_is_on_what_is_not_recurrent():
    """Zaremba et al.: a fresh mask at every step; the layers' inputs and the features are dropped, the state is not."""
    child = model(Recorder, hidden_size=400, dropout=0.25)
    features, state = child(tokens(), child.initial_state(3))
    for dropped in (*(layer.seen for layer in child.layers), features):
        zeros = zero_pattern(dropped)
        assert zeros.float().mean().item() == pytest.approx(0.25, abs=0.03)
        assert not torch.equal(zeros[0], zeros[1])
    assert all((part != 0).all() for part in state)
    assert all(layer.mask is None for layer in child.layers)
    child.eval()
    again = [child(tokens(), child.initial_state(3))[0] for _ in range(2)]
    assert torch.equal(*again)
    assert (again[0] != 0).all()


def test_variational_dropout_has_one_mask_per_window():
    """Gal & Ghahramani: the same units at every step, others in every text and every layer."""
    child = model(Recorder, hidden_size=400, dropout=0.25, variational=True)
    features, _ = child(tokens(), child.initial_state(3))
    patterns = []
    for dropped in (*(layer.seen for layer in child.layers), features):
        zeros = zero_pattern(dropped)
        assert (zeros == zeros[:1]).all()
        assert not torch.equal(zeros[0, 0], zeros[0, 1])
        assert zeros.float().mean().item() == pytest.approx(0.25, abs=0.05)
        patterns.append(zeros[0])
    assert not torch.equal(patterns[0], patterns[1])
    kept = child.layers[0].seen[0][~patterns[0]]
    assert torch.allclose(kept, child.embedding(tokens())[0][~patterns[0]] / 0.75)


def test_recurrent_dropout_gives_every_layer_a_mask():
    child = model(Recorder, hidden_size=400, recurrent_dropout=0.5)
    child(tokens(), child.initial_state(3))
    first, second = (layer.mask for layer in child.layers)
    assert first.shape == (3, 400)
    assert set(first.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(first, second)
    child.eval()
    child(tokens(), child.initial_state(3))
    assert child.layers[0].mask is None


@pytest.mark.parametrize("vocabulary,wanted", [(10_000, 20_000_000), (10_000, 5_123_456), (50, 100_000), (50, 1_000)])
@pytest.mark.parametrize("tied", [False, True])
def test_hidden_size_from_a_total(vocabulary, wanted, tied):
    """Two layers of 16H² + H: 32H² + 2H + tables·V·H + V parameters, so the root of a quadratic, rounded."""
    options = LanguageModelOptions(parameters=wanted, tied=tied)
    size = choose_hidden_size(options, vocabulary, lambda i, h: Sized(h, 16, 1))
    a, b = 32, 2 + (1 if tied else 2) * vocabulary
    root = (-b + math.sqrt(b * b + 4 * a * (wanted - vocabulary))) / (2 * a)
    assert size in (math.floor(root), math.ceil(root))
    error = {h: abs(a * h * h + b * h + vocabulary - wanted) for h in (math.floor(root), math.ceil(root))}
    assert error[size] == min(error.values())


def test_hidden_size_of_a_published_total():
    """ENAS's recurrent model: 26D² + 10,000D = 22,027,104 at D = 748 (tied, no bias)."""
    options = LanguageModelOptions(parameters=22_027_104, tied=True, decoder_bias=False, layers=1)
    assert choose_hidden_size(options, 10_000, lambda i, h: Sized(h, 26, 0)) == 748


def test_too_small_a_total_is_refused():
    options = LanguageModelOptions(parameters=30_000)
    with pytest.raises(ConfigError, match="30,000, but a child of one unit has 30,034 with 10,000 tokens"):
        choose_hidden_size(options, 10_000, lambda i, h: Sized(h, 16, 1))


def test_exactly_one_size_is_given():
    assert LanguageModelOptions().hidden_size == 200
    assert LanguageModelOptions(parameters=10**6).hidden_size is None
    assert LanguageModelOptions.model_validate(LanguageModelOptions(parameters=10**6).model_dump()).parameters == 10**6
    with pytest.raises(ValidationError) as caught:
        LanguageModelOptions(hidden_size=200, parameters=10**6)
    (line,) = explain(caught.value, LanguageModelOptions, "child")
    assert line == (
        "child: hidden_size (200) and parameters (1,000,000) are both set; write null for the one that does not count"
    )


def test_on_the_meta_device_nothing_is_allocated():
    with torch.device("meta"):
        child = model(hidden_size=50_000, tied=False)
        features, state = child(torch.zeros(2, 3, dtype=torch.int64), child.initial_state(3))
    assert features.shape == (2, 3, 50_000)
    assert all(value.is_meta for value in (*child.parameters(), *state))
