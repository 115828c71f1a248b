"""JobConfig: everything that one search is, as one frozen object."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from nas_cluster.config.continuation import RESUMABLE, check_continuation, difference
from nas_cluster.config.loading import apply_overrides, read_yaml
from nas_cluster.config.matching import mismatched_tasks
from nas_cluster.config.rewards import Objectives, RewardSection, failure_that_wins, move_old_rewards, wrong_reward
from nas_cluster.config.sections import Budget, Control, Failures, Topology
from nas_cluster.config.stage import Correlate, Stage, build_stage_parts
from nas_cluster.core.component import Component, Options, build_component, component_field, explain
from nas_cluster.core.errors import ConfigError
from nas_cluster.core.evaluation import Evaluation
from nas_cluster.core.reward import Judged, Objective, Reward, judge
from nas_cluster.datasets import Arrays, Dataset, resident
from nas_cluster.estimators import Estimator
from nas_cluster.spaces import SearchSpace
from nas_cluster.storage.layout import check_run_name
from nas_cluster.strategies import Strategy

__all__ = ["ABSENT", "JobConfig"]

_COMPONENTS: dict[str, type[Component]] = {
    "dataset": Dataset,
    "space": SearchSpace,
    "strategy": Strategy,
    "estimator": Estimator,
    "retrain": Estimator,
}


ABSENT: dict[str, tuple[str | None, ...]] = {"dataset": ("none", None), "retrain": (None,)}
"""Sections that may be left out on purpose, and what says so."""


def _says_absent(section: str, value: Any) -> bool:
    """Whether that leaves the section out: also `{kind: none}`, and None as Python spells it."""
    if isinstance(value, dict) and set(value) == {"kind"}:
        value = value["kind"]
    return (value.lower() if isinstance(value, str) else value) in ABSENT.get(section, ())


class JobConfig(Options):
    """One search. Build it from YAML with `JobConfig.load`, or in code."""

    name: str
    seed: int = Field(0, ge=0)
    mode: Literal["synchronous", "asynchronous"] = "asynchronous"
    dataset: Annotated[Dataset | None, *component_field(Dataset, "dataset", optional=True)] = "digits"  # type: ignore[assignment]
    """`none` (in a journal null): the estimator needs no data, or brings its own."""
    space: Annotated[SearchSpace[Any], *component_field(SearchSpace, "space")]
    strategy: Annotated[Strategy, *component_field(Strategy, "strategy")]
    estimator: Annotated[Estimator, *component_field(Estimator, "estimator")]
    topology: Topology = Topology()
    budget: Budget
    failures: Failures = Failures()
    control: Control | None = None
    """Share of the children that chance chooses, for comparison; null: none."""
    cache: bool = True
    """Answer an architecture whose canonical key was scored before, instead of training it again."""
    objectives: Objectives | None = None
    """The metric that counts, and whether more of it is better (max) or less (min); null: the estimator's own."""
    reward: RewardSection = None
    """How it becomes the reward; null: as the estimator says of its own metric, of another the metric itself."""
    retrain: Annotated[Estimator | None, *component_field(Estimator, "retrain", optional=True)] = None
    """Estimator of `retrain`; null: the search's own."""
    finalize: tuple[Stage, ...] = ()
    """What follows the search, stage by stage: re-rank the best at a larger size, a grid, the winner at full scale."""
    correlate: Correlate | None = None
    """Whether scores order architectures as training alone does: scored and trained after all else; null: not asked."""
    storage_path: str = "runs"
    """Where run directories are made: a local folder, or an fsspec URL to which the run is mirrored."""

    @field_validator("name")
    @classmethod
    def _is_a_directory_name(cls, value: str) -> str:
        try:
            return check_run_name(value)
        except ConfigError as error:
            raise ValueError(str(error)) from error

    @field_validator("dataset", "retrain", mode="before")
    @classmethod
    def _may_be_absent(cls, value: Any, info: ValidationInfo) -> Any:
        return None if _says_absent(str(info.field_name), value) else value

    @field_validator("storage_path")
    @classmethod
    def _holds_no_secret(cls, value: str) -> str:
        """A config is copied into journals, mirrors and job metadata. The value itself is not in the message."""
        if "://" in value:
            parts = urlsplit(value)
            if parts.password or parts.query or (parts.username and parts.scheme not in ("sftp", "ssh", "smb", "hdfs")):
                raise PydanticCustomError(
                    "secret",
                    "credentials do not belong in a config, which is copied to many places; give them to fsspec by "
                    "the environment or its own files, and write {place}",
                    {"place": f"{parts.scheme}://{(parts.hostname or '')}{parts.path}"},
                )
        return value

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """Read a YAML file and apply `KEY=VALUE` overrides. Raises ConfigError: one line per mistake."""
        path = Path(path)
        return cls.from_dict(apply_overrides(read_yaml(path), overrides), source=path.name)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, source: str = "config") -> Self:
        """Validate plain data. Raises ConfigError naming every mistake, in every section."""
        sections, mistakes = move_old_rewards(data)
        broken: set[str] = set()
        for name, base in _COMPONENTS.items():
            if name not in sections or _says_absent(name, sections[name]):
                continue
            try:
                sections[name] = build_component(base, sections[name], where=name)
            except ConfigError as error:
                broken.add(name)
                mistakes += str(error).splitlines()
                del sections[name]
        if isinstance(sections.get("finalize"), list | tuple):
            sections["finalize"], wrong = build_stage_parts(sections["finalize"])
            mistakes += wrong
        try:
            config = cls.model_validate(sections)
        except ValidationError as error:
            mistakes += [line for line in explain(error, cls) if line.partition(":")[0] not in broken]
        else:
            if not mistakes:
                mistakes = config._contradictions()
            if not mistakes:
                return config
        raise ConfigError("\n".join(f"{source}: {line}" for line in mistakes))

    def _contradictions(self) -> list[str]:
        """Combinations that make no sense, each with the reason."""
        found = []
        t = self.topology
        if self.mode == "synchronous":
            if t.accumulate > 1:
                found.append(
                    "topology.accumulate: only for mode 'asynchronous'; in a synchronous round all "
                    f"{t.controller_replicas} gradients are already combined into one update"
                )
            if t.max_staleness is not None:
                found.append(
                    "topology.max_staleness: only for mode 'asynchronous'; synchronous gradients are never stale"
                )
        if not self.strategy.learns and self.budget.max_children is None and self.budget.max_hours is None:
            found.append("budget: a strategy that does not learn needs max_children or max_hours")
        if not self.strategy.learns and self.control is not None:
            found.append(f"control: strategy {self.strategy.kind!r} is chance itself, there is nothing to compare")
        if self.budget.max_gpu_hours is not None and t.resources.GPU == 0:
            found.append(
                "budget.max_gpu_hours: the children use no GPU (topology.resources.GPU is 0), so it is never used up"
            )
        found += wrong_reward(self.estimator, self.objective, self.reward_rule)
        found += self._winning_failures()
        found += mismatched_tasks(self.space, {"estimator": self.estimator, "retrain": self.retrain}, self.dataset)
        found += [line for number, stage in enumerate(self.finalize) for line in self._wrong_in_stage(number, stage)]
        found += self._wrong_in_correlate()
        for check in (self.estimator.check, self.strategy.check):
            found += check(self.space)
        return found

    def _winning_failures(self) -> list[str]:
        """Of the search and of what follows it, each line once: an estimator may have an objective of its own."""
        estimators = (self.estimator, self.retrain, *(stage.estimator for stage in self.finalize))
        jobs = [self.model_copy(update={"estimator": one}) for one in estimators if one is not None]
        found = [failure_that_wins(job.objective, job.reward_rule, self.failures.reward) for job in jobs]
        return list(dict.fromkeys(line for lines in found for line in lines))

    def _wrong_in_stage(self, number: int, stage: Stage) -> list[str]:
        """What makes no sense in one stage of `finalize`."""
        if stage.name in [earlier.name for earlier in self.finalize[:number]]:
            return [f"finalize.{number}.name: an earlier stage is called {stage.name!r} too"]
        try:
            self.check_stage(stage)
        except ConfigError as error:
            return [f"finalize.{number}.{line}" for line in str(error).splitlines()]
        return []

    def _wrong_in_correlate(self) -> list[str]:
        if self.correlate is None:
            return []
        if self.retrain is None:
            return ["correlate: set `retrain`, which says how children are trained alone"]
        try:
            stages = self.correlate.stages(self.retrain)
        except ConfigError as error:
            return [f"correlate: {line}" for line in str(error).splitlines()]
        taken = {stage.name for stage in stages} & {stage.name for stage in self.finalize}
        return [f"finalize: a stage is called {name!r}, which is a stage of `correlate`" for name in sorted(taken)]

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All that follows the search."""
        if self.correlate is None or self.retrain is None:
            return self.finalize
        return (*self.finalize, *self.correlate.stages(self.retrain))

    def check_stage(self, stage: Stage) -> None:
        """Raise ConfigError for a scale, a grid or a dataset that this job's space and estimators do not have."""
        job = self.for_stage(stage)
        for point in stage.combinations():
            stage.estimator_with(point, job.estimator)
        mismatched = mismatched_tasks(job.space, {"estimator": job.estimator}, job.dataset)
        if mismatched:
            raise ConfigError("\n".join(mismatched))

    def for_stage(self, stage: Stage) -> JobConfig:
        """What the workers of a stage are given: its estimator, dataset and scale in place of the search's.

        Raises ConfigError for a scale that the space does not have.
        """
        return self.model_copy(
            update={
                "estimator": stage.estimator or self._estimator_of(stage),
                "dataset": stage.dataset or self.dataset,
                "space": self.space.scaled(stage.scale),
                "failures": self.failures.model_copy(update={"time_limit": stage.time_limit}),
                "topology": self.topology.model_copy(update={"resources": stage.resources or self.topology.resources}),
                "retrain": None,
                "finalize": (),
                "correlate": None,
            }
        )

    def _estimator_of(self, stage: Stage) -> Estimator:
        return self.estimator.exact() if stage.sample is not None else self.retrain or self.estimator

    @property
    def objective(self) -> Objective:
        """The metric that counts."""
        return next((Objective(*item) for item in (self.objectives or {}).items()), self.estimator.objective)

    @property
    def reward_rule(self) -> Reward:
        """How it becomes the reward."""
        own = self.objective == self.estimator.objective
        return self.reward or (self.estimator.default_reward if own else Reward())

    def judge(self, evaluation: Evaluation) -> Judged:
        """What an evaluation is worth: its metric that counts, and its reward."""
        return judge(evaluation, self.objective, self.reward_rule)

    def arrays(self) -> Arrays | None:
        """The dataset's arrays, None where the estimator uses none. Raises DataError."""
        return resident(self.dataset) if self.estimator.uses_data and self.dataset is not None else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` reads back."""
        return self.model_dump(mode="json")

    @property
    def identity(self) -> str:
        """Hash of all that makes two configs the same search."""
        fixed = {key: value for key, value in self.to_dict().items() if key not in (*RESUMABLE, "storage_path")}
        return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:16]

    def difference(self, other: JobConfig) -> dict[str, tuple[Any, Any]]:
        """Dotted keys whose values differ: {key: (mine, theirs)}."""
        return difference(self.to_dict(), other.to_dict())

    def check_continues(self, recorded: JobConfig) -> None:
        """Raise ConfigError, with the difference, unless this config may continue a run recorded with `recorded`."""
        changed = self.difference(recorded)
        if (self.objective, self.reward_rule) == (recorded.objective, recorded.reward_rule):
            changed = {key: both for key, both in changed.items() if key.split(".")[0] not in ("objectives", "reward")}
        check_continuation(changed, synchronous=self.mode == "synchronous")
