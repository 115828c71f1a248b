"""The report of a run: one self-contained HTML page."""

from nas_cluster.report.page import write_report

__all__ = ["write_report"]
