"""The command `compare`: several runs on one page, ranked."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from rfsearch.cli.options import JsonOption
from rfsearch.printing import out_console, print_json, say
from rfsearch.storage import run_directory

if TYPE_CHECKING:
    from rfsearch.report.comparison import Comparison


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run directories or URIs, two or more.", metavar="RUN...", parser=run_directory),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="The page to write. An earlier comparison there is replaced.")
    ] = Path("compare.html"),
    as_json: JsonOption = False,
) -> None:
    """Put several runs on one page: data sets, networks or strategies, ranked on equal budgets."""
    from rfsearch.report.compare_page import replaces_comparison, say_comparison, write_comparison
    from rfsearch.report.comparison import compare_runs

    replaces = replaces_comparison(out)
    found = compare_runs(runs)
    write_comparison(found, out)
    if as_json:
        print_json(_as_json(found) | {"page": str(out), "replaced": replaces})
        return
    for problem in found.problems:
        say(f"{problem.name}: {', '.join(problem.runs)}")
    out_console.print(_table(found))
    for sentence in say_comparison(found):
        say(sentence)
    say(f"Page: {out}{', in the place of an earlier comparison' if replaces else ''}")


def _table(found: Comparison) -> Table:
    from rfsearch.report.compare_page import entry_cells

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("problem", "strategy", "rank", "score", "against the best", "spent"):
        table.add_column(name, justify="right" if name in ("rank", "spent") else "left")
    for problem in found.problems:
        for entry in problem.entries:
            table.add_row(problem.name, *entry_cells(problem, entry))
    return table


def _as_json(found: Comparison) -> dict[str, object]:
    problems = [
        {
            "name": problem.name,
            "runs": list(problem.runs),
            "split": problem.view.split,
            "metric": problem.view.facts.metric,
            "direction": problem.view.run.direction,
            "strategies": [asdict(entry) for entry in problem.entries],
        }
        for problem in found.problems
    ]
    return {"mean_ranks": found.mean_ranks, "problems": problems}
