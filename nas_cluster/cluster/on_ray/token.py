"""Ray's token authentication: with which token this process speaks to a cluster, and one for a cluster of its own.

Ray reads the environment when it is imported, so this module is used before that and does not import it. What it does
not leave to Ray: with RAY_AUTH_MODE unset Ray sends no token to a cluster that wants one, and a token that it makes
itself is readable for every user of the machine.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from pathlib import Path

__all__ = ["SessionToken", "token_is_available", "use_available_token"]

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def token_is_available() -> bool:
    """Whether there is a token in one of the three places where Ray looks for one."""
    path = os.environ.get(TOKEN_PATH)
    return bool(os.environ.get(TOKEN)) or (Path(path) if path else Path.home() / ".ray" / "auth_token").is_file()


def use_available_token() -> None:
    """Speak to a cluster with the token that there is, unless RAY_AUTH_MODE says what to do."""
    if MODE not in os.environ and token_is_available():
        os.environ[MODE] = "token"


class SessionToken:
    """A token for one cluster on this machine, in a file that only this user can read; `close` removes it.

    Nothing is done when RAY_AUTH_MODE is set to anything but `token`, or when the user has a token for it.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._before: dict[str, str | None] = {}
        mode = os.environ.get(MODE, "token")
        if mode != "token" or (MODE in os.environ and token_is_available()):
            return
        self._folder = Path(tempfile.mkdtemp(prefix="nas_cluster-"))  # mode 0700
        path = self._folder / "auth_token"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        self._before = {name: os.environ.get(name) for name in (MODE, TOKEN, TOKEN_PATH)}
        os.environ.pop(TOKEN, None)  # Ray would prefer it
        os.environ |= {MODE: "token", TOKEN_PATH: str(path)}

    def close(self) -> None:
        """Remove the file and leave the environment as it was."""
        if self._folder is None:
            return
        shutil.rmtree(self._folder, ignore_errors=True)
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._folder = None
