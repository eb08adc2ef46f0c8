"""Train the contest of a run, begin it or go on with it, and show how it goes."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console

from rfsearch.errors import StrategyError
from rfsearch.interrupt import Interrupted, deferred
from rfsearch.printing import say, warn
from rfsearch.storage import name_of, storage_of

if TYPE_CHECKING:
    import torch

    from rfsearch.ledger import Record, Request
    from rfsearch.observers import Observers
    from rfsearch.planning.competition import Engine
    from rfsearch.planning.contest import Contest
    from rfsearch.planning.plan import Plan
    from rfsearch.planning.request import CheckedRequest
    from rfsearch.planning.search_plan import SearchPlan

T = TypeVar("T")
AnyPlan = TypeVar("AnyPlan", bound="SearchPlan")


def begin_run(console: Console, checked: CheckedRequest, run_dir: Path, device: torch.device) -> Plan:
    """Plan a request for built-in trainings and train until done.

    Args:
        console: Where progress is shown.
        checked: The request.
        run_dir: An empty directory.
        device: What trials train on.
    """
    from rfsearch.planning.plan import make_plan, read_data

    data = _in_background(partial(read_data, checked, run_dir / "cache"))  # takes about as long as an engine's start
    return begin(
        console,
        checked.request,
        lambda: make_plan(checked, data.result(), device),
        run_dir,
        device,
    )


def begin(
    console: Console,
    request: Request,
    make_plan: Callable[[], AnyPlan],
    run_dir: Path,
    device: torch.device,
    command: str | None = None,
) -> AnyPlan:
    """Plan a request and train until done.

    Args:
        console: Where progress is shown.
        request: Says where trials run.
        make_plan: Makes the plan, once whatever runs the trials has started.
        run_dir: An empty directory.
        device: What trials train on.
        command: What started the run. None: this process's command line.
    """
    from rfsearch.planning.competition import contest_of
    from rfsearch.planning.directory import start_run

    with ExitStack() as stack:
        with console.status("Reading the data and forecasting costs ..."):
            engine = stack.enter_context(start_engine(request))
            the_plan = make_plan()
        start_run(the_plan, run_dir, command or shlex.join(["rfsearch", *sys.argv[1:]]), engine.workers, device.type)
        if storage := storage_of(run_dir):
            storage.push_all()
        _say_plan(console, the_plan, run_dir, engine.workers)
        contest = contest_of(the_plan, run_dir)
        observers = stack.enter_context(_observing(console, the_plan, run_dir))
        _compete(console, the_plan, contest, run_dir, engine, observers)
        _confirm(console, the_plan, run_dir, engine, request.confirm)
    _look_at_networks(console, the_plan, run_dir, device)
    return the_plan


def go_on(
    console: Console,
    request: Request,
    run_dir: Path,
    device: torch.device,
    reopen: Callable[[], SearchPlan] | None = None,
) -> SearchPlan:
    """Train what an earlier start of a run has left, if anything.

    Args:
        console: Where progress is shown.
        request: Says where trials run.
        run_dir: Directory of the run.
        device: What trials train on.
        reopen: Makes its plan; by default from the directory alone.
    """
    from rfsearch.ledger.run_directory import SCRATCH
    from rfsearch.planning.competition import contest_of
    from rfsearch.planning.directory import reopen_run
    from rfsearch.report.page import REPORT_FILE

    with console.status("Reading the data and the ledger ..."):
        the_plan = reopen() if reopen else reopen_run(run_dir, device)
        contest = contest_of(the_plan, run_dir)
    shutil.rmtree(run_dir / SCRATCH, ignore_errors=True)
    if contest.done and _confirmation(the_plan, run_dir, request.confirm) is None:
        say(f"Nothing was left to train. Report: {run_dir / REPORT_FILE}", console, unbroken=True)
    else:
        with start_engine(request) as engine, _observing(console, the_plan, run_dir) as observers:
            if not contest.done:
                _compete(console, the_plan, contest, run_dir, engine, observers)
            _confirm(console, the_plan, run_dir, engine, request.confirm)
    _look_at_networks(console, the_plan, run_dir, device)
    return the_plan


def device_for(request: Request) -> torch.device:
    """Return the device that trials will train on, and set this process up as a worker is."""
    import torch

    torch.set_num_threads(max(1, int(request.cpus_per_trial or request.processes_per_trial)))
    if request.gpus_per_trial == 0 or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")


def start_engine(request: Request) -> AbstractContextManager[Engine]:
    """Return what runs the trials; it starts when its context is entered."""
    from rfsearch.observers import callbacks_of
    from rfsearch.orchestration import Engine, Resources
    from rfsearch.planning.request import memory_bytes, timeout_s

    if request.replay is not None and request.address is None:
        from rfsearch.replay import OneAtATime

        return nullcontext(OneAtATime())
    processes = request.processes_per_trial
    cpus, memory = request.cpus_per_trial or processes, memory_bytes(request)
    resources = Resources(cpus, request.gpus_per_trial, timeout_s(request), processes, memory)
    return Engine(request.address, resources, callbacks_of(request.track), warn)


def room_of(the_plan: SearchPlan) -> str:
    """Return what an arm's budget has room for, as a sentence."""
    from rfsearch.report.budgets import holds

    each = the_plan.full_training.flop / the_plan.reference_flop
    return holds(the_plan.budget.text, the_plan.full_trainings, each)


