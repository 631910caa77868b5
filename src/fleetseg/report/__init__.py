"""The report page: the result of a run, and whether to trust it."""

from fleetseg.report.page import render, write_report

__all__ = ["render", "write_report"]
