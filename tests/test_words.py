"""A word stands for one thing: the table in CONTRIBUTING.md, held against the public names of the package."""

import re
from pathlib import Path

import pytest
from public_names import PublicName, public_names

OWN_WORDS = ("spaces", "nn", "training", "controllers")
"""Layers and nodes have numbers as well, memory has slots."""


def table():
    """(words, modules or None for everywhere, words not to be used) of each row."""
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    section = text[text.index("## Words") : text.index("## Add a search space")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "|" in line]
    for words, _, places, banned in rows[2:]:
        named = re.findall(r"`([\w.]+)`", places)
        yield re.findall(r"`(\w+)`", words), named or None, [word.strip() for word in banned.split(",") if word.strip()]


ROWS = list(table())
LONGER = [word for words, _, _ in ROWS for word in words if "_" in word]


def misplaced(names, word, places):
    """Names with this word, and not as part of a longer one, outside its places."""
    longer = [other for other in LONGER if word in other.split("_") and other != word]
    return sorted(
        f"{name.place}: {name.name}"
        for name in names
        if name.has(word.removesuffix("s"))
        and not any(name.has(other) for other in longer)
        and name.place.partition(".")[0] not in OWN_WORDS
        and not any(name.place == place or name.place.startswith(f"{place}.") for place in places)
    )


@pytest.mark.parametrize("words, places, banned", ROWS, ids=lambda value: value[0] if value else "")
def test_a_word_stands_for_one_thing(words, places, banned):
    names = public_names()
    for word in words:
        assert places is None or not misplaced(names, word, places), f"{word!r} has a second meaning, or a new place"
    for word in banned:
        assert not [name for name in names if name.has(word) and "enas_macro" not in name.place]


def test_a_second_meaning_is_found():
    names = {PublicName("storage.rows", "phase"), PublicName("storage.rows", "learning_epochs")}
    assert misplaced(names, "phase", ["core.phases"]) == ["storage.rows: phase"]
    assert misplaced(names, "epoch", ["training"]) == []
    assert misplaced(names, "learning_epoch", ["cluster"]) == ["storage.rows: learning_epochs"]
