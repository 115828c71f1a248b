"""The page."""

from pathlib import Path

from nas_cluster.storage.record import RunRecord


def write_report(record: RunRecord, output: Path) -> Path:
    """Write the page."""
    return output