@contextmanager
def resumable(run_dir: Path, how: str = "") -> Iterator[None]:
    """Say how to go on after an interrupt in this context, or a strategy's fault.

    Where nothing has been trained yet, there is nothing to go on with.

    Args:
        run_dir: Directory of the run.
        how: What goes on with it. Empty: the command that does.
    """
    from rfsearch.ledger.journal import LEDGER_FILE

    try:
        yield
    except (Interrupted, StrategyError) as stop:
        if not (run_dir / LEDGER_FILE).exists():
            raise
        how = how or f"rfsearch resume {shlex.quote(name_of(run_dir))}"
        if isinstance(stop, StrategyError):
            raise StrategyError(f"{stop} Nothing is lost. Mend the strategy, then go on with: {how}") from stop
        raise Interrupted(f"Interrupted. Nothing is lost. Go on with: {how}") from None


def _in_background(work: Callable[[], T]) -> Future[T]:
    """Run work in a thread that does not keep an interrupted process waiting."""
    result: Future[T] = Future()

    def go() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    Thread(target=go, daemon=True).start()
    return result


def _say_plan(console: Console, the_plan: SearchPlan, run_dir: Path, workers: int) -> None:
    from rfsearch.numbers import counted, prefixed

    say(the_plan.title, console, style="bold")
    for notice in the_plan.notices:
        say(notice, console, style="yellow")
    say(
        f"{counted(len(the_plan.arms), 'arm')} x {the_plan.budget.text} "
        f"(1x = {prefixed(the_plan.reference_flop, 'FLOP')}, one full training without its evaluations), "
        f"{counted(workers, 'trial')} at a time. Everything goes to {name_of(run_dir)}.",
        console,
    )
    say(room_of(the_plan), console)


def _observing(console: Console, the_plan: SearchPlan, run_dir: Path) -> AbstractContextManager[Observers]:
    """Return what follows a run while its trials are trained."""
    from rfsearch.ledger import read_history
    from rfsearch.observers import Watched, observing
    from rfsearch.report import write

    space, request = the_plan.space, the_plan.request
    gammas, bounds = space.sampling.gammas, space.sampling.bounds
    watched = Watched(
        run_dir,
        the_plan.title,
        the_plan.primary,
        space.direction,
        [(entrant.label, seed) for entrant, seed in the_plan.arms],
        {
            "dilation": (min(space.dilations), max(space.dilations)),
            "f": (min(*space.f_bounds, *space.f_search), max(*space.f_bounds, *space.f_search)),
            "gamma": (min(*bounds, *gammas), max(*bounds, *gammas)),
            "s": (min(space.sampling.regions), max(space.sampling.regions)),
        },
        tuple(read_history(run_dir).records.values()),
        {"space": space.name, "backbone": space.backbone, "budget": the_plan.budget.text, "seeds": request.seeds},
    )
    return observing(request.track, watched, lambda said: warn(said, console), write)


