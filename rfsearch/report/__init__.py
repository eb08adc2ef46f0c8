"""The report of a run, from its directory alone: tables, and one page that says what was found. No torch, no Ray."""

from rfsearch.report.budgets import left_unspent
from rfsearch.report.page import write
from rfsearch.report.verdict import Setting, Verdict, summarise

__all__ = ["Setting", "Verdict", "left_unspent", "summarise", "write"]
