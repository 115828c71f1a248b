"""How a language model is trained. No torch at import."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from nas_cluster.core.component import Options
from nas_cluster.core.errors import DataError
from nas_cluster.training.schedules import Constant, Schedule

__all__ = ["LanguageSettings"]


class LanguageSettings(Options):
    """Truncated backpropagation through time. Losses are means over tokens, which learning rate and clip refer to.

    Zaremba et al. 2014 add up the loss over the T tokens of a window: their learning rate is T times larger here, their
    clip T times smaller. Defaults: 20 texts side by side, windows of 35, as theirs; SGD as for ENAS's language models.
    """

    epochs: int = Field(35, ge=1)
    batch_size: int = Field(20, ge=1)
    """Into how many columns the training text is cut; they are read side by side."""
    sequence_length: int = Field(35, ge=1)
    """Tokens of a window, through which gradients flow; the state is carried from one to the next."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = Field(20.0, gt=0)
    momentum: float = Field(0.0, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Schedule = Constant()
    gradient_clip: float | None = Field(0.25, gt=0)
    """Largest global norm of a gradient."""
    validation_tokens: int | None = Field(None, ge=2)
    """Measure on the first so many tokens of the validation text; null: on all."""

    @model_validator(mode="after")
    def _momentum_is_sgds(self) -> Self:
        if self.optimizer == "adam" and self.momentum:
            raise ValueError("momentum is for optimizer sgd; adam has its own")
        return self

    def windows(self, tokens: int) -> int:
        """Windows of an epoch over a training text of so many tokens; what is left over at the end is not read.

        Raises DataError when the text is shorter than one window.
        """
        T, B = self.sequence_length, self.batch_size
        count = (tokens // B - 1) // T
        if count < 1:
            raise DataError(
                f"the training text has {tokens:,} tokens, too short for one window of {B} (batch_size) x {T} "
                f"(sequence_length): it needs {B * (T + 1):,}"
            )
        return count
