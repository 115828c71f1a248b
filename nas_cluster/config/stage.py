"""Stages: architectures trained again, larger or longer, after the search has proposed them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from nas_cluster.config.sections import Resources
from nas_cluster.core.component import Options, build_component, component_field
from nas_cluster.core.errors import ConfigError
from nas_cluster.datasets import Dataset
from nas_cluster.estimators import Estimator

__all__ = ["Stage"]


class Stage(Options):
    """One stage: train the best architectures of the search, or of the stage before, and rank them anew.

    What is null or empty is as in the search. Zoph & Le 2017 (section 4.1) end with a grid and a winner; NASNet with
    250 re-ranked architectures and a winner at full scale.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=40)
    top: int = Field(1, ge=1)
    """How many architectures, best first."""
    sample: int | None = Field(None, ge=1)
    """Draw so many from the policy that the search ended with, instead of taking the best of what it scored: how ENAS
    derives its architectures. All are trained or scored, whatever `top` says."""
    seeds: int = Field(1, ge=1)
    """Trainings of each; they are ranked by their mean reward."""
    estimator: Annotated[Estimator | None, *component_field(Estimator, "finalize.estimator", optional=True)] = None
    """How they are trained; null: the job's `retrain`, or the search's own `estimator`."""
    dataset: Annotated[Dataset | None, *component_field(Dataset, "finalize.dataset", optional=True)] = None
    """Another dataset: the architecture is transferred."""
    scale: dict[str, Any] = {}
    """Options of the space's `child`: more cells, more filters, another stem, another dropout."""
    grid: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = {}
    """Dotted settings of the estimator and their values: every combination is trained. The best one's values go on to
    the next stage; a setting with one value holds for this stage only."""
    test: bool = False
    """Measure each training once on the test set, at its end."""
    resources: Resources | None = None
    time_limit: Annotated[float, Field(gt=0)] | None = None
    """Seconds one training may run; none by default, whatever the search's children may."""

    def combinations(self) -> Iterator[dict[str, Any]]:
        """Every point of the grid; one empty one without a grid."""
        for values in itertools.product(*self.grid.values()):
            yield dict(zip(self.grid, values, strict=True))

    def choices(self, point: dict[str, Any]) -> dict[str, Any]:
        """What of a grid point goes on to the next stage."""
        return {key: value for key, value in point.items() if len(self.grid[key]) > 1}

    def estimator_with(self, settings: dict[str, Any], default: Estimator) -> Estimator:
        """The stage's estimator (or `default`) with dotted settings. Raises ConfigError: which one, the nearest."""
        data = (self.estimator or default).model_dump(mode="json")
        for dotted, value in settings.items():
            *path, last = dotted.split(".")
            target = data
            for part in path:
                target = target.setdefault(part, {})
                if not isinstance(target, dict):
                    raise ConfigError(f"grid.{dotted}: {part!r} is a value, not a section")
            target[last] = value
        return build_component(Estimator, data, where="grid")  # type: ignore[type-abstract]
