"""The command line: parse, call, print. What is done is in `rfsearch.planning`.

Exit codes: 0 done; 1 the run finished but no trial succeeded; 2 the request was wrong; 130 interrupted.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rfsearch import __version__, account, cli_export, cli_models, interrupt, terminal
from rfsearch.errors import RequestError, StrategyError
from rfsearch.interrupt import Interrupted, deferred

if TYPE_CHECKING:
    from rfsearch.ledger import Run
    from rfsearch.planning.checking import CheckedRequest
    from rfsearch.planning.contest import Contest
    from rfsearch.planning.plan import Plan
    from rfsearch.planning.request import Request

T = TypeVar("T")


app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
out_console = terminal.console()
err_console = terminal.console(stderr=True)

SpaceOption = Annotated[str, typer.Option("--space", help="Name of a space, or a space file.")]
PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset", help="Size of the space: mini (default), paper ..., and its form: bi, tri, lsdfn, paper-bi, ..."
    ),
]
DataOption = Annotated[str | None, typer.Option("--data", help="Folder of images. Default: the space's embedded set.")]
BackboneOption = Annotated[
    str | None,
    typer.Option("--backbone", help="Network: a name, package.module:callable or path/to/file.py:callable."),
]
SiteOption = Annotated[
    list[str] | None, typer.Option("--site", help="Module path or pattern of a convolution to search (repeat).")
]
StrategiesOption = Annotated[
    str | None,
    typer.Option(
        "--strategies",
        help="Comma-separated names, package.module:Class or path/to/file.py:Class; each may name a form: "
        "inflation@bi, exhaustive@lsdfn. Default: exhaustive,random,optuna,inflation,fractional.",
    ),
]
PathsOption = Annotated[int | None, typer.Option("--paths", help="Parallel paths at every site: 1, 2 or 3.")]
BudgetOption = Annotated[
    str | None,
    typer.Option(
        "--budget",
        help="Of each arm: 7x, 2e15flop, 30min or 40epoch. 1x is the training FLOP of one full training of the hand "
        "default, without its evaluations, which are charged too: plan says how many trainings a budget has room for.",
    ),
]
SeedsOption = Annotated[int, typer.Option("--seeds", help="Arms per strategy, each with a seed of its own.")]
AddressOption = Annotated[str | None, typer.Option("--address", help="Ray cluster to join. Default: this machine.")]
CpusOption = Annotated[float | None, typer.Option("--cpus-per-trial", help="Default: 1.")]
GpusOption = Annotated[float | None, typer.Option("--gpus-per-trial", help="May be a fraction. Default: 1 if any.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"rfsearch {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Search the receptive field of a network, on equal, metered budgets."""


