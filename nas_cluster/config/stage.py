"""Stages: architectures trained again, larger or longer, after the search has proposed them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field

from nas_cluster.config.sections import Resources
from nas_cluster.core.component import Component, Options, build_component, component_field
from nas_cluster.core.errors import ConfigError
from nas_cluster.datasets import Dataset
from nas_cluster.estimators import Estimator

__all__ = ["Correlate", "Stage", "build_stage_parts"]

_T = TypeVar("_T")


class Stage(Options):
    """One stage: train the best architectures of the search, or of the stage before, and rank them anew.

    What is null or empty is as in the search. Zoph & Le 2017 (section 4.1) end with a grid and a winner; NASNet with
    250 re-ranked architectures and a winner at full scale.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=40)
    top: int = Field(1, ge=1)
    """How many architectures."""
    choose: Literal["best", "spread"] = "best"
    """The best ones; or evenly spread from the best to the worst, to see what the ranking before was worth."""
    sample: int | None = Field(None, ge=1)
    """Draw so many from the policy that the search ended with, instead of taking the best of what it scored: how ENAS
    derives its architectures. All are trained or scored, whatever `top` says."""
    sample_from: Literal["policy", "random"] = "policy"
    """Draw them from the policy, or uniformly at random."""
    seeds: int = Field(1, ge=1)
    """Trainings of each; they are ranked by their mean reward."""
    estimator: Annotated[Estimator | None, *component_field(Estimator, "finalize.estimator", optional=True)] = None
    """How they are trained; null: the job's `retrain`, or the search's own `estimator`. What a stage samples is by
    default scored as the search scores its children, as exactly as it can."""
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

    def pick(self, ranked: Sequence[_T]) -> list[_T]:
        """What this stage trains of `ranked`, best first."""
        if self.choose == "best" or self.top == 1 or len(ranked) <= self.top:
            return list(ranked[: self.top])
        last = len(ranked) - 1
        return [ranked[round(place * last / (self.top - 1))] for place in range(self.top)]

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


def build_stage_parts(stages: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """The stages of a config with their datasets and estimators built, and a line for each that cannot be: it names its
    stage, which the parts of a stage do not know."""
    parts: dict[str, type[Component]] = {"dataset": Dataset, "estimator": Estimator}
    built, mistakes = [], []
    for number, stage in enumerate(stages):
        known = dict(stage) if isinstance(stage, dict) else {}
        for name, base in parts.items():
            if known.get(name) is not None:
                try:
                    known[name] = build_component(base, known[name], where=f"finalize.{number}.{name}")
                except ConfigError as error:
                    mistakes += str(error).splitlines()
                    del known[name]
        built.append(known or stage)
    return built, mistakes


class Correlate(Options):
    """Whether the search's score orders architectures as their training alone does: random ones are scored as the
    search scores its children, and some of them, from the best score to the worst, trained by `retrain` (Brock et al.
    2018, section 4.1: 250 scored, every fifth trained)."""

    SCORES: ClassVar[str] = "correlate_scores"
    ALONE: ClassVar[str] = "correlate"

    children: int = Field(24, ge=4)
    """How many are trained alone."""
    samples: int | None = Field(None, ge=4)
    """How many are scored; null: five times as many as are trained."""
    epochs: int | None = Field(None, ge=1)
    """Of the training alone; null: as `retrain` says."""

    def stages(self, alone: Estimator) -> tuple[Stage, Stage]:
        """The two stages this is. Raises ConfigError when `alone` has no epochs to set."""
        samples = self.samples or 5 * self.children
        scores = Stage(name=self.SCORES, sample=samples, sample_from="random")
        trained = Stage(name=self.ALONE, top=self.children, choose="spread", estimator=alone)
        if self.epochs is not None:
            settings = {"epochs": self.epochs}
            trained = trained.model_copy(update={"estimator": trained.estimator_with(settings, alone)})
        return scores, trained
