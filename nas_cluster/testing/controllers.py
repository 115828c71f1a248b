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
    """Samples are reproducible; probabilities sum to one; the weights do not depend on the length of the spec."""
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
        tokens_BT = network.sample(s, 6, torch.Generator().manual_seed(3))
        again_BT = network.sample(s, 6, torch.Generator().manual_seed(3))
        assert torch.equal(tokens_BT, again_BT), "equal seeds must sample equal tokens"
        for row in tokens_BT.tolist():
            s.check(row)
        scores, again = network.scores(s, tokens_BT), network.scores(s, tokens_BT)
        assert torch.equal(scores.log_probs_BT, again.log_probs_BT), "equal tokens must have equal scores"
        assert scores.log_probs_BT.shape == scores.entropies_BT.shape == tokens_BT.shape
        one_by_one = torch.cat([network.scores(s, row[None]).log_probs_B for row in tokens_BT])
        assert torch.allclose(scores.log_probs_B, one_by_one, atol=1e-5), "a score is of its own tokens only"
    every = torch.tensor(list(itertools.product(*(range(d.cardinality) for d in spec))))
    log_probs_B = network.scores(spec, every).log_probs_B
    total = float(log_probs_B.detach().exp().sum())
    assert abs(total - 1) < 1e-5, f"probabilities sum to {total}"
    log_probs_B.sum().backward()  # type: ignore[no-untyped-call]
    missing = [name for name, p in network.named_parameters() if p.grad is None]
    assert not missing, f"parameters without gradient: {missing}"
