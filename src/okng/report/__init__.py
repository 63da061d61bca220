"""The HTML report: one file that shows what was inspected, what was found and what the verdicts are worth."""

from okng.report.report import Report

__all__ = ["Report"]
