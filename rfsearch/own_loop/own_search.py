"""Search the receptive field of a network in its user's own training, from Python."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

import torch
from rich.console import Console

from rfsearch.direction import Direction
from rfsearch.errors import RunDirectoryError
from rfsearch.interrupt import Interrupted, SearchInterrupted
from rfsearch.ledger import Request
from rfsearch.ledger.lock import hold
from rfsearch.ledger.manifest import MANIFEST_FILE, read_manifest
from rfsearch.ledger.run_directory import make_unused
from rfsearch.ledger.typed_json import sound
from rfsearch.observers import check_tracks
from rfsearch.own_loop.loop_training import Train
from rfsearch.own_loop.planning import Make, OwnCode, OwnPlan, check_dilations, check_shape, make_own_plan, reopen
from rfsearch.planning.request import check_request_in_general, named_anywhere
from rfsearch.result import Result, load_run
from rfsearch.sources import absolute
from rfsearch.space.objectives import SCORE, check_objectives
from rfsearch.space.own_file import USUAL_DILATIONS
from rfsearch.storage import name_of, run_directory
from rfsearch.training.random_states import random_state, set_random_state
from rfsearch.trust import opened


def search(
    train: Train | str,
    *,
    model: Make | str,
    input_shape: Sequence[int],
    sites: str | Sequence[str] = (),
    dilations: Sequence[int] = USUAL_DILATIONS,
    strategies: Sequence[str] = (),
    paths: int | None = None,
    budget: str | None = None,
    seeds: int = 1,
    out: str | Path | None = None,
    direction: Direction = "maximize",
    score: str = "score",
    address: str | None = None,
    cpus_per_trial: float | None = None,
    gpus_per_trial: float | None = None,
    memory_per_trial: str | None = None,
    track: str | Sequence[str] = (),
    trial_timeout: str | None = None,
    processes_per_trial: int = 1,
    confirm: int = 0,
    objectives: Sequence[str] = (SCORE,),
    trust: bool = False,
) -> Result:
    """Search receptive fields, every candidate trained by a function of your own, on equal, metered budgets.

    `train` is called once for every trial, in worker processes, and once here, for a pilot of one epoch that shows what
    a full training costs. Given an `out` that holds a run of the same search, it goes on with that run.

    Args:
        train: Trains one trial, see `Trial`; a function, or its SPEC, path/to/file.py:function.
        model: Makes the network that `train` trains, without arguments, likewise.
        input_shape: 1 x C x its axes: what the network is shown of one image.
        sites: Module paths of convolutions, or shell patterns. None: those that are proposed for the network.
        dilations: What a site may get, px of its map.
        strategies: Names or SPECs. None: exhaustive, random, optuna, inflation and fractional.
        paths: Number of parallel paths at every site. None: one.
        budget: Of each arm, such as 7x, 2e15flop, 30min or 40epoch; 1x is the training FLOP of one full training of
            the network as it is.
        seeds: Arms of each strategy.
        out: Directory of the run, or a place on object storage, as s3://bucket/run. None: a new one in `runs`.
        direction: Whether a higher or a lower score is the better one.
        score: Name of the score, for the report.
        address: A Ray cluster to join. None: this machine.
        cpus_per_trial: CPU cores of a trial. None: 1.
        gpus_per_trial: GPUs of a trial, or a share of one. None: one if there are any.
        memory_per_trial: Memory that is set aside for a trial, such as "8g" (also k, m, t): so many run at a time as
            fit in. None: it is not looked at.
        track: Trackers that follow the run: "tensorboard", "mlflow", "wandb", or SPECs of observers.
        trial_timeout: How long a trial may go without a report, such as 30min (also s, h), before it is taken for one
            that hangs. None: 20 times its forecast, at least 10 minutes.
        processes_per_trial: How many processes train a trial together, each with `cpus_per_trial` and `gpus_per_trial`
            shared evenly: torch's process group is there when `train` is called.
        confirm: How many of the best outcomes are trained again once all arms have ended, each with four seeds that
            chose nothing, beside the network as it is. It belongs to no arm; a later call may ask for more.
        objectives: What the search goes by: "val", and costs that are to be low: "infer_mac", "infer_latency_ms",
            "infer_peak_bytes" or "params". With a cost, fixed choices of every kind are tried, and optuna looks for the
            whole front.
        trust: Whether to go on with a run in `out` that was not begun here: what its trainings have kept runs code as
            it is read. It is remembered.

    Returns:
        What was found, with its tables and figures.

    Raises:
        RequestError: Something in it is wrong, or `train` fails in the pilot.
        UntrustedError: The run in `out` was not begun here.
        KeyboardInterrupt: It was interrupted; the message says how to go on with it.

    Example:
        >>> result = rfsearch.search(train, model=make_model, input_shape=(1, 3, 512, 512), budget="7x")
        >>> print(result.verdict)
    """
    tracks = (track,) if isinstance(track, str) else tuple(track)
    check_tracks(tracks)
    code = OwnCode.of(train, model)
    asked = Request(
        space="",
        sites=(sites,) if isinstance(sites, str) else tuple(sites),
        strategies=(strategies,) if isinstance(strategies, str) else tuple(strategies),
        paths=paths,
        budget=budget,
        seeds=seeds,
        address=address,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        memory_per_trial=memory_per_trial,
        dilations=check_dilations(dilations),
        input_shape=check_shape(input_shape),
        direction=direction,
        score=score,
        track=tuple(map(absolute, tracks)),
        trial_timeout=trial_timeout,
        processes_per_trial=processes_per_trial,
        confirm=confirm,
        objectives=check_objectives(objectives),
    )
    request = _completed(code, asked)
    cpu = torch.device("cpu")
    threads, drawn = torch.get_num_threads(), random_state(cpu)
    try:
        return _run(code, request, out, trust)
    except Interrupted as stop:
        raise SearchInterrupted(*stop.args) from None
    finally:  # what a trial has meanwhile is not its caller's
        torch.set_num_threads(threads)
        set_random_state(drawn, cpu)


def _run(code: OwnCode, request: Request, out: str | Path | None, trust: bool) -> Result:
    """Begin a search or go on with it."""
    from rfsearch.conduct import begin, device_for, go_on, resumable
    from rfsearch.planning.directory import new_directory
    from rfsearch.printing import out_console
    from rfsearch.report import write

    device = device_for(request)
    run_dir = run_directory(out) if out else default_directory(request)
    how = "" if code.train_spec else f"rfsearch.search(..., out={name_of(run_dir)!r})"
    if (run_dir / MANIFEST_FILE).exists():
        manifest = read_manifest(run_dir)
        _require_same_search(run_dir, sound(manifest.request), request)
        with hold(run_dir), resumable(run_dir, how), opened(run_dir, trust, objects=True):
            go_on(out_console, request, run_dir, device, lambda: reopen(run_dir, manifest, device, code))
            write(run_dir)
    else:
        the_plan = plan_with_pilot(out_console, code, request, device)
        with new_directory(run_dir), resumable(run_dir, how):
            begin(out_console, request, lambda: the_plan, run_dir, device, _command())
            write(run_dir)
    return load_run(run_dir)


def own_request(request: Request) -> tuple[OwnCode, Request]:
    """Return the functions that a request names by SPEC, and the request with names that mean the same everywhere.

    Raises:
        ModelError: There is nothing behind a SPEC.
    """
    assert request.train is not None
    assert request.backbone is not None
    code = OwnCode.of(request.train, request.backbone)
    return code, _completed(code, request)


def _completed(code: OwnCode, request: Request) -> Request:
    """Return a request with what it leaves open, and with names that mean the same everywhere.

    Raises:
        SpaceError: Something in it is wrong.
    """
    check_request_in_general(request)
    return replace(
        request,
        space="",
        train=code.train_spec,
        backbone=code.model_spec,
        strategies=named_anywhere(request),
        dilations=check_dilations(request.dilations or USUAL_DILATIONS),
        input_shape=check_shape(request.input_shape),
        direction=request.direction or "maximize",
        score=request.score or "score",
    )


def plan_with_pilot(console: Console, code: OwnCode, request: Request, device: torch.device) -> OwnPlan:
    """Plan a search, and show that this takes an epoch's time."""
    with console.status("Training one epoch of the hand default ..."):
        return make_own_plan(code, request, device)


def default_directory(request: Request) -> Path:
    """Return a directory that is not taken, for a run of a request."""
    name = (request.train or "").rpartition(":")[2] or "own"
    return make_unused(Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}")


def _require_same_search(run_dir: Path, then: Request, now: Request) -> None:
    """Check that a directory holds a run of the same search.

    Raises:
        RunDirectoryError: It holds another.
    """
    before, after = (
        asdict(
            replace(
                one,
                address=None,
                cpus_per_trial=None,
                gpus_per_trial=None,
                memory_per_trial=None,
                track=(),
                trial_timeout=None,
                confirm=0,
            )
        )
        for one in (then, now)
    )
    if differing := [name for name in after if before[name] != after[name]]:
        raise RunDirectoryError(
            f"{run_dir} holds a run of another search: {', '.join(differing)} differ. Choose another out, or ask for "
            "the same to go on with it."
        )


def _command() -> str:
    script = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else ""
    interactive = not script.endswith(".py") or "ipykernel" in script
    return "rfsearch.search(...)" if interactive else shlex.join(["python", script, *sys.argv[1:]])