@app.command("run")
def run_command(
    space: SpaceOption,
    preset: PresetOption = None,
    data: DataOption = None,
    backbone: BackboneOption = None,
    site: SiteOption = None,
    strategies: StrategiesOption = None,
    paths: PathsOption = None,
    budget: BudgetOption = None,
    seeds: SeedsOption = 1,
    out: Annotated[Path | None, typer.Option("--out", help="Run directory. Default: runs/SPACE-TIME.")] = None,
    address: AddressOption = None,
    cpus_per_trial: CpusOption = None,
    gpus_per_trial: GpusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search: train candidates of a space until every strategy has spent its budget, and report."""
    from rfsearch.ledger.run_directory import make_unused
    from rfsearch.planning.directory import new_directory

    checked = _request(
        space, preset, data, backbone, site, strategies, paths, budget, seeds, address, cpus_per_trial, gpus_per_trial
    )
    _warn_of_plugins()
    device = _device(gpus_per_trial, cpus_per_trial or 1)
    console = _console(as_json)
    run_dir = out or make_unused(Path("runs") / f"{Path(space).stem}-{datetime.now():%Y%m%d-%H%M%S}")
    with new_directory(run_dir), _resumable(run_dir):
        _run(console, checked, run_dir, device)
        code = _close(run_dir, as_json)
    raise typer.Exit(code)


@app.command()
def plan(
    space: SpaceOption,
    preset: PresetOption = None,
    data: DataOption = None,
    backbone: BackboneOption = None,
    site: SiteOption = None,
    strategies: StrategiesOption = None,
    paths: PathsOption = None,
    budget: BudgetOption = None,
    seeds: SeedsOption = 1,
    out: Annotated[Path | None, typer.Option("--out", help="As for run; nothing is written.")] = None,
    address: AddressOption = None,
    cpus_per_trial: CpusOption = None,
    gpus_per_trial: GpusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a run would try, with receptive fields and a forecast of its cost, before anything is trained."""
    import tempfile

    from rfsearch.display import duration, plan_table, si
    from rfsearch.planning.plan import PLANNED_MOST, drawn, forecast_rows, guides, make_plan, read_data
    from rfsearch.report.wording import counted

    checked = _request(
        space, preset, data, backbone, site, strategies, paths, budget, seeds, address, cpus_per_trial, gpus_per_trial
    )
    _warn_of_plugins()
    with tempfile.TemporaryDirectory() as cache:
        the_plan = make_plan(checked, read_data(checked, Path(cache)), _device(gpus_per_trial, cpus_per_trial or 1))
        rows = forecast_rows(the_plan)
        arms = the_plan.arms
        if as_json:
            body = {"reference_flop": the_plan.reference_flop, "arms": len(arms), "candidates": rows}
            budget_held = vars(the_plan.budget) | {"full_training": vars(the_plan.full_training)}
            budget_held |= {"full_trainings": the_plan.full_trainings}
            body |= {"budget": budget_held, "data": the_plan.data.summary(), "notices": the_plan.notices}
            print(json.dumps(body, indent=1))
            return
        out_console.print(_title(the_plan))
        for notice in the_plan.notices:
            out_console.print(notice, style="yellow", highlight=False, markup=False)
        out_console.print(plan_table(rows, the_plan.reference_flop))
        if any(row["alike"] for row in rows):
            out_console.print(
                "Alike: at this image size no unit reads another part of the image. A run tries them all the same: "
                "what they read of it is spaced differently.",
                highlight=False,
            )
        for rf_px in sorted({row["rf_px"] for row in rows})[:: max(1, len(rows) - 1)]:
            out_console.print(str(the_plan.sizes.compare(rf_px)), highlight=False)
        if (left_out := len(the_plan.candidates) - PLANNED_MOST) > 0:
            out_console.print(f"and {left_out} more candidates", highlight=False)
        for sentence in [*guides(the_plan), *drawn(the_plan)]:
            out_console.print(sentence, highlight=False)
        out_console.print(the_plan.holds, highlight=False, markup=False)
        if the_plan.budget.currency == "flop":
            total = the_plan.budget.limit * len(arms)
            seconds = total / the_plan.forecaster.flop_per_s
            out_console.print(
                f"{counted(len(arms), 'arm')} x {the_plan.budget.text}: {si(total, 'FLOP')}, "
                f"about {duration(seconds)} of one worker's time. 1x = {si(the_plan.reference_flop, 'FLOP')}.",
                highlight=False,
            )


@app.command()
def resume(
    run_dir: Annotated[Path, typer.Argument(help="Directory of an interrupted run.")],
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Finish an interrupted run: nothing is lost, nothing is counted twice."""
    from dataclasses import replace

    from rfsearch.ledger.lock import hold
    from rfsearch.planning.directory import request_of

    request = request_of(run_dir)
    device = _device(request.gpus_per_trial, request.cpus_per_trial or 1)
    with hold(run_dir), _resumable(run_dir):
        _go_on(_console(as_json), replace(request, address=address or request.address), run_dir, device)
        code = _close(run_dir, as_json)
    raise typer.Exit(code)


@app.command()
def reproduce(
    table: Annotated[str, typer.Argument(help="wei-table2, wei-table3, wei-table4 or lsdfn-table5.")],
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
    as_json: JsonOption = False,
) -> None:
    """Run a published table's protocol again: printed and measured numbers side by side, and what was not followed."""
    from dataclasses import replace

    from rfsearch import reproduce as tables
    from rfsearch.display import side_by_side
    from rfsearch.planning.checking import check_request
    from rfsearch.planning.plan import misfits
    from rfsearch.planning.request import Request

    published = tables.read_table(table)
    base = Request(
        space=space,
        preset=preset,
        data=data,
        seeds=seeds,
        address=address,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
    )
    folder = out or Path("runs") / table
    console = _console(as_json)
    device = _device(gpus_per_trial, cpus_per_trial or 1)
    found: list[tables.Measured] = []
    left_out: dict[str, None] = {}
    metric = ""
    for name, (request, rows) in tables.requests(published, base, scale).items():
        with console.status("Reading the data ..."):
            unfit = misfits(check_request(request))
        if fitting := tuple(text for text in request.candidates if text not in unfit):
            the_plan = _train_table(console, replace(request, candidates=fitting), folder / name, device)
            left_out.update(dict.fromkeys(tables.departures(published, the_plan)))
            metric = the_plan.primary
        found += tables.outcome(rows, folder / name, unfit)
    if as_json:
        body = {
            "table": table,
            "title": published.title,
            "cite": published.cite,
            "note": published.note,
            "metric": metric,
        }
        print(json.dumps(body | {"not_followed": list(left_out), "rows": [vars(row) for row in found]}, indent=1))
    else:
        out_console.print(f"{published.title}. {published.cite}", style="bold", highlight=False)
        out_console.print(side_by_side(found, metric))
        for sentence in [published.note, "Not as in the paper:" if left_out else "", *left_out]:
            if sentence:
                out_console.print(sentence, highlight=False)
    raise typer.Exit(0 if any(row.trainings for row in found) else 1)


def _train_table(console: Console, request: Request, run_dir: Path, device: Any) -> Plan:
    """Train a table's rows, or go on where an earlier run of it had stopped."""
    from rfsearch.ledger.lock import hold
    from rfsearch.ledger.run_directory import MANIFEST_FILE
    from rfsearch.planning.checking import check_request
    from rfsearch.planning.directory import new_directory
    from rfsearch.report import write

    if (run_dir / MANIFEST_FILE).exists():
        with hold(run_dir), _resumable(run_dir):
            the_plan = _go_on(console, request, run_dir, device)
            write(run_dir)
    else:
        with new_directory(run_dir), _resumable(run_dir):
            the_plan = _run(console, check_request(request), run_dir, device)
            write(run_dir)
    return the_plan


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(help="Run directory, finished or not.")],
    as_json: JsonOption = False,
) -> None:
    """Write the tables and the page of a run again, from its ledger."""
    _close(run_dir, as_json)


