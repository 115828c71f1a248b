"""No module of the package needs itself: imports make no circle, not even those in functions or for types alone.

`lint-imports` (make check) holds which layer may import which. Here every import counts, wherever it stands: one in a
function may spare a process torch, but one that closes a circle only hides that two modules are one.
"""

import ast
from collections import deque
from pathlib import Path

import nas_cluster

ROOT = Path(nas_cluster.__file__).parent


def test_no_module_of_the_package_needs_itself():
    found = circles(imports_of(sources(ROOT)))
    assert not found, "\n".join([f"{len(found)} circles", *(" -> ".join([*circle, circle[0]]) for circle in found)])


def test_a_planted_circle_is_found_wherever_its_imports_stand(tmp_path):
    plant(tmp_path / "plant", {
        "__init__": "from plant.leaf import A",
        "leaf": "import math",
        "typed": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from plant.lazy import f",
        "lazy": "def f():\n    from plant import room",
        "room.__init__": "from .door import open",
        "room.door": "import plant.typed",
        "user": "import plant\nfrom plant.room import door, open\nfrom plant.lazy import f",
    })  # fmt: skip
    graph = imports_of(sources(tmp_path / "plant"))
    assert graph["plant"] == {"plant.leaf"}
    assert graph["plant.user"] == {"plant", "plant.room", "plant.room.door", "plant.lazy"}
    assert circles(graph) == [("plant.lazy", "plant.room", "plant.room.door", "plant.typed")]


def test_a_lazy_import_is_no_circle(tmp_path):
    plant(tmp_path / "plant", {
        "__init__": "",
        "space": "from plant.data import A\ndef build():\n    import torch\n    from plant.child import Child",
        "child": "import torch\nfrom plant.data import A",
        "data": "",
    })  # fmt: skip
    assert circles(imports_of(sources(tmp_path / "plant"))) == []


def plant(root, files):
    for name, text in files.items():
        path = root.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def sources(root):
    """Dotted names of all modules of a package, with their files."""
    named = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root.parent).with_suffix("").parts
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


def imports_of(modules):
    """Per module the modules of the same package that it imports by name.

    `from package import name` is an import of `package.name` where that is a module, else of the package's `__init__`.
    That Python runs the `__init__` of all packages on the way does not count: every module of a package would need it.
    """
    return {name: imported(name, path, modules) - {name} for name, path in modules.items()}


def imported(name, path, modules):
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
                kept = package[: len(package) - node.level + 1]
                source = ".".join([*kept, source] if source else kept)
            for alias in node.names:
                inside = f"{source}.{alias.name}"
                found.add(inside if inside in modules else source)
    return found & set(modules)


def circles(graph):
    """For every import that can be closed to a circle, the shortest; each once, its least name first."""
    found = set()
    for source, targets in graph.items():
        for target in targets:
            way = shortest_way(graph, target, source)
            if way:
                first = way.index(min(way))
                found.add((*way[first:], *way[:first]))
    return sorted(found)


def shortest_way(graph, start, end):
    """Names from start to end, both included; empty where no way leads there. Of equally short, the first by name."""
    came_from = {start: None}
    waiting = deque([start])
    while waiting:
        here = waiting.popleft()
        if here == end:
            way = [here]
            while came_from[way[-1]] is not None:
                way.append(came_from[way[-1]])
            return tuple(reversed(way))
        for following in sorted(graph[here]):
            if following not in came_from:
                came_from[following] = here
                waiting.append(following)
    return ()
