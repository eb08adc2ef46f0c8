"""The command `report`: tables, page and verdict of a run, from its ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from rfsearch.cli.options import JsonOption, RunArgument
from rfsearch.printing import out_console, print_json, say

if TYPE_CHECKING:
    from rfsearch.ledger import Run


def report(run_dir: RunArgument, as_json: JsonOption = False) -> None:
    """Write the tables and the page of a run again, from its ledger."""
    report_run(run_dir, as_json)


def report_run(run_dir: Path, as_json: bool) -> int:
    """Write tables and page of a run, and print its verdict.

    Returns:
        The exit code: 1 where no trial was scored.
    """
    from rfsearch.ledger import read_run
    from rfsearch.report import left_unspent, summarise, write

    page = write(run_dir)
    run = read_run(run_dir)
    verdict, arms = summarise(run), summarise_arms(run)
    if as_json:
        whereabouts = {"report": str(page), "running": vars(run.running) if run.running else None}
        print_json({"verdict": verdict.to_json(), "arms": list(map(asdict, arms)), **whereabouts})
    else:
        out_console.print()
        for sentence in verdict.sentences:
            say(sentence)
        out_console.print(_arms_table(arms))
        for sentence in left_unspent(run):
            say(sentence)
        say(f"Report: {page}")
    return 0 if any(record.scored for record in run.records) else 1


@dataclass(frozen=True)
class ArmSummary:
    """Sum up one arm of a run.

    Attributes:
        strategy: Label of its strategy.
        seed: Its seed.
        trials: Number of its trials.
        spent: What they cost, in the budget's currency.
        budget: What it may spend.
        currency: What is counted.
        left_because: Why it has ended with budget left; empty where it has not.
    """

    strategy: str
    seed: int
    trials: int
    spent: float
    budget: float
    currency: str
    left_because: str


def summarise_arms(run: Run) -> list[ArmSummary]:
    """Sum up each arm of a run.

    Raises:
        RunDirectoryError: The manifest does not say what the budget was.
    """
    from rfsearch.ledger.typed_json import sound
    from rfsearch.report.rows import arm_rows
    from rfsearch.report.view import build_view

    budget = run.manifest.budget.of_an_arm
    sound(run.manifest.arms)
    return [
        ArmSummary(
            row.arm.strategy,
            row.arm.seed,
            len(row.arm.records),
            row.spent,
            budget.limit,
            budget.currency,
            row.ended,
        )
        for row in arm_rows(build_view(run))
    ]


def _arms_table(arms: Sequence[ArmSummary]) -> Table:
    from rfsearch.numbers import percent
    from rfsearch.report.budgets import over_and_under

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("arm")
    for name in ("trials", "spent", "overshoot", "unspent"):
        table.add_column(name, justify="right")
    for arm in arms:
        share = arm.spent / arm.budget
        table.add_row(f"{arm.strategy}/{arm.seed}", f"{arm.trials:,}", percent(share, 3), *over_and_under(share))
    return table
