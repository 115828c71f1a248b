"""The examples in docstrings are true. Those of a space's fast path need its cells; the space's own tests run them."""

import doctest
import importlib
from pathlib import Path

import pytest

import nas_cluster

ROOT = Path(nas_cluster.__file__).parent
WITH_EXAMPLES = sorted(
    ".".join(["nas_cluster", *path.relative_to(ROOT).with_suffix("").parts])
    for path in ROOT.rglob("*.py")
    if ">>> " in path.read_text() and path.parent.name != "fast"
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted
    assert not result.failed, "see the output above"
