"""What a child may offer to its trainer, and how the trainer finds it."""

import torch
from torch import nn

from nas_cluster.nn.protocols import HasTrainingLogits, follows_progress, training_logits


class WithAuxiliary(nn.Linear):
    def training_logits(self, images):
        return self(images), 2 * self(images)


def test_any_child_gives_training_logits():
    child = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    images = torch.randn(2, 3, 2, 2)
    main, auxiliary = training_logits(child, images)
    assert torch.equal(main, child(images))
    assert auxiliary is None


def test_an_auxiliary_classifier_is_asked():
    child, images = WithAuxiliary(4, 3), torch.randn(2, 4)
    main, auxiliary = training_logits(child, images)
    assert torch.equal(main, child(images))
    assert torch.equal(auxiliary, 2 * child(images))


def test_a_method_that_is_none_is_not_there():
    """So an object that passes all else on to another one says that it has no auxiliary classifier."""
    bound = nn.Identity()
    bound.training_logits = None
    assert not isinstance(bound, HasTrainingLogits)


def test_a_child_follows_progress_by_a_buffer_of_its_own():
    child = nn.Linear(2, 2)
    child.progress = "half"
    assert not follows_progress(child)
    del child.progress
    child.register_buffer("progress", torch.zeros(()))
    assert follows_progress(child)
    assert not follows_progress(nn.Sequential(child)), "an inner module's progress is its own affair"