@app.command("list")
def list_command(as_json: JsonOption = False) -> None:
    """List the spaces, backbones, strategies and tasks that can be named."""
    from rfsearch import plugins
    from rfsearch.space import read_space

    def about_space(name: str) -> str:
        file = plugins.space_file(name)
        return f"{read_space(file, None).title}. {_presets(file)}"

    rows: list[tuple[str, str, str]] = []
    groups: tuple[tuple[plugins.Group, str], ...] = (
        ("spaces", "space"),
        ("strategies", "strategy"),
        ("backbones", "backbone"),
        ("tasks", "task"),
    )
    for group, kind in groups:
        for name in plugins.names(group):
            try:
                about = about_space(name) if group == "spaces" else _first_sentence(plugins.load(group, name))
                rows.append((kind, name, about))
            except RequestError as error:
                _warn(f"Left out: {error}")
    if as_json:
        print(json.dumps([{"kind": k, "name": n, "about": a} for k, n, a in rows], indent=1))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("kind", "name", "about"):
        table.add_column(column, no_wrap=column != "about")
    for row in rows:
        table.add_row(*row)
    out_console.print(table)


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Check this installation: versions, devices, memory, room, and a training step."""
    from rfsearch.doctor import checks

    found = checks()
    if as_json:
        print(json.dumps([vars(check) for check in found], indent=1))
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("", "check", "found"):
            table.add_column(column, no_wrap=column != "found")
        for check in found:
            mark = Text("ok", style="green") if check.ok else Text("no", style="red")
            table.add_row(mark, check.name, check.found)
        out_console.print(table)
    raise typer.Exit(0 if all(check.ok for check in found) else 2)


app.command("rf")(cli_models.rf)
app.command("sites")(cli_models.sites)
app.command("export")(cli_export.export)


def _first_sentence(named: Any) -> str:
    doc = getattr(named, "__doc__", None) or "Not described"
    return " ".join(doc.split()).partition(". ")[0].rstrip(".") + "."


def _warn(sentence: str) -> None:
    err_console.print(sentence, style="yellow", highlight=False, markup=False, soft_wrap=True)


def _warn_of_plugins() -> None:
    """Name the plugins that do not load, which keep no other one from being used."""
    from rfsearch import plugins

    for fault in plugins.faults():
        _warn(f"Passed over: {fault}")


def _presets(path: Path) -> str:
    import tomllib

    from rfsearch.space import SpaceFile

    file = SpaceFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    return f"Presets: {', '.join(file.presets)}; each as {', '.join(file.forms)}, like {next(iter(file.presets))}-bi."


def _request(
    space: str,
    preset: str | None,
    data: str | None,
    backbone: str | None,
    site: list[str] | None,
    strategies: str | None,
    paths: int | None,
    budget: str | None,
    seeds: int,
    address: str | None,
    cpus_per_trial: float | None,
    gpus_per_trial: float | None,
) -> CheckedRequest:
    """Make one request of the options of run and plan, and check it as far as that needs no data."""
    from rfsearch.planning.checking import check_request
    from rfsearch.planning.request import Request

    request = Request(
        space=space,
        preset=preset,
        data=data,
        backbone=backbone,
        sites=tuple(site or ()),
        strategies=tuple(s.strip() for s in strategies.split(",")) if strategies is not None else (),
        paths=paths,
        budget=budget,
        seeds=seeds,
        address=address,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
    )
    return check_request(request)


def _run(console: Console, checked: CheckedRequest, run_dir: Path, device: Any) -> Plan:
    """Plan a request and train until done."""
    from rfsearch.planning.competition import contest_of
    from rfsearch.planning.directory import start_run
    from rfsearch.planning.plan import make_plan, read_data

    with ExitStack() as stack:
        with console.status("Reading the data and forecasting costs ..."):
            data = _beside(partial(read_data, checked, run_dir / "cache"))
            engine = stack.enter_context(_engine(checked.request))  # takes about as long to start
            the_plan = make_plan(checked, data.result(), device)
        start_run(the_plan, run_dir, _command(), engine.workers, device.type)
        _say_plan(console, the_plan, run_dir, engine.workers)
        _compete(console, the_plan, contest_of(the_plan, run_dir), run_dir, engine)
    _time_networks(console, the_plan, run_dir, device)
    return the_plan


def _go_on(console: Console, request: Request, run_dir: Path, device: Any) -> Plan:
    """Train what an earlier start of a run had left, if anything. request: says where."""
    from rfsearch.ledger.run_directory import SCRATCH
    from rfsearch.planning.competition import contest_of
    from rfsearch.planning.directory import reopen_run
    from rfsearch.report.page import REPORT_FILE

    with console.status("Reading the data and the ledger ..."):
        the_plan = reopen_run(run_dir, device)
        contest = contest_of(the_plan, run_dir)
    shutil.rmtree(run_dir / SCRATCH, ignore_errors=True)
    if contest.done:
        report = run_dir / REPORT_FILE
        console.print(f"Nothing was left to train. Report: {report}", highlight=False, markup=False, soft_wrap=True)
    else:
        with _engine(request) as engine:
            _compete(console, the_plan, contest, run_dir, engine)
    _time_networks(console, the_plan, run_dir, device)
    return the_plan


def _beside(work: Callable[[], T]) -> Future[T]:
    """What work gives, done in a thread that does not keep an interrupted process waiting."""
    found: Future[T] = Future()

    def go() -> None:
        try:
            found.set_result(work())
        except BaseException as error:
            found.set_exception(error)

    Thread(target=go, daemon=True).start()
    return found


def _engine(request: Request) -> Any:
    from rfsearch.orchestration import Engine, Resources

    resources = Resources(request.cpus_per_trial or 1, request.gpus_per_trial)
    return Engine(request.address, resources)


def _device(gpus: float | None, cpus: float) -> Any:
    """The device that trials will train on, set up as a worker sets it up."""
    import torch

    torch.set_num_threads(max(1, int(cpus)))
    if gpus == 0 or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")


def _title(the_plan: Plan) -> str:
    space = the_plan.space
    return f"{space.title} ({space.name}, preset {space.preset}): {the_plan.data.summary()}"


def _say_plan(console: Console, the_plan: Plan, run_dir: Path, workers: int) -> None:
    from rfsearch.display import si
    from rfsearch.report.wording import counted

    console.print(_title(the_plan), style="bold", highlight=False)
    for notice in the_plan.notices:
        console.print(notice, style="yellow", highlight=False, markup=False)
    console.print(
        f"{counted(len(the_plan.arms), 'arm')} x {the_plan.budget.text} (1x = {si(the_plan.reference_flop, 'FLOP')}, "
        f"one full training without its evaluations), {workers} trials at a time. Everything goes to {run_dir}.",
        highlight=False,
    )
    console.print(the_plan.holds, highlight=False, markup=False)


def _compete(console: Console, the_plan: Plan, contest: Contest, run_dir: Path, engine: Any) -> None:
    """Train until done. An interrupt, or a strategy's fault, leaves tables and page of what there is."""
    from rfsearch.display import Board
    from rfsearch.planning.competition import compete
    from rfsearch.report import write

    try:
        with Board(console, _title(the_plan), the_plan.primary, contest) as board, deferred() as check:
            compete(the_plan, contest, run_dir, engine, board.watch, check)
    except (Interrupted, StrategyError):
        write(run_dir)
        raise


