"""Every controller on disk, and the closed forms of set-selection attention."""

import math

import pytest
import torch
from torch import nn

from nas_cluster.controllers import Controller
from nas_cluster.controllers._recurrence import unroll
from nas_cluster.controllers.lstm import LSTM
from nas_cluster.core.component import find_component, known_kinds
from nas_cluster.core.decisions import Decision, DecisionSpec
from nas_cluster.spaces.layerwise_cnn import LayerwiseCNN
from nas_cluster.testing import check_controller
from nas_cluster.testing.controllers import tiny_spec


@pytest.mark.parametrize("kind", known_kinds(Controller))
def test_conformance(kind):
    check_controller(find_component(Controller, kind)())


@pytest.mark.parametrize("settings", [{"layers": 1}, {"embedding_size": 7}, {"temperature": 5.0, "tanh_constant": 2.5}])
def test_conformance_with_other_settings(settings):
    check_controller(LSTM(**settings))


def zeroed(settings, spec):
    network = settings.build(spec, 0)
    with torch.no_grad():
        for p in network.parameters():
            p.zero_()
    return network


@pytest.mark.parametrize("layers", [1, 2, 6])
def test_with_zero_weights_every_decision_is_uniform(layers):
    """Oracle F-A8: each skip has probability 1/2, L layers' skips have log-probability -(L(L-1)/2) ln 2."""
    spec = LayerwiseCNN(layers=layers).decisions()
    network = zeroed(LSTM(), spec)
    scores = network.scores(spec, network.sample(spec, 3, torch.Generator().manual_seed(0)))
    skips = [t for t, d in enumerate(spec) if d.head == "skips"]
    expected = -(layers * (layers - 1) / 2) * math.log(2)
    assert scores.log_probs_BT[:, skips].sum(1).tolist() == pytest.approx([expected] * 3, rel=1e-5)
    assert scores.log_probs_B.tolist() == pytest.approx([-spec.log_size] * 3, rel=1e-5)
    assert scores.entropies_B.tolist() == pytest.approx([spec.log_size] * 3, rel=1e-5)


@pytest.mark.parametrize("embedding_size", [5, 3])
def test_gradient_equals_finite_differences(embedding_size):
    spec = tiny_spec(3)
    settings = LSTM(hidden_size=5, embedding_size=embedding_size, layers=2, temperature=2.0, tanh_constant=1.5)
    network = settings.build(spec, 0).double()
    tokens = network.sample(spec, 3, torch.Generator().manual_seed(0))
    network.scores(spec, tokens).log_probs_B.sum().backward()
    rng = torch.Generator().manual_seed(1)
    for p in network.parameters():
        index = int(torch.randint(p.numel(), (1,), generator=rng))
        flat, step = p.data.view(-1), 1e-6
        value = flat[index].item()
        scores = []
        for sign in (1, -1):
            flat[index] = value + sign * step
            scores.append(network.scores(spec, tokens).log_probs_B.sum().item())
        flat[index] = value
        assert p.grad.view(-1)[index].item() == pytest.approx((scores[0] - scores[1]) / (2 * step), abs=1e-6)


def test_without_attention_the_hidden_states_are_those_of_torchs_lstm():
    torch.manual_seed(0)
    reference = nn.LSTM(4, 6, num_layers=2, bias=True).double()
    for layer in range(2):
        nn.init.zeros_(getattr(reference, f"bias_hh_l{layer}"))
    flat = [[getattr(reference, f"{name}_l{n}") for name in ("weight_ih", "bias_ih", "weight_hh")] for n in range(2)]
    x_TBE = torch.randn(7, 3, 4, dtype=torch.float64, requires_grad=True)
    ours = unroll(x_TBE, torch.zeros(7, 3, 7, dtype=torch.float64), (), None, [tuple(layer) for layer in flat])
    theirs, _ = reference(x_TBE)
    assert torch.allclose(ours, theirs, atol=1e-12)
    inputs = [x_TBE, *(weight for layer in flat for weight in layer)]
    upstream = torch.randn_like(ours)
    for a, b in zip(*(torch.autograd.grad(y, inputs, upstream) for y in (ours, theirs)), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_options_are_drawn_as_torch_draws_them():
    spec = DecisionSpec([Decision("a", "choice", 5, "a")])
    network = LSTM(init_range=1.0).build(spec, 0)
    with torch.no_grad():
        log_p_5 = network.scores(spec, torch.arange(5)[:, None]).log_probs_B
    expected = torch.multinomial(log_p_5.exp().expand(1000, 5), 1, generator=torch.Generator().manual_seed(1))
    assert torch.equal(network.sample(spec, 1000, torch.Generator().manual_seed(1)), expected)


def test_sampling_follows_the_probabilities():
    spec = tiny_spec()
    network = LSTM(init_range=1.0).build(spec, 0)
    tokens_BT = network.sample(spec, 20_000, torch.Generator().manual_seed(0))
    seen, counts = tokens_BT.unique(dim=0, return_counts=True)
    expected = network.scores(spec, seen).log_probs_B.exp().detach()
    error = (counts / 20_000 - expected).abs() / (expected / 20_000).sqrt()
    assert float(error.max()) < 5
