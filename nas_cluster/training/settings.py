"""How a child is trained. No torch at import."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nas_cluster.core.component import Options
from nas_cluster.training.schedules import Constant, Schedule

__all__ = ["ImageSettings", "TrainingSettings"]


class ImageSettings(Options):
    """What does not depend on the optimizer: the loss, and how images become batches."""

    validation: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Held-out training images: a count, or a share."""
    training_images: int | None = Field(None, ge=1)
    """Train on so many of the others, the same ones always: a cheaper proxy; null: on all."""
    batch_size: int = Field(64, ge=1)
    schedule: Schedule = Constant()
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    gradient_clip: float | None = Field(None, gt=0)
    """Largest global norm of a gradient."""
    auxiliary_weight: float = Field(0.4, ge=0)
    """Of the loss of a child's auxiliary classifier, where it has one (NASNet, ENAS)."""
    input_size: int | None = Field(None, ge=1)
    """Images are resized to this height and width, once for the whole dataset."""
    crop_padding: int = Field(4, ge=0)
    """Random crops out of images padded with this many zeros on every side."""
    upsample: int | None = Field(None, ge=1)
    """Instead of padding: random crops out of images enlarged to this size (Zoph & Le 2017, section 4.1)."""
    flip: bool = True
    """Mirror half of the images."""
    cutout: int = Field(0, ge=0)
    """Side of a square that is blanked at a random place (DeVries & Taylor 2017)."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 where the hardware computes it natively and the child has no depthwise convolution."""

    @model_validator(mode="after")
    def _one_kind_of_crop(self) -> Self:
        if self.upsample is not None and self.input_size is not None and self.upsample < self.input_size:
            raise ValueError(f"upsample {self.upsample} is smaller than input_size {self.input_size}")
        return self

    def split_sizes(self, images: int) -> tuple[int, int]:
        """How many of a dataset's training images are trained on and held out."""
        held_out = round(self.validation * images) if isinstance(self.validation, float) else self.validation
        return min(images - held_out, self.training_images or images), held_out


class TrainingSettings(ImageSettings):
    """Defaults follow NAS-RL's children: Nesterov momentum 0.9, learning rate 0.1, weight decay 1e-4 (section 4.1)."""

    epochs: int = Field(50, ge=1)
    learning_rate: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: float = Field(1e-4, ge=0)
    batch_norm_epsilon: float | None = Field(None, gt=0)
    """In every batch norm of a child; null: as its space builds it."""
    batch_norm_momentum: float | None = Field(None, gt=0, le=1)
    """Share of a batch in the running statistics, 1 minus TensorFlow's decay; null: as its space builds it."""

    @model_validator(mode="after")
    def _nesterov_has_a_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self
