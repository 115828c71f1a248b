"""What the tests of deploy/ and docker/ share: reading manifests, and the names that exist in this repository."""

import json
import os
import re
import shlex
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = ROOT / "docker" / "Dockerfile"

HEALTH = {
    "RAY_health_check_initial_delay_ms": 5000,
    "RAY_health_check_period_ms": 1000,
    "RAY_health_check_timeout_ms": 4000,
    "RAY_health_check_failure_threshold": 3,
    "RAY_grpc_client_keepalive_time_ms": 5000,
    "RAY_grpc_client_keepalive_timeout_ms": 10000,
}
"""What every deployment sets, and tests/hosts measures with."""


def documents(path):
    """The YAML documents of a file, anchors resolved."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


@cache
def version():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@cache
def images():
    """Images that docker/README.md builds: one per target of the Dockerfile."""
    targets = re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE.read_text(), re.MULTILINE)
    return {f"nas-cluster:{version()}-{target}" for target in targets if target != "build"}


def find(value, key):
    """Every value of `key`, at any depth."""
    if isinstance(value, dict):
        for name, inside in value.items():
            if name == key:
                yield inside
            yield from find(inside, key)
    elif isinstance(value, list):
        for inside in value:
            yield from find(inside, key)


def foreign_schema(name):
    """A schema that may not be part of this repository: from NAS_CLUSTER_MANIFEST_SCHEMAS, or beside the checkout."""
    folder = Path(os.environ.get("NAS_CLUSTER_MANIFEST_SCHEMAS", ROOT.parent / "shared" / "data" / "manifests"))
    if not (folder / name).exists():
        pytest.skip(f"{folder.name}/{name} is not here; NAS_CLUSTER_MANIFEST_SCHEMAS says where schemas are")
    return json.loads((folder / name).read_text())


def check_command(line):
    """A `nas-cluster` command line names a command, options and settings that exist; {placeholders} stand for files."""
    from nas_cluster.cli import commands
    from nas_cluster.config import JobConfig

    words = shlex.split(line)
    assert words[0] == "nas-cluster", line
    command = commands.get_command(None, words[1])
    assert command is not None, f"no command {words[1]!r}: {line}"
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word.partition("=")[0] for word in words[2:] if word.startswith("-")} <= known, line
    overrides = [word for word in words[2:] if re.match(r"[a-z_.]+=", word)]
    assert JobConfig.load(ROOT / "configs" / "quickstart.yaml", overrides), line
