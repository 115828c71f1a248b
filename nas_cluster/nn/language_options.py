"""The options of the language model, without torch: spaces of recurrent cells have them as their `child` options."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from nas_cluster.core.component import Options

__all__ = ["LanguageModelOptions"]

Rate = Annotated[float, Field(ge=0, lt=1)]

_HIDDEN_SIZE = 200


class LanguageModelOptions(Options):
    """How the two-layer word model around a cell is built (Zoph & Le 2017, section 4.2; Zaremba et al. 2014).

    Exactly one of `hidden_size` and `parameters` is set; with neither given, `hidden_size` is 200.
    """

    hidden_size: Annotated[int, Field(ge=1)] | None = None
    """It is the number of units of every layer, and the size of the embeddings."""
    parameters: Annotated[int, Field(ge=1)] | None = None
    """It is the total of the child, embeddings and decoder included: the hidden size is the one that comes closest."""
    layers: int = Field(2, ge=1)
    tied: bool = False
    """The decoder's weights are the embeddings (Inan et al. 2016; Press & Wolf 2016)."""
    decoder_bias: bool = True
    dropout: Rate = 0.0
    """It acts where connections are not recurrent: embeddings, between layers, before the decoder (Zaremba et al.)."""
    variational: bool = False
    """All steps of a window have one dropout mask instead of one each (Gal & Ghahramani 2015)."""
    recurrent_dropout: Rate = 0.0
    """It acts on the hidden state that a layer reads; all steps of a window have one mask (Gal & Ghahramani 2015)."""
    init_range: float = Field(0.1, gt=0)
    """All parameters start uniform between minus and plus this."""

    @model_validator(mode="before")
    @classmethod
    def _default_size(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("hidden_size") is None and data.get("parameters") is None:
            return {**data, "hidden_size": _HIDDEN_SIZE}
        return data

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if self.hidden_size is not None and self.parameters is not None:
            raise ValueError(
                f"hidden_size ({self.hidden_size:,}) and parameters ({self.parameters:,}) are both set; "
                "write null for the one that does not count"
            )
        return self
