"""Long texts of the journal, made short: the architectures of a phase are megabytes of mostly equal digits."""

from __future__ import annotations

import base64
import zlib

__all__ = ["packed", "unpacked"]

_LONGEST = 1 << 16
_MARK = "zlib:"


def packed(text: str) -> str:
    """A text as it is when it is short, else its compressed form, marked."""
    if len(text) <= _LONGEST:
        return text
    return _MARK + base64.b64encode(zlib.compress(text.encode())).decode()


def unpacked(text: str) -> str:
    """Inverse of `packed`."""
    return zlib.decompress(base64.b64decode(text.removeprefix(_MARK))).decode() if text.startswith(_MARK) else text
