"""The commands `run` and `resume`: train until every strategy has spent its budget, and report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rfsearch.cli.options import AddressOption, ConfirmOption, JsonOption, TrustOption, make_request, with_options_of
from rfsearch.cli.report import report_run
from rfsearch.conduct import begin, begin_run, device_for, go_on, resumable
from rfsearch.printing import progress_console, warn
from rfsearch.storage import run_directory

if TYPE_CHECKING:
    from rich.console import Console

    from rfsearch.ledger import Request


@with_options_of(make_request)
def run(
    request: Request,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Run directory, or a place on object storage, as s3://BUCKET/RUN. Default: runs/SPACE-TIME.",
            parser=run_directory,
            metavar="DIR",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Search: train candidates of a space until every strategy has spent its budget, and report."""
    from rfsearch.planning.directory import new_directory

    start, unused = _start_of(request, progress_console(as_json))
    run_dir = out or unused()
    with new_directory(run_dir), resumable(run_dir):
        start(run_dir)
        code = report_run(run_dir, as_json)
    raise typer.Exit(code)


def _start_of(request: Request, console: Console) -> tuple[Callable[[Path], object], Callable[[], Path]]:
    """Check a request; returns what starts its run in a directory, and what makes one where none is named."""
    from rfsearch.ledger.run_directory import make_unused
    from rfsearch.planning.request import check_request

    if request.train is None:
        checked = check_request(request)
        warn_of_plugins()
        device = device_for(request)
        wanted = Path("runs") / f"{Path(request.space).stem}-{datetime.now():%Y%m%d-%H%M%S}"
        return lambda run_dir: begin_run(console, checked, run_dir, device), partial(make_unused, wanted)
    from rfsearch.own_loop.own_search import default_directory, own_request, plan_with_pilot

    code, request = own_request(request)
    device = device_for(request)
    the_plan = plan_with_pilot(console, code, request, device)
    unused = partial(default_directory, request)
    return lambda run_dir: begin(console, request, lambda: the_plan, run_dir, device), unused


def resume(
    run_dir: Annotated[
        Path,
        typer.Argument(help="Directory or URI of an interrupted run.", parser=run_directory, metavar="RUN"),
    ],
    data: Annotated[str | None, typer.Option("--data", help="Folder that the run's images are in now.")] = None,
    address: AddressOption = None,
    confirm: ConfirmOption = 0,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Finish an interrupted run: nothing is lost, nothing is counted twice."""
    from rfsearch.ledger.lock import hold
    from rfsearch.ledger.manifest import read_manifest
    from rfsearch.ledger.typed_json import sound
    from rfsearch.planning.directory import note_data_at
    from rfsearch.planning.request import check_request_in_general
    from rfsearch.trust import is_trusted, opened

    manifest = read_manifest(run_dir)
    asked = sound(manifest.request)
    if asked.address and not (address or trust or is_trusted(run_dir)):
        warn(
            f"{run_dir} was not begun here: the cluster that it names, {asked.address}, is not joined. Say --address "
            "or --trust to join it."
        )
        asked = replace(asked, address=None)
    request = replace(asked, address=address or asked.address, confirm=max(confirm, asked.confirm))
    check_request_in_general(request)
    device = device_for(request)
    with hold(run_dir), resumable(run_dir), opened(run_dir, trust, objects=manifest.has_own_trainings):
        if data is not None:
            note_data_at(run_dir, data)
        go_on(progress_console(as_json), request, run_dir, device)
        code = report_run(run_dir, as_json)
    raise typer.Exit(code)


def warn_of_plugins() -> None:
    """Name the plugins that do not load, which keep no other one from being used."""
    from rfsearch import plugins

    for fault in plugins.faults():
        warn(f"Passed over: {fault}")
