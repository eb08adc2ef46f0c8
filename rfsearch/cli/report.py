"""The command `report`: tables, page and verdict of a run, from its ledger."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfsearch.cli.options import JsonOption, RunArgument
from rfsearch.cli.printing import out_console, print_json, say

if TYPE_CHECKING:
    from rich.table import Table

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
    verdict, arms = summarise(run), arms_in_short(run)
    if as_json:
        running = vars(run.running) if run.running else None
        print_json({"verdict": verdict.to_json(), "arms": arms, "report": str(page), "running": running})
    else:
        out_console.print()
        for sentence in verdict.sentences:
            say(sentence)
        out_console.print(_arms_table(arms))
        for sentence in left_unspent(run):
            say(sentence)
        say(f"Report: {page}")
    return 0 if any(record.scored for record in run.records) else 1


def arms_in_short(run: Run) -> list[dict[str, Any]]:
    """Return what each arm did and spent, in the budget's currency.

    Raises:
        RunDirectoryError: The manifest does not say what the budget was.
    """
    from rfsearch.ledger.typed_json import sound
    from rfsearch.report.rows import arm_rows
    from rfsearch.report.view import build_view

    budget = run.manifest.budget.of_an_arm
    sound(run.manifest.arms)
    return [
        {
            "strategy": row.arm.strategy,
            "seed": row.arm.seed,
            "trials": len(row.arm.records),
            "spent": row.spent,
            "budget": budget.limit,
            "currency": budget.currency,
            "left_because": row.ended,
        }
        for row in arm_rows(build_view(run))
    ]


def _arms_table(arms: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    from rfsearch.numbers import percent, signed

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("arm")
    for name in ("trials", "spent", "over budget"):
        table.add_column(name, justify="right")
    for arm in arms:
        share = arm["spent"] / arm["budget"]
        label = f"{arm['strategy']}/{arm['seed']}"
        table.add_row(label, f"{arm['trials']:,}", percent(share, 3), f"{signed(100 * (share - 1))} %")
    return table
