"""How a config says what the reward is: today in a section of its own, in 0.1 in that of the estimator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationError, WithJsonSchema

from nas_cluster.core.component import find_component
from nas_cluster.core.errors import ConfigError
from nas_cluster.core.evaluation import TEST
from nas_cluster.core.metrics import check_name
from nas_cluster.core.reward import Direction, Objective, Reward
from nas_cluster.core.version_1 import OldReward, read_estimator
from nas_cluster.estimators import Estimator

__all__ = [
    "Objectives",
    "RewardSection",
    "failure_that_wins",
    "move_old_rewards",
    "objective_name",
    "todays",
    "wrong_reward",
]

_SCALED = {"type": "object", "properties": {"kind": {"type": "string"}, "scale": {"type": ["number", "null"]}}}
RewardSection = Annotated[Reward | None, WithJsonSchema({"anyOf": [{"type": "string"}, _SCALED, {"type": "null"}]})]


def _one_metric(objectives: dict[str, Direction]) -> dict[str, Direction]:
    if len(objectives) != 1:
        raise ValueError(f"{len(objectives)} metrics, exactly one can count today")
    name = check_name(next(iter(objectives)))
    if name.startswith(TEST):
        raise ValueError(f"{name!r} is measured on the test set, which a search never sees")
    return objectives


Objectives = Annotated[dict[str, Direction], AfterValidator(_one_metric)]


def failure_that_wins(objective: Objective, reward: Reward, failure_reward: float) -> list[str]:
    """Why this reward of failed children would make them better than all that succeed."""
    if objective.direction == "max" or reward.kind not in ("identity", "cubed") or failure_reward < 0:
        return []
    return [
        f"failures.reward: rewards of a minimised metric ({objective.name!r}, reward {reward.kind}) are negative, so "
        f"{failure_reward:g} for a failed child would be the best; set it below the worst that you expect"
    ]


def wrong_reward(estimator: Estimator, objective: Objective, reward: Reward) -> list[str]:
    """Why this reward makes no sense, or would not be the one that somebody's estimator means."""
    found = [] if (wrong := reward.wrong_for(objective)) is None else [f"reward: {wrong}"]
    if hasattr(estimator, "reward_of"):
        found.append("estimator: nobody calls its reward_of any more; write `reward: package.module:function` instead")
    return found


def move_old_rewards(data: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A config's sections in today's form, and what cannot be brought into it.

    The search's own estimator says what the job's reward is; what `retrain` or a stage said beside it is left out, as
    a stage ranks by the same reward.
    """
    sections, mistakes = dict(data), list[str]()

    def read(section: Any, where: str) -> tuple[Any, OldReward | None]:
        try:
            return read_estimator(section)
        except ConfigError as error:
            mistakes.append(f"{where}.{error}")
            return {key: value for key, value in section.items() if key != "metric"}, None

    if "estimator" in sections:
        sections["estimator"], old = read(sections["estimator"], "estimator")
        if old is not None and sections.get("reward") is not None and not _same(sections["reward"], old.rule):
            mistakes.append("estimator.reward: is said in the section `reward` too, and differently; leave it out here")
        elif old is not None and not old.default:
            sections["reward"] = old.rule
    if sections.get("retrain") is not None:
        sections["retrain"], _ = read(sections["retrain"], "retrain")
    if isinstance(sections.get("finalize"), list | tuple):
        stages = list(sections["finalize"])
        for number, stage in enumerate(stages):
            if isinstance(stage, Mapping) and stage.get("estimator") is not None:
                estimator, _ = read(stage["estimator"], f"finalize.{number}.estimator")
                stages[number] = {**stage, "estimator": estimator}
        sections["finalize"] = stages
    return sections, mistakes


def todays(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded config in today's words, so that what overrides it need not contradict the old ones."""
    sections, _ = move_old_rewards(recorded)
    return sections


def objective_name(config: Mapping[str, Any]) -> str:
    """The metric that counts in a recorded config; just `metric` where the estimator's code is not here."""
    if config.get("objectives"):
        return str(next(iter(config["objectives"])))
    try:
        return find_component(Estimator, config["estimator"]["kind"]).metric_name  # type: ignore[type-abstract]
    except ConfigError:
        return "metric"


def _same(said: Any, moved: Mapping[str, Any]) -> bool:
    try:
        return Reward.model_validate(said) == Reward.model_validate(moved)
    except ValidationError:
        return False
