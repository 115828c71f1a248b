"""Settings of the LSTM policy network, as plain data."""

from __future__ import annotations

from pydantic import Field

from nas_cluster.core.component import Options

__all__ = ["LSTMSettings"]


class LSTMSettings(Options):
    """Sizes, initialisation and logit shaping; the defaults are the paper's (Zoph & Le 2017, section 4.1)."""

    layers: int = Field(2, ge=1)
    hidden_size: int = Field(35, ge=1)
    embedding_size: int | None = Field(None, ge=1)
    """Of the fed-back tokens; null: hidden_size (the paper does not say)."""
    init_range: float = Field(0.08, gt=0)
    """All weights start uniform in plus or minus this."""
    temperature: float | None = Field(None, gt=0)
    """Divides every logit (5 in ENAS)."""
    tanh_constant: float | None = Field(None, gt=0)
    """C of C * tanh(logit), applied after the temperature (2.5 in ENAS)."""
    choice_tanh_constant: float | None = Field(None, gt=0)
    """C of choices, where it is another than that of attention (ENAS's release: 0.44 for operations beside 1.1)."""
    initial_biases: dict[str, tuple[float, ...]] = {}
    """What the biases of a group of choices start at (ENAS's release: `operation: [10, 10, 0, 0, 0]`)."""
