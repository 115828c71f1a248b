"""This process and a Ray cluster: joining the one at RAY_ADDRESS, or starting one on this machine."""

from __future__ import annotations

import os
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, ClassVar

import ray
from ray.exceptions import AuthenticationError

from nas_cluster.cluster.on_ray.private import keep_stdout_clean, read_authentication_again
from nas_cluster.cluster.on_ray.token import SessionToken, token_is_available, use_available_token
from nas_cluster.core.errors import ConfigError

__all__ = ["TOKEN_HINT", "Connection"]

_CONNECT_SECONDS = 5.0
_INLINE_BYTES = 1 << 20
"""Ray carries answers up to this size inside the reply (default 100 KB): a controller's slice needs no object store."""
_OF_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set in the entry point of a submitted job, whose runtime environment then brings the code to every process."""


_changing = threading.Lock()


class Connection:
    """Connected from `open` to `close`, unless this process was connected before: then nothing is changed. A process
    has one cluster: the first that opens says which, and the last that closes leaves it."""

    _open: ClassVar[set[Connection]] = set()
    _token: ClassVar[SessionToken | None] = None

    def open(self) -> None:
        """Join or start a cluster. Raises ConfigError when none answers at RAY_ADDRESS, or refuses our token."""
        with _changing:
            if not ray.is_initialized():
                self._connect()
            elif not Connection._open:
                return  # not ours
            Connection._open.add(self)

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        with _changing:
            if self in Connection._open:
                Connection._open.remove(self)
                if not Connection._open:
                    ray.shutdown()
            if Connection._token is not None and not Connection._open:
                Connection._token.close()
                Connection._token = None
                read_authentication_again()

    def _connect(self) -> None:
        options: dict[str, Any] = {
            "log_to_driver": False,
            "logging_level": "error",
            "namespace": "nas_cluster",
        }
        if _OF_JOB not in os.environ:
            path = os.pathsep.join(entry for entry in sys.path if entry)
            options["runtime_env"] = {"env_vars": {"PYTHONPATH": path}}
        keep_stdout_clean()
        address = os.environ.get("RAY_ADDRESS")
        if address:
            use_available_token()
            read_authentication_again()
            _join(address, options)
        else:
            self._start(options)

    def _start(self, options: dict[str, Any]) -> None:
        """A cluster of our own, on loopback and with a token of its own: this machine may have other users."""
        Connection._token = SessionToken()
        read_authentication_again()
        os.environ.setdefault("RAY_worker_niceness", "0")
        os.environ.setdefault("RAY_max_direct_call_object_size", str(_INLINE_BYTES))
        start = partial(ray.init, address="local", include_dashboard=False, **options)
        if threading.current_thread() is threading.main_thread():
            start()
        else:
            _lasting_thread().submit(start).result()


@cache
def _lasting_thread() -> ThreadPoolExecutor:
    """A thread that lasts as the main thread does: the kernel ends Ray's processes with the thread that started them,
    and the session that happens to be first may end before others that use the same Ray."""
    return ThreadPoolExecutor(1, "ray")


def _join(address: str, options: dict[str, Any]) -> None:
    _check_answers(address)
    try:
        ray.init(address=address, **options)
    except AuthenticationError as error:
        raise ConfigError(f"RAY_ADDRESS={address}: {_first_line(error)}; {TOKEN_HINT}") from error
    except (ConnectionError, ValueError, RuntimeError) as error:
        hint = "" if token_is_available() else f"; if it wants a token, {TOKEN_HINT}"
        raise ConfigError(
            f"RAY_ADDRESS={address}: no Ray cluster answers there ({_first_line(error)}){hint}"
        ) from error


TOKEN_HINT = "put the cluster's token into ~/.ray/auth_token or RAY_AUTH_TOKEN"


def _check_answers(address: str) -> None:
    """Raise ConfigError when nobody listens at HOST:PORT; ray.init itself would wait for minutes before it says so."""
    host, colon, port = address.rpartition(":")
    if "://" in address or not colon or not port.isdigit():
        return  # "auto", a local folder, a client address: ray's own words
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"RAY_ADDRESS={address}: nobody answers there ({error}); `ray status` shows yours") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
