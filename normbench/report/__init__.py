"""A study's report: a page, tables and pictures from the files of its runs. Never imports torch."""

from normbench.analysis.answer import Options
from normbench.analysis.selection import ReportError, parse
from normbench.report.build import Report, build

__all__ = ["Options", "Report", "ReportError", "build", "parse"]
