"""What of Ray is private and needed all the same. Read for Ray 2.52 to 2.60: with another version, look here first."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import ray
from ray._private import worker
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

__all__ = ["actor_id", "cluster_config", "dashboard_address", "keep_stdout_clean", "quiet", "read_authentication_again"]

_TALKATIVE = ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging")


def actor_id(handle: Any) -> Any:
    """What tells an actor from all others; the handle of a call may be a copy."""
    return handle._actor_id


def cluster_config() -> Any:
    """What an autoscaler has said of the nodes it may start (`ClusterConfig`), or None where none speaks."""
    return ray._private.state.state.get_cluster_config()


def dashboard_address(client: Any) -> str:
    """http://HOST:PORT of the dashboard that a JobSubmissionClient speaks to."""
    return str(client._address)


@cache
def keep_stdout_clean() -> None:
    """Send to stderr what Ray says of its own accord (a node was lost): `--json` is for machines."""
    say = worker.print_to_stdstream
    worker.print_to_stdstream = lambda data, ignore_prefix: say({**data, "is_err": True}, ignore_prefix)


def quiet() -> None:
    """Keep Ray's clients from logging what they do."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    for name in _TALKATIVE:
        logging.getLogger(f"ray.{name}").setLevel(logging.ERROR)


def read_authentication_again() -> None:
    """Ray reads how to speak to a cluster when it is imported, which may have been before that was known."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
