"""Import of modules that a config names: what is wrong with one is the user's to know, in one line."""

from __future__ import annotations

import importlib
import traceback
from types import ModuleType

__all__ = ["NotImported", "imported"]


class NotImported(Exception):
    """A module cannot be imported; the message is one line that says why and where."""


def imported(name: str) -> ModuleType:
    """The module of this full name. Raises NotImported, whatever it does while it is imported."""
    if not all(part.isidentifier() for part in name.split(".")):
        raise NotImported(f"{name!r} is no name of a module; write it in full, as in 'package.module'")
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except ImportError as error:
        raise NotImported(f"cannot import {name}: {_line(error)}") from error
    except SyntaxError as error:
        raise NotImported(f"cannot import {name}: {error.msg} ({error.filename}:{error.lineno})") from error
    except BaseException as error:  # a module may call sys.exit
        last = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {_line(error)}".removesuffix(": ")
        raise NotImported(f"cannot import {name}: {what} ({last.filename}:{last.lineno})") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
