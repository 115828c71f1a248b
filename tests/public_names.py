"""The public names of the package, read from its source: what a user, or the author of a component, has to do with."""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import nas_cluster

ROOT = Path(nas_cluster.__file__).parent


@dataclass(frozen=True)
class PublicName:
    """A module, class, function, parameter or field. place: its module, from `nas_cluster.` on."""

    place: str
    name: str

    @property
    def words(self):
        """`PhaseResult` and `phase_results` are both phase, result."""
        spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", self.name).lower()
        return tuple(_singular(word) for word in spaced.split("_") if word)

    def has(self, word):
        """Whether it has this word, which may be two (`push_number`)."""
        wanted = tuple(word.split("_"))
        return any(self.words[i : i + len(wanted)] == wanted for i in range(len(self.words)))


def _singular(word):
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def public_names():
    found = set()
    for path in ROOT.rglob("*.py"):
        place = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found.add(PublicName(place, path.stem))
        found |= {PublicName(place, name) for name in _in_body(ast.parse(path.read_text()).body)}
    return {name for name in found if not name.name.startswith("_")}


def _in_body(body):
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name
            yield from _in_body(node.body)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.strip("_") in ("init", node.name):
            yield node.name
            yield from (a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs))
