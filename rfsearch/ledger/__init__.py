"""Record, journal, budget: the truth of a run. Imports neither torch nor Ray."""

from rfsearch.ledger.budget import Budget
from rfsearch.ledger.incumbent import incumbent, leaders
from rfsearch.ledger.journal import Assignment, History, Journal, read_history
from rfsearch.ledger.record import Cost, Latency, Record, Rung
from rfsearch.ledger.request import Request
from rfsearch.ledger.run_directory import Run, read_run

__all__ = [
    "Assignment",
    "Budget",
    "Cost",
    "History",
    "Journal",
    "Latency",
    "Record",
    "Request",
    "Run",
    "Rung",
    "incumbent",
    "leaders",
    "read_history",
    "read_run",
]
