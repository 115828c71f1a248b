"""What a child gives for an example of its task, as the conformance suite of spaces asks for it.

For any task that is `Task.run_example`. What images and text demand besides is checked here; a kind of your own may
register such functions too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from typing import TYPE_CHECKING, Any

from nas_cluster.core.task import ImageTask, LanguageTask, Task

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["checked_outputs", "training_outputs"]


@singledispatch
def checked_outputs(task: Task, child: Any) -> Sequence[Tensor]:
    """What a child gives for an example while it trains; with more checks where the kind of task demands more."""
    return task.run_example(child, batch=2)


@checked_outputs.register(ImageTask)
def _image_logits(task: ImageTask, child: Any) -> Sequence[Tensor]:
    """Logits of two images, those of an auxiliary classifier beside them."""
    import torch

    from nas_cluster.nn.protocols import training_logits

    images = torch.randn(2, task.channels, task.height, task.width)
    with torch.no_grad():
        assert child.eval()(images).shape == (2, task.classes)
    given = [logits for logits in training_logits(child.train(), images) if logits is not None]
    assert all(logits.shape == (2, task.classes) for logits in given)
    return given


@checked_outputs.register(LanguageTask)
def _language_logits(task: LanguageTask, child: Any) -> Sequence[Tensor]:
    """The contract of `LanguageTask`."""
    import torch

    steps, batch = 6, 3
    tokens_TB = torch.randint(task.vocabulary, (steps, batch))
    start = child.initial_state(batch)
    assert isinstance(start, tuple), "a state is a tuple of tensors"
    features_TBE, state = child(tokens_TB, start)
    assert features_TBE.shape == (steps, batch, child.decoder.in_features)
    assert child.decoder.out_features == task.vocabulary
    assert [part.shape for part in state] == [part.shape for part in start], "a state keeps its shape"
    assert [part.dtype for part in state] == [part.dtype for part in start]
    child.eval()
    with torch.no_grad():
        whole_TBE, _ = child(tokens_TB, start)
        first_TBE, middle = child(tokens_TB[:2], start)
        second_TBE, _ = child(tokens_TB[2:], middle)
    child.train()
    together_TBE = torch.cat([first_TBE, second_TBE])
    assert torch.allclose(whole_TBE, together_TBE, rtol=1e-4, atol=1e-5), "the state must carry all that was read"
    return [child.decoder(features_TBE)]


@singledispatch
def training_outputs(task: Task, model: Any, seed: int) -> Sequence[Tensor]:
    """All that a child, or a shared network as one of its children, gives for an example while it trains.

    seed: of the example. For images and text also of what the model draws, as it may be of what `tensors_of` drew.
    """
    import torch

    torch.manual_seed(seed)
    return task.run_example(model, batch=4)


@training_outputs.register(ImageTask)
def _training_logits(task: ImageTask, model: Any, seed: int) -> Sequence[Tensor]:
    """The auxiliary logits included."""
    import torch

    from nas_cluster.nn.protocols import training_logits

    torch.manual_seed(seed)
    images = torch.randn(4, task.channels, task.height, task.width)
    torch.manual_seed(seed)
    return [logits for logits in training_logits(model, images) if logits is not None]


@training_outputs.register(LanguageTask)
def _logits_and_state(task: LanguageTask, model: Any, seed: int) -> Sequence[Tensor]:
    """Of several steps."""
    import torch

    torch.manual_seed(seed)
    steps, batch = 6, 3
    tokens_TB = torch.randint(task.vocabulary, (steps, batch))
    torch.manual_seed(seed)
    features_TBE, state = model(tokens_TB, model.initial_state(batch))
    return [model.decoder(features_TBE), *state]
