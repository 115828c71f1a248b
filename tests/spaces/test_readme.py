"""The README of the spaces names every kind and every file."""

from pathlib import Path

from nas_cluster import spaces
from nas_cluster.core.component import known_kinds

ROOT = Path(spaces.__file__).parent


def test_the_readme_names_every_kind_and_every_file():
    text = (ROOT / "README.md").read_text()
    assert [kind for kind in known_kinds(spaces.SearchSpace) if f"[`{kind}`]({kind}/README.md)" not in text] == []
    files = {path.name for path in ROOT.rglob("*.py")}
    assert [name for name in sorted(files) if f"`{name}`" not in text and f"/{name}`" not in text] == []
