"""Every exception of the package.

NasClusterError
├── UserError                 the input is wrong: one line, exit code 2
│   ├── ConfigError           a config file or an override
│   ├── DataError             a dataset is missing or broken
│   └── RunError              a run directory is missing, damaged, or another job's
├── RunStopped                stopped and resumable: exit code 75
│   └── Fenced                another process has taken this run over
└── ChildError                one child failed; the search goes on
    ├── InvalidArchitecture   the space refuses to build it
    ├── ChildTooLarge         more parameters than `failures.max_parameters`
    └── Diverged              the loss is not finite
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ChildError",
    "ChildTooLarge",
    "ConfigError",
    "DataError",
    "Diverged",
    "Fenced",
    "InvalidArchitecture",
    "NasClusterError",
    "RunError",
    "RunStopped",
    "UserError",
    "nearest",
]


class NasClusterError(Exception):
    """Base of everything this package raises on purpose."""


class UserError(NasClusterError):
    """The user's input is wrong; `str(error)` is one line or a few: what, where, the nearest right value."""


class ConfigError(UserError):
    """A config file, an override or an option is wrong."""


class DataError(UserError):
    """A dataset is missing, incomplete or not what its format says."""


class RunError(UserError):
    """A run directory is missing, damaged, in use, or belongs to another job."""


class RunStopped(NasClusterError):
    """The run stopped before its budget was used; `resume` continues it."""


class Fenced(RunStopped):
    """Another process has opened the run with a newer epoch; nothing may be written any more."""


class ChildError(NasClusterError):
    """One child failed. `cause` is the word the journal records."""

    cause = "exception"


class InvalidArchitecture(ChildError):
    """The architecture cannot be built for this task, for the reason given."""

    cause = "invalid"


class ChildTooLarge(ChildError):
    """The child has more parameters than allowed; counted on the meta device before any memory is touched."""

    cause = "too_large"


class Diverged(ChildError):
    """The training loss became NaN or infinite."""

    cause = "diverged"


def nearest(word: str, choices: Iterable[str], *, what: str = "value") -> str:
    """End of an error message: the closest known word and the whole list.

    >>> nearest("reinforec", ["random", "reinforce"], what="strategy")
    "did you mean 'reinforce'? (strategies: random, reinforce)"
    """
    known = sorted(choices)
    plural = what[:-1] + "ies" if what.endswith("gy") else what + "s"
    listing = f"({plural}: {', '.join(known)})"
    folded = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.5)
    return f"did you mean {folded[close[0]]!r}? {listing}" if close else f"known {listing[1:-1]}"
