"""The fast trainer gives what a plain one gives: same batches, same losses, same pixels as PIL."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from nas_cluster.core.component import find_component, known_kinds
from nas_cluster.core.errors import DataError, Diverged
from nas_cluster.core.task import ImageTask
from nas_cluster.datasets import train_validation_split
from nas_cluster.datasets.base import ImageArrays
from nas_cluster.datasets.digits import Digits
from nas_cluster.spaces import SearchSpace
from nas_cluster.training.image_classifier import _Training, train_image_classifier
from nas_cluster.training.images import ImageStore
from nas_cluster.training.plan import IndexPlan
from nas_cluster.training.precision import choose_precision
from nas_cluster.training.schedules import Constant, Cosine, CosineRestarts, Step
from nas_cluster.training.settings import TrainingSettings


def store_of(settings, n=64, shape=(32, 32, 3), classes=10):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    y = (np.arange(n) % classes).astype(np.int64)
    data = ImageArrays(x, y, x[:16], y[:16], classes)
    training, validation = train_validation_split(y, 0.25, 0)
    return data, ImageStore(data, training, validation, settings, "cpu")


def model_of(classes=10, channels=3):
    torch.manual_seed(0)
    body = [nn.Conv2d(channels, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))


@pytest.mark.parametrize("settings", [{}, {"flip": False}, {"crop_padding": 0}, {"upsample": 37}])
def test_the_path_for_cpus_and_the_one_for_gpus_give_the_same_pixels(settings):
    _, store = store_of(TrainingSettings(batch_size=24, **settings))
    for step in torch.from_numpy(store.plan(3).epoch(0).stacked()):
        stored = store._train[step[0]]
        if store._padding:
            stored = F.pad(stored, (0, 0, *[store._padding] * 4))
        on_gpu, on_cpu = store._cut(stored.clone(), step), store._cut_on_cpu(stored.clone(), step)
        assert torch.equal(on_gpu, on_cpu)


def rows(index, top, left, mirror, cut_y=0, cut_x=0):
    return torch.tensor([[v] for v in (index, top, left, mirror, cut_y, cut_x)])


def test_every_crop_and_mirror_has_exactly_the_pixels_of_pil():
    settings = TrainingSettings(crop_padding=4)
    data, store = store_of(settings)
    mean, std = store._mean.numpy(), 1 / store._factor.numpy()
    padded = Image.new("RGB", (40, 40))
    padded.paste(Image.fromarray(data.x_train[5]), (4, 4))
    for top in range(9):
        for left in range(9):
            for mirror in (0, 1):
                crop = padded.crop((left, top, left + 32, top + 32))
                if mirror:
                    crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
                got, label = store.training_batch(rows(5, top, left, mirror), torch.float32)
                pixels = got[0].permute(1, 2, 0).numpy() * std + mean
                assert np.array_equal(pixels.round(), np.asarray(crop, np.float32))
                assert label.item() == data.y_train[5]
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_crops_mirrors_and_images_have_the_right_frequencies():
    plan = IndexPlan(0, np.arange(1000), 50, (9, 9), (32, 32), flip=True)
    epochs = [plan.epoch(e) for e in range(81)]
    for epoch in epochs[:3]:
        assert np.array_equal(np.sort(epoch.index_SB.ravel()), np.arange(1000))
    offsets = np.concatenate([(e.top_SB * 9 + e.left_SB).ravel() for e in epochs])
    counts = np.bincount(offsets, minlength=81)
    assert len(counts) == 81
    assert abs(counts - 1000).max() < 5 * math.sqrt(1000)
    mirrored = np.mean([e.mirror_SB.mean() for e in epochs])
    assert mirrored == pytest.approx(0.5, abs=0.01)


def test_the_plan_follows_from_its_seed():
    def stacked(seed, epoch):
        return IndexPlan(seed, np.arange(100), 32, (9, 9), (32, 32), True).epoch(epoch).stacked()

    assert stacked(0, 3).shape == (3, 6, 32)
    assert np.array_equal(stacked(0, 3), stacked(0, 3))
    assert not np.array_equal(stacked(0, 3), stacked(1, 3))
    assert not np.array_equal(stacked(0, 3), stacked(0, 4))


def test_cutout_blanks_one_square():
    _, store = store_of(TrainingSettings(crop_padding=0, cutout=6))
    x, _ = store.training_batch(rows(3, 0, 0, 0, cut_y=10, cut_x=20), torch.float32)
    blank = (x[0] == 0).all(0).nonzero()
    assert blank.amin(0).tolist() == [7, 17]
    assert blank.amax(0).tolist() == [12, 22]
    assert len(blank) == 36


def test_normalisation_is_that_of_the_training_split():
    data, store = store_of(TrainingSettings())
    x = data.x_train[store.training].astype(np.float64)
    assert np.allclose(store._mean.numpy(), x.mean((0, 1, 2)), rtol=1e-6)
    assert np.allclose(1 / store._factor.numpy(), x.std((0, 1, 2)), rtol=1e-6)


@pytest.mark.parametrize("settings", [{"input_size": 16}, {"upsample": 40}, {"input_size": 24, "upsample": 30}])
def test_resizing(settings):
    settings = TrainingSettings(**settings)
    _, store = store_of(settings)
    size = settings.input_size or 32
    x, _ = store.training_batch(torch.from_numpy(store.plan(0).epoch(0).stacked()[0]), torch.float32)
    assert x.shape[2:] == (size, size)
    for batches in (store.validation_batches(), store.test_batches()):
        assert next(batches)[0].shape[2:] == (size, size)
    if settings.upsample:
        assert store.offsets == (settings.upsample - size + 1,) * 2


def test_images_larger_than_their_upsampled_size_are_refused():
    with pytest.raises(DataError, match=r"upsample 24 is smaller than the images \(32x32\)"):
        store_of(TrainingSettings(upsample=24))


def test_validation_images_are_the_held_out_ones_and_only_normalised():
    data, store = store_of(TrainingSettings(), n=3000)
    assert [len(labels) for _, labels in store.validation_batches()] == [500, 250]
    images = torch.cat([x for x, _ in store.validation_batches()])
    pixels = images.permute(0, 2, 3, 1) / store._factor + store._mean
    assert np.array_equal(pixels.round().numpy(), data.x_train[store.validation])
    assert np.array_equal(torch.cat([y for _, y in store.validation_batches()]), data.y_train[store.validation])


def plain_losses(settings, data, store, model, steps):
    """The textbook loop: one image at a time, NCHW, torch's own SGD, a synchronisation per step."""
    optimizer = torch.optim.SGD(
        model.parameters(), settings.learning_rate, settings.momentum, 0, settings.weight_decay, settings.nesterov
    )
    losses, step = [], 0
    plan = store.plan(11)
    for epoch in range(100):
        e = plan.epoch(epoch)
        for s in range(plan.steps):
            batch = []
            for b in range(plan.batch):
                image = np.pad(data.x_train[e.index_SB[s, b]], ((4, 4), (4, 4), (0, 0)))
                top, left = e.top_SB[s, b], e.left_SB[s, b]
                image = image[top : top + 32, left : left + 32]
                image = image[:, ::-1] if e.mirror_SB[s, b] else image
                x = (torch.from_numpy(image.astype(np.float32)) - store._mean) * store._factor
                batch.append(x.permute(2, 0, 1).double())
            rate = settings.schedule.rate(epoch + s / plan.steps, settings.epochs, settings.learning_rate)
            for group in optimizer.param_groups:
                group["lr"] = rate
            logits = model(torch.stack(batch).contiguous())
            loss = F.cross_entropy(logits, torch.from_numpy(data.y_train[e.index_SB[s]]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            step += 1
            if step == steps:
                return losses
    raise AssertionError


def test_fast_and_plain_training_have_equal_losses_in_float64():
    settings = TrainingSettings(epochs=7, batch_size=16, schedule=Cosine(), learning_rate=0.05)
    data, store = store_of(settings)
    expected = plain_losses(settings, data, store, model_of().double(), 20)
    fast = _Training(model_of().double().to(memory_format=torch.channels_last), store, settings, torch.float64)
    plan, got = store.plan(11), []
    for epoch in range(7):
        stacked = torch.from_numpy(plan.epoch(epoch).stacked())
        for s in range(plan.steps):
            fast.loss_sum.zero_()
            fast.step(stacked[s], settings.schedule.rate(epoch + s / plan.steps, 7, settings.learning_rate))
            got.append(float(fast.loss_sum))
    assert np.abs(np.array(got[:20]) - expected).max() < 1e-9


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_digits_are_learned_in_both_precisions(precision):
    settings = TrainingSettings(
        epochs=10, crop_padding=0, flip=False, learning_rate=0.05, schedule=Cosine(), precision=precision
    )
    data = Digits().load()
    training, validation = train_validation_split(data.y_train, 300, 0)
    store = ImageStore(data, training, validation, settings, "cpu")
    torch.manual_seed(0)
    body = [nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*body, nn.Flatten(), nn.Linear(256, 10))
    result = train_image_classifier(model, store, store.plan(0), settings)
    assert result.about["precision"] == precision
    assert result.curve[-1] > 0.94
    assert result.losses[-1] < result.losses[0]


def test_a_loss_that_is_not_finite_is_reported():
    settings = TrainingSettings(epochs=2, learning_rate=1e30, precision="float32")
    _, store = store_of(settings)
    with pytest.raises(Diverged, match="training loss is"):
        train_image_classifier(model_of(), store, store.plan(0), settings)


def test_schedules_have_their_closed_forms():
    """Oracle F-E8 for the restarts."""
    restarts = CosineRestarts(first=10, factor=2, minimum=0.001)
    values = {0: 0.05, 5: 0.0255, 9: 0.002199, 10: 0.05, 20: 0.0255, 29: 0.001302, 30: 0.05, 149: 0.001019, 150: 0.05}
    for t, expected in values.items():
        assert restarts.rate(t, 310, 0.05) == pytest.approx(expected, abs=5e-7)
    peaks = [t for t in range(1, 700) if restarts.rate(t, 700, 0.05) == 0.05]
    assert peaks == [10, 30, 70, 150, 310, 630]
    assert Cosine().rate(0, 20, 0.1) == pytest.approx(0.1)
    assert Cosine().rate(10, 20, 0.1) == pytest.approx(0.05)
    assert Cosine(minimum=0.01).rate(20, 20, 0.1) == pytest.approx(0.01)
    assert [Step().rate(t, 10, 1.0) for t in (0, 4.9, 5, 7.5)] == pytest.approx([1, 1, 0.1, 0.01])
    assert Constant().rate(3, 5, 0.2) == 0.2


def test_depthwise_convolutions_keep_a_child_in_float32_on_the_cpu():
    depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8))
    dtype, reason = choose_precision(TrainingSettings(), depthwise, "cpu")
    assert dtype == torch.float32
    assert "bfloat16" in reason
    assert choose_precision(TrainingSettings(precision="bfloat16"), depthwise, "cpu")[0] == torch.bfloat16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_captured_graph_has_the_losses_of_eager_steps(monkeypatch):
    settings = TrainingSettings(epochs=3, batch_size=16, schedule=Cosine(), precision="float32", gradient_clip=1.0)
    data, _ = store_of(settings)
    training, validation = train_validation_split(data.y_train, 0.25, 0)
    store = ImageStore(data, training, validation, settings, "cuda")
    captured = train_image_classifier(model_of(), store, store.plan(0), settings)
    monkeypatch.setattr("nas_cluster.training.step._WARM_UP_STEPS", -1)
    eager = train_image_classifier(model_of(), store, store.plan(0), settings)
    assert (captured.path, eager.path) == ("cuda_graph", "eager")
    assert captured.losses == pytest.approx(eager.losses, abs=1e-5)