def _time_networks(console: Console, the_plan: Plan, run_dir: Path, device: Any) -> None:
    """Measure what latencies are missing, now that nothing trains. An interrupt leaves tables and page as they are."""
    from rfsearch.report import write
    from rfsearch.timing import time_networks

    try:
        with console.status("Measuring latencies with nothing else running ..."), deferred() as check:
            notices = time_networks(the_plan, run_dir, device, check)
    except Interrupted:
        write(run_dir)
        raise
    for notice in notices:
        console.print(notice, style="yellow", highlight=False, markup=False, soft_wrap=True)


@contextmanager
def _resumable(run_dir: Path) -> Iterator[None]:
    """An interrupt in here, or a strategy's fault, says how to go on, where there is something to go on with."""
    from rfsearch.ledger.journal import LEDGER_FILE

    try:
        yield
    except (Interrupted, StrategyError) as stop:
        if not (run_dir / LEDGER_FILE).exists():
            raise
        how = f"rfsearch resume {shlex.quote(str(run_dir))}"
        if isinstance(stop, StrategyError):
            raise StrategyError(f"{stop} Nothing is lost. Mend the strategy, then go on with: {how}") from stop
        raise Interrupted(f"Interrupted. Nothing is lost. Go on with: {how}") from None


def _console(as_json: bool) -> Console:
    """Where progress goes: with --json standard output holds nothing but the JSON."""
    return err_console if as_json else out_console


