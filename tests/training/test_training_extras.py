"""What a child may ask of its trainer: an auxiliary loss, the progress of training; batch norm as the config says."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nas_cluster.datasets.base import ImageArrays
from nas_cluster.training.image_classifier import _Training, train_image_classifier
from nas_cluster.training.images import ImageStore
from nas_cluster.training.settings import TrainingSettings


class TwoHeads(nn.Module):
    """A child with an auxiliary classifier; it notes the progress it is told."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.BatchNorm1d(8))
        self.main, self.aside = nn.Linear(8, 4), nn.Linear(8, 4)
        self.register_buffer("progress", torch.zeros(()), persistent=False)
        self.told = []

    def forward(self, images):
        return self.main(self.body(images))

    def training_logits(self, images):
        self.told.append(self.progress.item())
        x = self.body(images)
        return self.main(x), self.aside(x)


def store_of(settings):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (40, 4, 4, 3), dtype=np.uint8), (np.arange(40) % 4).astype(np.int64)
    return ImageStore(ImageArrays(x, y, x[:4], y[:4], 4), np.arange(32), np.arange(32, 40), settings, "cpu")


def settings_of(**changes):
    return TrainingSettings(epochs=2, batch_size=8, crop_padding=0, flip=False, precision="float32", **changes)


def test_the_auxiliary_loss_counts_with_its_weight():
    settings = settings_of(auxiliary_weight=0.25, label_smoothing=0.1)
    store, model = store_of(settings), TwoHeads()
    rows = torch.from_numpy(store.plan(0).epoch(0).stacked())[0]
    images, labels = store.training_batch(rows, torch.float32)
    loss = _Training(model, store, settings, torch.float32).loss(rows)
    main, aside = (F.cross_entropy(x, labels, label_smoothing=0.1) for x in model.training_logits(images))
    assert loss.item() == pytest.approx((main + 0.25 * aside).item(), abs=1e-6)
    assert TrainingSettings().auxiliary_weight == 0.4


def test_a_child_is_told_how_far_its_training_is():
    settings, model = settings_of(), TwoHeads()
    store = store_of(settings)
    result = train_image_classifier(model, store, store.plan(0), settings)
    assert model.told == pytest.approx([step / 8 for step in range(8)])
    assert model.aside.weight.grad is not None
    assert len(result.curve) == 2


def test_batch_norm_follows_the_settings_and_else_the_child():
    for given, expected in (
        ({}, (1e-5, 0.1)),
        ({"batch_norm_epsilon": 1e-3, "batch_norm_momentum": 0.0003}, (1e-3, 3e-4)),
    ):
        settings, model = settings_of(**given), TwoHeads()
        store = store_of(settings)
        train_image_classifier(model, store, store.plan(0), settings)
        assert (model.body[2].eps, model.body[2].momentum) == expected
