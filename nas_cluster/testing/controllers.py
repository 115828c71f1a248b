"""What every controller promises."""

from __future__ import annotations

from nas_cluster.controllers import Controller
from nas_cluster.core.decisions import Decision, DecisionSpec

__all__ = ["check_controller", "tiny_spec"]


def tiny_spec(layers: int = 2) -> DecisionSpec:
    """A spec with every head, small enough to enumerate: 3 * 2 * ... sequences."""
    decisions: list[Decision] = [Decision("start", "anchor", 1, "start")]
    anchors = [0]
    for layer in range(layers):
        decisions.append(Decision(f"{layer}.op", "choice", 3, "op"))
        decisions.append(Decision(f"{layer}.from", "pointer", len(anchors), "from", tuple(anchors)))
        anchors.append(len(decisions))
        decisions.append(Decision(f"{layer}.skips", "skips", layer, "skips", tuple(anchors[1:-1])))
    return DecisionSpec(decisions)


def check_controller(controller: Controller) -> None:
    """Sampling and scoring agree; probabilities sum to one; the weights do not depend on the length of the spec."""
    import itertools

    import torch

    spec, longer = tiny_spec(), tiny_spec(4)
    network = controller.build(spec, seed=1)
    twin, deeper = controller.build(spec, seed=1), controller.build(longer, seed=1)
    names = [name for name, _ in network.named_parameters()]
    assert names == [name for name, _ in deeper.named_parameters()], "parameters belong to groups, not to steps"
    for (_, a), (_, b), (_, c) in zip(
        network.named_parameters(), twin.named_parameters(), deeper.named_parameters(), strict=True
    ):
        assert torch.equal(a, b), "equal seeds must build equal networks"
        assert a.shape == c.shape
    for s in (spec, longer):
        sample = network.sample(s, 6, torch.Generator().manual_seed(3))
        again = network.sample(s, 6, torch.Generator().manual_seed(3))
        assert torch.equal(sample.tokens_BT, again.tokens_BT), "equal seeds must sample equal tokens"
        for row in sample.tokens_BT.tolist():
            s.check(row)
        log_probs_B, entropies_B = network.log_prob(s, sample.tokens_BT)
        assert torch.equal(log_probs_B, sample.log_probs_B), "log_prob must give the numbers of sample"
        assert torch.equal(entropies_B, sample.entropies_B)
        steps_BT = network.scores(s, sample.tokens_BT).log_probs_BT
        assert torch.allclose(steps_BT.sum(1), log_probs_B)
        assert torch.equal(steps_BT, sample.step_log_probs_BT), "sample must give what step_log_probs gives"
    every = torch.tensor(list(itertools.product(*(range(d.cardinality) for d in spec))))
    total = network.log_prob(spec, every)[0].exp().sum()
    assert abs(float(total.detach()) - 1) < 1e-5, f"probabilities sum to {float(total)}"
    every_log_prob, _ = network.log_prob(spec, every)
    every_log_prob.sum().backward()  # type: ignore[no-untyped-call]
    missing = [name for name, p in network.named_parameters() if p.grad is None]
    assert not missing, f"parameters without gradient: {missing}"
