"""Every controller on disk, and the closed forms of set-selection attention."""

import math

import pytest
import torch

from nas_cluster.controllers import Controller
from nas_cluster.controllers.lstm import LSTM
from nas_cluster.core.component import find_component, known_kinds
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
    sample = network.sample(spec, 3, torch.Generator().manual_seed(0))
    steps_BT = network.scores(spec, sample.tokens_BT).log_probs_BT
    skips = [t for t, d in enumerate(spec) if d.head == "skips"]
    expected = -(layers * (layers - 1) / 2) * math.log(2)
    assert steps_BT[:, skips].sum(1).tolist() == pytest.approx([expected] * 3, rel=1e-5)
    assert sample.log_probs_B.tolist() == pytest.approx([-spec.log_size] * 3, rel=1e-5)
    assert sample.entropies_B.tolist() == pytest.approx([spec.log_size] * 3, rel=1e-5)


def test_gradient_equals_finite_differences():
    spec = tiny_spec()
    network = LSTM(hidden_size=5, layers=2, temperature=2.0, tanh_constant=1.5).build(spec, 0).double()
    tokens = network.sample(spec, 3, torch.Generator().manual_seed(0)).tokens_BT
    network.log_prob(spec, tokens)[0].sum().backward()
    rng = torch.Generator().manual_seed(1)
    for p in network.parameters():
        index = int(torch.randint(p.numel(), (1,), generator=rng))
        flat, step = p.data.view(-1), 1e-6
        value = flat[index].item()
        scores = []
        for sign in (1, -1):
            flat[index] = value + sign * step
            scores.append(network.log_prob(spec, tokens)[0].sum().item())
        flat[index] = value
        assert p.grad.view(-1)[index].item() == pytest.approx((scores[0] - scores[1]) / (2 * step), abs=1e-6)


def test_sampling_follows_the_probabilities():
    spec = tiny_spec()
    network = LSTM(init_range=1.0).build(spec, 0)
    sample = network.sample(spec, 20_000, torch.Generator().manual_seed(0))
    seen, counts = sample.tokens_BT.unique(dim=0, return_counts=True)
    expected = network.log_prob(spec, seen)[0].exp().detach()
    error = (counts / 20_000 - expected).abs() / (expected / 20_000).sqrt()
    assert float(error.max()) < 5
