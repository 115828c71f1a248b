"""The plan of the package as a newcomer sees it: small rooms, each with a README that names what is in it."""

from pathlib import Path

import pytest

import nas_cluster

PACKAGE = Path(nas_cluster.__file__).parent
ROOMS = sorted(path for path in (PACKAGE / "cluster").iterdir() if (path / "__init__.py").exists())


def modules(folder):
    return sorted(path.name for path in folder.glob("*.py") if path.name != "__init__.py")


@pytest.mark.parametrize("room", [PACKAGE / "cluster", *ROOMS], ids=lambda room: room.name)
def test_a_room_has_few_files_and_its_readme_names_them(room):
    text = (room / "README.md").read_text()
    assert len(modules(room)) <= 8
    unnamed = [name for name in modules(room) if f"`{name}`" not in text]
    assert not unnamed, f"{room.name}/README.md does not name {unnamed}"


FOLDERS = sorted({path.parent for path in PACKAGE.rglob("*.py")} - {PACKAGE})
"""CONTRIBUTING names the modules on top of them."""


def readme_of(folder):
    """Its own, and those of the folders around it: what kinds of spaces have in common is said once."""
    around = [folder, *folder.parents][: len(folder.relative_to(PACKAGE).parts)]
    return "".join((one / "README.md").read_text() for one in around if (one / "README.md").exists())


@pytest.mark.parametrize(
    "folder", [one for one in FOLDERS if len(modules(one)) > 2], ids=lambda one: str(one.relative_to(PACKAGE))
)
def test_a_folder_has_a_readme_that_names_its_files(folder):
    text = readme_of(folder)
    forms = ("`{name}`", "`{stem}`", "`{folder}/{name}`")
    unnamed = [
        name
        for name in modules(folder)
        if not any(form.format(name=name, stem=name[:-3], folder=folder.name) in text for form in forms)
    ]
    assert not unnamed, f"the README of {folder.relative_to(PACKAGE)} does not name {unnamed}"


def test_the_cluster_readme_names_every_room():
    text = (PACKAGE / "cluster" / "README.md").read_text()
    assert not [room.name for room in ROOMS if f"[`{room.name}/`]" not in text]


def test_files_are_read_in_one_sitting():
    lines = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    long = {name: count for name, count in lines.items() if count >= 300}
    assert not long, long
    assert lines["cluster/coordinator/coordinator.py"] < 250