def _compete(
    console: Console, the_plan: SearchPlan, contest: Contest, run_dir: Path, engine: Engine, observers: Observers
) -> None:
    """Train until done. An interrupt, or a strategy's fault, leaves tables and page of what there is."""
    from rfsearch.board import Board
    from rfsearch.planning.competition import compete

    with (
        _reporting(run_dir),
        Board(console, the_plan.title, the_plan.primary, contest) as board,
        deferred() as check,
    ):

        def watch(record: Record, contest: Contest) -> None:
            board.watch(record, contest)
            observers.take(record, record.trial in contest.running)

        compete(the_plan, contest, run_dir, engine, watch, check)
    if storage := storage_of(run_dir):
        for trial in contest.shown:
            storage.pull(f"checkpoints/{trial}", same_size=True)


def _confirm(console: Console, the_plan: SearchPlan, run_dir: Path, engine: Engine, count: int) -> None:
    """Train the best outcomes again, where that is asked for and not done. It belongs to no arm, and no tracker."""
    from rfsearch.board import Board
    from rfsearch.ledger.links import CONFIRMATION
    from rfsearch.planning.competition import compete

    contest, folder = _confirmation(the_plan, run_dir, count), run_dir / CONFIRMATION
    if contest is None:
        return
    title = f"{the_plan.title}: its best outcomes once more"
    with _reporting(run_dir), Board(console, title, the_plan.primary, contest) as board, deferred() as check:
        compete(the_plan, contest, folder, engine, board.watch, check)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    if storage := storage_of(folder):
        storage.keep_checkpoints(set())


def _confirmation(the_plan: SearchPlan, run_dir: Path, count: int) -> Contest | None:
    """Return the contest that trains a run's best outcomes again; None where nothing is left to train."""
    from rfsearch.ledger import read_run
    from rfsearch.ledger.links import CONFIRMATION
    from rfsearch.planning.confirmation import confirming_contest
    from rfsearch.report.confirmed import best_outcomes
    from rfsearch.report.view import build_view

    outcomes = best_outcomes(build_view(read_run(run_dir)).without_confirmations, count) if count else []
    if not outcomes:
        return None
    contest = confirming_contest(the_plan, outcomes, run_dir / CONFIRMATION)
    return None if contest.done else contest


@contextmanager
def _reporting(run_dir: Path) -> Iterator[None]:
    """Leave tables and page of what there is where an interrupt, or a strategy's fault, ends this context."""
    from rfsearch.report import write

    try:
        yield
    except (Interrupted, StrategyError):
        write(run_dir)
        raise


def _look_at_networks(console: Console, the_plan: SearchPlan, run_dir: Path, device: torch.device) -> None:
    """Measure what is missing of latencies and effective fields, now that nothing trains.

    An interrupt leaves tables and page as they are.
    """
    if the_plan.request.replay is not None:
        return  # no network was trained; latencies stand in the records that were looked up
    from rfsearch.effective_fields import measure_fields
    from rfsearch.report import write
    from rfsearch.timing import time_networks

    try:
        with (
            console.status("Measuring latencies and effective fields ..."),
            deferred() as check,
        ):
            notices = time_networks(the_plan, run_dir, device, check)
            notices += measure_fields(the_plan, run_dir, check)
    except Interrupted:
        write(run_dir)
        raise
    for notice in notices:
        warn(notice, console)
