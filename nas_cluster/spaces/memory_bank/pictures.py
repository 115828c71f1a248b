"""A block as a drawing and as a line of text."""

from __future__ import annotations

from nas_cluster.core.drawing import Drawing, Edge, Node
from nas_cluster.spaces.memory_bank.architecture import BankArchitecture, BankBlock, BankOp, Convolution
from nas_cluster.spaces.memory_bank.sizes import BlockSize

__all__ = ["draw_block", "summarise"]


def summarise(architecture: BankArchitecture, unit: int) -> str:
    """A line like `4·16 5 ops / 2·64 9 ops / ...` has the banks of each block, their channels, and its operations."""
    parts = []
    for block in architecture.blocks:
        banks = max(bank for op in block.ops for bank in (*op.reads, *op.writes)) + 1
        parts.append(f"{banks}·{block.bank_size * unit} {len(block.ops)} op" + "s" * (len(block.ops) > 1))
    return " / ".join(parts)


def draw_block(described: BankBlock, block: BlockSize, unit: int) -> Drawing:
    """Operations stand between banks, which are drawn again each time they are read after having been written.

    An arrow into a bank is added to what it holds. All banks together are what the block gives.
    """
    nodes: list[Node] = []
    edges: list[Edge] = []
    banks: dict[int, str] = {}
    written: dict[int, list[str]] = {}

    def current(bank: int) -> str:
        """The bank with all that was written to it so far."""
        sources = written.pop(bank, [])
        if sources or bank not in banks:
            versions = sum(node.id.startswith(f"bank{bank}.") for node in nodes)
            name = f"bank{bank}.{versions}"
            nodes.append(Node(name, f"bank {bank}", "memory", f"{described.bank_size * unit} channels"))
            before = [banks[bank]] if bank in banks else ["input"] if bank < live else []
            edges.extend(Edge(source, name) for source in [*before, *sources])
            banks[bank] = name
        return banks[bank]

    nodes.append(Node("input", "input", "input", f"{block.inputs} channels"))
    live = block.live(described.bank_size)
    for number, op in enumerate(described.ops):
        name = f"op{number}"
        sources = [current(bank) for bank in op.reads]
        nodes.append(Node(name, _label(op), "conv", _detail(op, number, unit)))
        edges += [Edge(source, name) for source in sources]
        for bank in op.writes:
            written.setdefault(bank, []).append(name)
    ends = [current(bank) for bank in sorted({*range(live), *banks, *written})]
    nodes.append(Node("output", "all banks", "output", "concatenated"))
    edges += [Edge(source, "output") for source in ends]
    return Drawing(tuple(nodes), tuple(edges), f"block {block.number + 1}")


def _label(op: BankOp) -> str:
    """The paths stand beside each other: `1x1 3x3-5x3 | 3x3`."""
    w0, w1, w2, w3 = ("" if c is None else f"{c.kernel[0]}x{c.kernel[1]}" for c in op.convolutions)
    paths = ["-".join(word for word in path if word) for path in ((w0, w1), (w2, w3))]
    return "1x1 " + " | ".join(path for path in paths if path)


def _detail(op: BankOp, number: int, unit: int) -> str:
    rest = ", ".join(f"w{place} {_extras(c)}" for place, c in enumerate(op.convolutions) if c is not None)
    return (
        f"operation {number}: reads {', '.join(map(str, op.reads))}; writes {', '.join(map(str, op.writes))}; "
        f"{op.units * unit} channels; {rest}"
    )


def _extras(c: Convolution) -> str:
    return f"dilation {c.dilation[0]}x{c.dilation[1]}, groups {c.groups}"
