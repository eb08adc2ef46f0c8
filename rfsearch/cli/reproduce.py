"""The command `reproduce`: a published table's protocol, run again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from rfsearch.cli.options import (
    AddressOption,
    CpusOption,
    DataOption,
    GpusOption,
    JsonOption,
    MemoryOption,
    PresetOption,
    SeedsOption,
    TrustOption,
)
from rfsearch.conduct import begin_run, device_for, go_on, resumable
from rfsearch.printing import out_console, print_json, progress_console, say

if TYPE_CHECKING:
    import torch

    from rfsearch.ledger import Request
    from rfsearch.planning.plan import Plan
    from rfsearch.published import PublishedTable
    from rfsearch.reproduce import Measured


def reproduce(
    table: Annotated[str, typer.Argument(help="wei-table2 to wei-table5, lsdfn-table1 to lsdfn-table6.")],
    scale: Annotated[
        str, typer.Option("--scale", help="small: two CPU cores. paper: the paper's settings, a GPU.")
    ] = "small",
    space: Annotated[str, typer.Option("--space", help="Another space than the table's own, or a space file.")] = "",
    preset: PresetOption = None,
    data: DataOption = None,
    seeds: SeedsOption = 1,
    out: Annotated[
        Path | None, typer.Option("--out", help="Directory. Default: runs/TABLE. Goes on if it is there.")
    ] = None,
    address: AddressOption = None,
    cpus_per_trial: CpusOption = None,
    gpus_per_trial: GpusOption = None,
    memory_per_trial: MemoryOption = None,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a published table's protocol again: printed and measured numbers side by side, and what was not followed."""
    from rfsearch import reproduce as tables
    from rfsearch.ledger import Request
    from rfsearch.published import read_table

    published = read_table(table)
    base = Request(
        space=space,
        preset=preset,
        data=data,
        seeds=seeds,
        address=address,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        memory_per_trial=memory_per_trial,
    )
    console = progress_console(as_json)
    measured: dict[str, list[Measured]] = {}
    metric = ""
    for name, (request, rows) in tables.requests(published, base, scale).items():
        run_dir = (out or Path("runs") / table) / name
        the_plan, unfit = _train_rows(console, request, run_dir, device_for(base), trust)
        metric = the_plan.task.primary if the_plan else metric
        for row in tables.measure_rows(published, rows, run_dir, the_plan, unfit):
            measured.setdefault(row.label, []).append(row)
    common, found = tables.in_common(
        [tables.joined(measured.get(row.label) or [tables.unmeasured(row)]) for row in published.rows]
    )
    if as_json:
        body = {key: getattr(published, key) for key in ("title", "cite", "note", "marks")}
        print_json(
            {"table": table, **body, "metric": metric, "not_followed": common, "rows": [row.to_json() for row in found]}
        )
    else:
        _print_table(published, found, metric, common)
    raise typer.Exit(0 if any(row.trainings for row in found) else 1)


def _train_rows(
    console: Console, request: Request, run_dir: Path, device: torch.device, trust: bool = False
) -> tuple[Plan | None, dict[str, str]]:
    """Train the rows of a table that share a network, or go on where an earlier run of them had stopped.

    Returns:
        The plan, None where no row can be trained; and why rows cannot be, by the JSON of their candidates.
    """
    from rfsearch.ledger.lock import hold
    from rfsearch.ledger.manifest import MANIFEST_FILE, read_manifest
    from rfsearch.planning.directory import new_directory
    from rfsearch.planning.plan import Plan, misfits
    from rfsearch.planning.request import check_request
    from rfsearch.report import write
    from rfsearch.trust import opened

    with console.status("Reading the data ..."):
        unfit = misfits(check_request(request))
    fitting = tuple(text for text in request.candidates if text not in unfit)
    if not fitting:
        return None, unfit
    request = replace(request, candidates=fitting)
    if (run_dir / MANIFEST_FILE).exists():
        objects = read_manifest(run_dir).has_own_trainings
        with hold(run_dir), resumable(run_dir), opened(run_dir, trust, objects):
            the_plan = go_on(console, request, run_dir, device)
            write(run_dir)
    else:
        with new_directory(run_dir), resumable(run_dir):
            the_plan = begin_run(console, check_request(request), run_dir, device)
            write(run_dir)
    assert isinstance(the_plan, Plan)
    return the_plan, unfit


def _print_table(published: PublishedTable, rows: Sequence[Measured], metric: str, departures: Sequence[str]) -> None:
    from rfsearch.display import side_by_side

    headings = {name: column.heading for name, column in published.columns.items()}
    say(f"{published.title}. {published.cite}", style="bold")
    out_console.print(side_by_side(rows, metric, headings, out_console))
    for sentence in [
        published.note,
        *(f"{mark}: {meaning}." for mark, meaning in published.marks.items()),
        *(f"{row.label}, {headings[name]}: {why}." for row in rows for name, why in row.suspect.items()),
        "Not as in the paper:" if departures else "",
        *departures,
        *(f"{row.label}: {sentence}" for row in rows for sentence in row.not_followed),
    ]:
        if sentence:
            say(sentence)