def _close(run_dir: Path, as_json: bool) -> int:
    """Write tables and page, print the verdict; the exit code."""
    from rfsearch.ledger import read_run
    from rfsearch.report import left_unspent, summarise, write

    page = write(run_dir)
    run = read_run(run_dir)
    verdict, arms = summarise(run), _arms(run)
    if as_json:
        running = vars(run.running) if run.running else None
        body = {"verdict": verdict.to_json(), "arms": arms, "report": str(page), "running": running}
        print(json.dumps(body, indent=1))
    else:
        out_console.print()
        for sentence in verdict.sentences:
            out_console.print(sentence, highlight=False, markup=False)
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("arm")
        for name in ("trials", "spent", "over budget"):
            table.add_column(name, justify="right")
        for arm in arms:
            share = 100 * arm["spent"] / arm["budget"]
            table.add_row(
                f"{arm['strategy']}/{arm['seed']}", str(arm["trials"]), f"{share:.1f} %", f"{share - 100:+.1f} %"
            )
        out_console.print(table)
        for sentence in left_unspent(run):
            out_console.print(sentence, highlight=False, markup=False)
        out_console.print(f"Report: {page}", highlight=False)
    return 0 if any(record.scored for record in run.records) else 1


def _arms(run: Run) -> list[dict[str, Any]]:
    """What each arm did and spent, in the budget's currency."""
    from rfsearch.ledger import Budget
    from rfsearch.ledger.manifest import HeldArm, held
    from rfsearch.ledger.run_directory import MANIFEST_FILE
    from rfsearch.report.digest import digest
    from rfsearch.report.rows import arm_rows

    file = run.directory / MANIFEST_FILE
    budget = held(run.manifest, file, Budget, "budget")
    held(run.manifest, file, list[HeldArm], "arms")
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
        for row in arm_rows(digest(run))
    ]


def _command() -> str:
    return shlex.join(["rfsearch", *sys.argv[1:]])


def main() -> None:
    """Entry point: a wrong request is one message on standard error and exit code 2, never a traceback."""
    os.environ.update(account.stand_ins())
    with interrupt.kept():
        interrupt.install()
        try:
            app(prog_name="rfsearch")
        except RequestError as error:
            err_console.print(str(error), style="red", highlight=False, markup=False, soft_wrap=True)
            sys.exit(2)
        except OSError as error:
            err_console.print(f"{error}", style="red", highlight=False, markup=False, soft_wrap=True)
            sys.exit(2)
        except Interrupted as stop:
            err_console.print(str(stop), highlight=False, markup=False, soft_wrap=True)
            sys.exit(130)
