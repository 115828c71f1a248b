"""Training of what children share: alone, in a group, and from a file."""

import hashlib
import multiprocessing
import socket

import pytest
import torch
from torch import nn

from nas_cluster.core.errors import Diverged
from nas_cluster.core.phases import PhaseOrder, SharedState
from nas_cluster.training.shared import Bound, SharedTraining

STEPS = (((0,), (1,)), ((1,), (1,)), ((0,), (2,)))
"""Three steps of two architectures; architecture k is operation k."""


class Operations(nn.Module):
    """Three operations, of which an architecture uses one, and a head that all share."""

    def __init__(self):
        super().__init__()
        self.operations = nn.ModuleList(nn.Conv2d(3, 4, 3, padding=1, bias=False) for _ in range(3))
        self.head = nn.Linear(4, 2)

    def forward(self, x, architecture):
        return self.head(torch.relu(self.operations[architecture](x)).mean((2, 3)))


def training(device="cpu", **changes):
    torch.manual_seed(0)
    settings = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3, **changes}
    return SharedTraining(Operations(), lambda flat: torch.optim.SGD(flat, **settings), torch.device(device), 1.0)


def train(shared, order):
    def loss(step, slot):
        generator = torch.Generator().manual_seed(100 * order.phase + 10 * step + slot)
        device = shared.network.head.weight.device
        images = torch.randn(8, 3, 5, 5, generator=generator).to(device)
        labels = torch.randint(2, (8,), generator=generator).to(device)
        (operation,) = order.tokens[step][slot]
        return nn.functional.cross_entropy(shared.network(images, operation), labels)

    return shared.train(order, loss, lambda step: 0.1 / (1 + step))


def order_of(phase, parent, folder, **group):
    return PhaseOrder(phase, STEPS, parent, str(folder / f"{phase}.safetensors"), **group)


def test_the_next_phase_is_the_same_from_memory_and_from_the_file(tmp_path):
    shared = training()
    first = train(shared, order_of(0, None, tmp_path))
    state = SharedState(0, str(tmp_path / "0.safetensors"), first.sha256)
    second = train(shared, order_of(1, state, tmp_path))
    other = training(lr=0.1)
    from_file = train(other, order_of(1, state, tmp_path))
    assert (from_file.digest, from_file.loss, from_file.sha256) == (second.digest, second.loss, second.sha256)
    again = train(shared, order_of(0, None, tmp_path))
    assert again.digest == first.digest, "a phase that is begun again begins where it began"


def test_a_damaged_file_is_refused(tmp_path):
    shared = training()
    first = train(shared, order_of(0, None, tmp_path))
    path = tmp_path / "0.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="its SHA-256 is not the recorded one"):
        training().hold(SharedState(0, str(path), first.sha256))


def test_a_step_is_the_usual_optimizers_on_the_mean_of_the_losses(tmp_path):
    shared = training()
    torch.manual_seed(0)
    plain = Operations()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)
    for step, architectures in enumerate(STEPS):
        optimizer.zero_grad(set_to_none=False)
        for p in plain.parameters():  # what no architecture uses has gradient zero, not none
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        for slot, (operation,) in enumerate(architectures):
            generator = torch.Generator().manual_seed(10 * step + slot)
            images = torch.randn(8, 3, 5, 5, generator=generator)
            labels = torch.randint(2, (8,), generator=generator)
            (nn.functional.cross_entropy(plain(images, operation), labels) / 2).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
        optimizer.step()
    train(shared, order_of(0, None, tmp_path))
    for (name, a), b in zip(shared.network.named_parameters(), plain.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), name


def test_parameters_set_apart_have_settings_of_their_own(tmp_path):
    """Adam with weight decay on all but the head: torch's own with two groups, also from a file."""

    def two(parts):
        assert len(parts) == 2
        return torch.optim.Adam([{"params": [p], "weight_decay": d} for p, d in zip(parts, (0.1, 0.0), strict=True)])

    def fresh():
        torch.manual_seed(0)
        return SharedTraining(Operations(), two, torch.device("cpu"), None, apart="head.")

    torch.manual_seed(0)
    plain = Operations()
    head = list(plain.head.parameters())
    optimizer = torch.optim.Adam([{"params": plain.operations.parameters(), "weight_decay": 0.1}, {"params": head}])
    for phase in range(2):
        for step, architectures in enumerate(STEPS):
            optimizer.zero_grad()
            for p in plain.parameters():
                p.grad = torch.zeros_like(p)
            for slot, (operation,) in enumerate(architectures):
                generator = torch.Generator().manual_seed(100 * phase + 10 * step + slot)
                images = torch.randn(8, 3, 5, 5, generator=generator)
                labels = torch.randint(2, (8,), generator=generator)
                (nn.functional.cross_entropy(plain(images, operation), labels) / 2).backward()
            for group in optimizer.param_groups:
                group["lr"] = 0.1 / (1 + step)
            optimizer.step()
    shared = fresh()
    first = train(shared, order_of(0, None, tmp_path))
    state = SharedState(0, str(tmp_path / "0.safetensors"), first.sha256)
    second = train(shared, order_of(1, state, tmp_path))
    assert train(fresh(), order_of(1, state, tmp_path)).digest == second.digest, "moments of both parts are in the file"
    for (name, a), b in zip(shared.network.named_parameters(), plain.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5), name


def test_a_loss_that_is_not_finite_says_so(tmp_path):
    shared = training()
    with torch.no_grad():
        shared.network.head.weight.fill_(float("nan"))
    shared.phase = 0
    with pytest.raises(Diverged, match="in phase 1"):
        train(shared, order_of(1, SharedState(0, "", ""), tmp_path))


def test_a_bound_network_is_called_like_a_child():
    network = Operations()
    images = torch.randn(2, 3, 5, 5)
    assert torch.equal(Bound(network, 2)(images), network(images, 2))
    assert Bound(network, 2).training_logits is None


def member(order, device, queue):
    result = train(training(device), order)
    queue.put((order.rank, result.digest, result.loss))


@pytest.mark.slow
@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))],
)
def test_two_workers_compute_the_gradient_of_one(tmp_path, device):
    """On a GPU two share one card."""
    alone_training = training()
    alone = train(alone_training, order_of(0, None, tmp_path))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        rendezvous = f"127.0.0.1:{free.getsockname()[1]}"
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    (tmp_path / "group").mkdir()
    orders = [order_of(0, None, tmp_path / "group", rank=rank, world=2, rendezvous=rendezvous) for rank in range(2)]
    processes = [context.Process(target=member, args=(order, device, queue)) for order in orders]
    for process in processes:
        process.start()
    (_, digest, loss), (_, other, _) = sorted(queue.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(30)
    assert digest == other, "both workers hold the same tensors"
    assert loss == pytest.approx(alone.loss, abs=1e-6)
    joint = training()
    path = tmp_path / "group" / "0.safetensors"

    joint.hold(SharedState(0, str(path), hashlib.sha256(path.read_bytes()).hexdigest()))
    for a, b in zip(joint.network.parameters(), alone_training.network.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