IMAGE_SPACES = [kind for kind in known_kinds(SearchSpace) if ImageTask in find_component(SearchSpace, kind).understands]


SMALL = {"layerwise_cnn": {"layers": 3, "filters": [24], "filter_heights": [3], "filter_widths": [3]}}
"""Spaces whose guard runs on every machine; the others' children are too slow where bfloat16 is emulated."""

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("kind", IMAGE_SPACES)
def test_bfloat16_is_safe_for_children_of_every_space(kind):
    """The guard of `precision: auto`: where it would choose bfloat16, a smoke child must learn as well in it."""
    space = find_component(SearchSpace, kind)(**SMALL.get(kind, {}))
    settings = TrainingSettings(epochs=3, crop_padding=0, flip=False, learning_rate=0.05, schedule=Cosine())
    data = Digits().load()
    training, validation = train_validation_split(data.y_train, 600, 0)
    store = ImageStore(data, training[:600], validation, settings, DEVICE)
    architecture = space.decode(space.random(np.random.default_rng(0)))
    chosen, reason = choose_precision(settings, space.build_child(architecture, store.task), DEVICE)
    if kind not in SMALL and chosen != torch.bfloat16:
        pytest.skip(f"auto would not choose bfloat16: {reason}")

    def accuracy(precision):
        torch.manual_seed(0)
        model = space.build_child(architecture, store.task)
        exact = settings.model_copy(update={"precision": precision})
        return train_image_classifier(model, store, store.plan(0), exact).curve[-1]

    single, half = accuracy("float32"), accuracy("bfloat16")
    assert single > 0.2  # twice chance: it learned
    assert half > single - 0.04  # two standard errors of 600 images
