"""Cells that compute the same functions of x, h and c have one canonical form. No torch.

Three rewritings, each exact for every input once the leaves' weights are permuted with the leaves (all leaves' weights
are drawn alike, so a cell and its canonical form are also equally likely to start anywhere):

1. Left and right of a node change places: every combination is symmetric.
2. Under a chain of nodes with one combination and no activation in between, subtrees of one level change places:
   addition, multiplication and maximum are associative.
3. `relu` of a value that cannot be negative is that value: the sum, product or maximum of sigmoids and relus. (Its
   gradient is the same as well: where the value is 0, the relus below let nothing through.)

Not used, because they change the number of weights or hold only for some: sums of linear leaves that are one linear
map, signs that a tanh passes through, scales between leaves that are multiplied.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from nas_cluster.spaces.recurrent_tree.architecture import TreeArchitecture, TreeNode

__all__ = ["canonical"]

_NOT_NEGATIVE = ("sigmoid", "relu")


@dataclass(frozen=True)
class _Tree:
    """A node with its subtrees and the two marks of the cell state."""

    combination: str
    activation: str
    writes: bool
    reads: bool
    children: tuple[_Tree, ...]

    @property
    def order(self) -> tuple[object, ...]:
        """The key to sort by: equal trees have equal keys, and the order is total, so that sorting is unique."""
        own = (self.combination, self.activation, self.writes, self.reads)
        return (*own, *(child.order for child in self.children))


def canonical(architecture: TreeArchitecture) -> TreeArchitecture:
    """The smallest of the cells that the rewritings reach. Canonical forms stay as they are."""
    inject = architecture.inject
    tree = _sorted(_without_idle_relus(_tree(architecture, architecture.root), inject.activation))
    return _architecture(tree, inject)


def _tree(architecture: TreeArchitecture, number: int) -> _Tree:
    node = architecture.nodes[number]
    children = architecture.children(number) if number >= architecture.base else ()
    return _Tree(
        node.combination,
        node.activation,
        writes=number == architecture.cell_from,
        reads=number == architecture.cell_into,
        children=tuple(_tree(architecture, child) for child in children),
    )


def _without_idle_relus(tree: _Tree, injected: str) -> _Tree:
    """The tree after rule 3. injected: the activation of the cell inject, with which a node that reads c ends."""
    tree = replace(tree, children=tuple(_without_idle_relus(child, injected) for child in tree.children))
    idle = tree.activation == "relu" and _all_not_negative(tree, injected)
    return replace(tree, activation="identity") if idle else tree


def _all_not_negative(tree: _Tree, injected: str) -> bool:
    """Whether what the node combines, and so its value before the activation, is never negative. A leaf's may be."""

    def not_negative(child: _Tree) -> bool:
        if child.reads:
            return injected in _NOT_NEGATIVE
        if child.activation == "identity":
            return _all_not_negative(child, injected)
        return child.activation in _NOT_NEGATIVE

    return bool(tree.children) and all(not_negative(child) for child in tree.children)


def _sorted(tree: _Tree) -> _Tree:
    """The tree after rules 1 and 2."""
    return replace(tree, children=_arranged(tree.children, tree.combination))


def _arranged(members: tuple[_Tree, ...], combination: str) -> tuple[_Tree, ...]:
    """Subtrees of one level that are combined with each other: the ends of the chain come before those that continue
    it."""
    chain = [m for m in members if m.children and _continues(m, combination)]
    ends = [_sorted(m) for m in members if not (m.children and _continues(m, combination))]
    below = _arranged(tuple(child for m in chain for child in m.children), combination) if chain else ()
    rebuilt = [replace(m, children=below[2 * i : 2 * i + 2]) for i, m in enumerate(chain)]
    return (*sorted(ends, key=lambda m: m.order), *rebuilt)


def _continues(tree: _Tree, combination: str) -> bool:
    return tree.combination == combination and tree.activation == "identity" and not (tree.writes or tree.reads)


def _architecture(tree: _Tree, inject: TreeNode) -> TreeArchitecture:
    levels = [[tree]]
    while levels[-1][0].children:
        levels.append([child for node in levels[-1] for child in node.children])
    trees = [node for level in reversed(levels) for node in level]
    nodes = [TreeNode.model_validate({"combination": t.combination, "activation": t.activation}) for t in trees]
    writes, reads = [t.writes for t in trees].index(True), [t.reads for t in trees].index(True)
    return TreeArchitecture(nodes=tuple(nodes), inject=inject, cell_from=writes, cell_into=reads)
