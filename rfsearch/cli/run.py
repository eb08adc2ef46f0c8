"""The commands `run` and `resume`: train until every strategy has spent its budget, and report."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rfsearch.cli.options import AddressOption, JsonOption, make_request, with_options_of
from rfsearch.cli.report import report_run
from rfsearch.conduct import begin_run, device_for, go_on, resumable
from rfsearch.printing import progress_console, warn

if TYPE_CHECKING:
    from rfsearch.ledger import Request


@with_options_of(make_request)
def run(
    request: Request,
    out: Annotated[Path | None, typer.Option("--out", help="Run directory. Default: runs/SPACE-TIME.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Search: train candidates of a space until every strategy has spent its budget, and report."""
    from rfsearch.ledger.run_directory import make_unused
    from rfsearch.planning.directory import new_directory
    from rfsearch.planning.request import check_request

    checked = check_request(request)
    warn_of_plugins()
    device = device_for(request)
    run_dir = out or make_unused(Path("runs") / f"{Path(request.space).stem}-{datetime.now():%Y%m%d-%H%M%S}")
    with new_directory(run_dir), resumable(run_dir):
        begin_run(progress_console(as_json), checked, run_dir, device)
        code = report_run(run_dir, as_json)
    raise typer.Exit(code)


def resume(
    run_dir: Annotated[Path, typer.Argument(help="Directory of an interrupted run.")],
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Finish an interrupted run: nothing is lost, nothing is counted twice."""
    from rfsearch.ledger.lock import hold
    from rfsearch.ledger.manifest import read_manifest
    from rfsearch.ledger.typed_json import sound

    request = sound(read_manifest(run_dir).request)
    device = device_for(request)
    with hold(run_dir), resumable(run_dir):
        go_on(progress_console(as_json), replace(request, address=address or request.address), run_dir, device)
        code = report_run(run_dir, as_json)
    raise typer.Exit(code)


def warn_of_plugins() -> None:
    """Name the plugins that do not load, which keep no other one from being used."""
    from rfsearch import plugins

    for fault in plugins.faults():
        warn(f"Passed over: {fault}")
