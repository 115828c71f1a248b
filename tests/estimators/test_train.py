"""The warm trainer: what it tests, and how a child without enough memory ends."""

import pytest
import torch

from nas_cluster.core.evaluation import Child, ChildId
from nas_cluster.datasets.digits import Digits
from nas_cluster.estimators import WorkerContext
from nas_cluster.estimators.train import Train
from nas_cluster.spaces.layerwise_cnn import LayerwiseCNN
from nas_cluster.training.images import ImageStore

SPACE = LayerwiseCNN(layers=2, filters=(4, 8))
TOKENS = (0,) * len(SPACE.decisions())
CHILD = Child(ChildId(0, 0, 0), 0, TOKENS, SPACE.decode(TOKENS).to_json(), "", 0)


@pytest.mark.parametrize("test", [False, True])
def test_the_test_images_are_seen_once_and_only_when_asked(test, monkeypatch):
    asked = []
    batches = ImageStore.test_batches
    monkeypatch.setattr(ImageStore, "test_batches", lambda store: asked.append(1) or batches(store))
    train = Train(epochs=3, validation=0.5, crop_padding=0, flip=False)
    evaluation = train.open(WorkerContext(SPACE, Digits(), seed=0, test=test)).evaluate(CHILD)
    assert len(asked) == int(test)
    assert ("test_accuracy" in evaluation.metrics) == test
    assert evaluation.details["images_per_second"] > 0


def test_a_smaller_training_set_is_the_same_for_every_child_and_leaves_the_validation_set(monkeypatch):
    seen = []
    build = ImageStore.__init__
    monkeypatch.setattr(
        ImageStore,
        "__init__",
        lambda store, data, training, validation, *rest: (
            seen.append((training, validation)) or build(store, data, training, validation, *rest)
        ),
    )
    for training_images in (None, 200, 200):
        Train(training_images=training_images, validation=300).open(WorkerContext(SPACE, Digits(), seed=0))
    (all_images, held_out), (some, same_held_out), (again, _) = seen
    assert list(held_out) == list(same_held_out)
    assert len(some) == 200
    assert list(some) == list(again)
    assert set(some) < set(all_images)


class TooMuch(LayerwiseCNN):
    """Children want more memory than an address space has."""

    def build_child(self, architecture, task):
        return torch.nn.ParameterList([torch.empty(10**15)])


def test_a_child_that_the_host_has_no_memory_for_says_so():
    trainer = Train(validation=0.5).open(WorkerContext(TooMuch(layers=2, filters=(4, 8)), Digits(), seed=0))
    with pytest.raises(MemoryError, match="you tried to allocate"):
        trainer.evaluate(CHILD)
