"""Long texts of the journal."""

import json
import os

import pytest

from nas_cluster.storage.packing import packed, unpacked


@pytest.mark.parametrize("text", ["", "[1,2]", "zlib", json.dumps([[0] * 3000] * 300), os.urandom(80_000).hex()])
def test_packing_round_trip(text):
    assert unpacked(packed(text)) == text


def test_only_long_texts_are_packed_and_become_short():
    assert packed("[0, 0]") == "[0, 0]"
    architectures = json.dumps([[[3, 0, 0, 1, 0, 0, 0, 2**40] * 250] * 2] * 200)
    assert len(packed(architectures)) < len(architectures) / 10
