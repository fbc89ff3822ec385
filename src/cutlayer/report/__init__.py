"""WHAT CAME OUT: plots, a report in one file and a summary for the terminal, all read off the run's log."""

from .console import summary
from .html import write_report
from .plots import save_plots

__all__ = ["save_plots", "summary", "write_report"]
