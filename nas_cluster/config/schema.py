"""The JSON schema of a job, for editors: completion and checking while a YAML file is written."""

from __future__ import annotations

from typing import Any

from nas_cluster.config.job import ABSENT, JobConfig
from nas_cluster.core.component import Component, find_component, known_kinds
from nas_cluster.datasets import Dataset
from nas_cluster.estimators import Estimator
from nas_cluster.spaces import SearchSpace
from nas_cluster.strategies import Strategy

__all__ = ["job_schema"]


def job_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12): every section, every built-in kind with its options."""
    schema = JobConfig.model_json_schema()
    definitions: dict[str, Any] = schema.setdefault("$defs", {})
    bases: dict[str, type[Component]] = {
        "dataset": Dataset,
        "space": SearchSpace,
        "strategy": Strategy,
        "estimator": Estimator,
        "retrain": Estimator,
    }
    for section, base in bases.items():
        options = [_kind_schema(base, kind, definitions) for kind in known_kinds(base)]
        foreign = {"type": "object", "properties": {"kind": {"pattern": ":"}}, "required": ["kind"]}
        names = {"enum": [*known_kinds(base), *ABSENT.get(section, ())]}
        schema["properties"][section] = {"anyOf": [*options, foreign, names]}
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "nas_cluster job"
    return schema


def _kind_schema(base: type[Component], kind: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """Schema of one kind with its name fixed; shared definitions move to the top level."""
    own = find_component(base, kind).model_json_schema()
    definitions.update(own.pop("$defs", {}))
    own["properties"]["kind"] = {"const": kind}
    own["required"] = sorted({*own.get("required", []), "kind"})
    return own
