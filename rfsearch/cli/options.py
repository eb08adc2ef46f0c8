"""Options that several commands share, and those of which a request is made."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Concatenate, ParamSpec, TypeVar

import typer

from rfsearch.direction import Direction
from rfsearch.errors import RequestError
from rfsearch.space import SINGLE
from rfsearch.storage import run_directory
from rfsearch.strategies.defaults import default_strategies

if TYPE_CHECKING:
    from rfsearch.ledger import Request

P = ParamSpec("P")
T = TypeVar("T")

RunArgument = Annotated[
    Path, typer.Argument(help="Run directory or URI, finished or not.", parser=run_directory, metavar="RUN")
]
SpaceOption = Annotated[str | None, typer.Option("--space", help="Name of a space, or a space file.")]
PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset", help="Size of the space: mini (default), paper ..., and its form: bi, tri, lsdfn, paper-bi, ..."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a value of the space: KEY=VALUE, such as recipe.steps=600 (repeat)."),
]
DataOption = Annotated[str | None, typer.Option("--data", help="Folder of images. Default: the space's embedded set.")]
BackboneOption = Annotated[
    str | None,
    typer.Option("--backbone", help="Network: a name, package.module:callable or path/to/file.py:callable."),
]
SiteOption = Annotated[
    list[str] | None,
    typer.Option(
        "--site",
        help="Module path or pattern of a convolution to search (repeat). Default: the space's, or proposed ones in a "
        "network that has none of these.",
    ),
]
StrategiesOption = Annotated[
    str | None,
    typer.Option(
        "--strategies",
        help="Comma-separated names, package.module:Class or path/to/file.py:Class; each may name a form: "
        f"inflation@bi, exhaustive@lsdfn. Default: {','.join(default_strategies(SINGLE))}.",
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
MemoryOption = Annotated[
    str | None,
    typer.Option(
        "--memory-per-trial",
        help="Memory that is set aside for a trial, as 8g (also k, m, t): so many trials run at a time as "
        "fit in. Default: it is not looked at.",
    ),
]
TimeoutOption = Annotated[
    str | None,
    typer.Option(
        "--trial-timeout",
        help="How long a trial may go without a validation, as 30min (also s, h), before it is taken for one that "
        "hangs. Default: 20 times its forecast, at least 10 minutes.",
    ),
]
ConfirmOption = Annotated[
    int,
    typer.Option(
        "--confirm",
        help="Once all arms have ended, train so many of the best outcomes, and the hand default, again from scratch "
        "with four fresh seeds each. It belongs to no arm.",
    ),
]
ObjectivesOption = Annotated[
    str | None,
    typer.Option(
        "--objectives",
        help="What the search goes by: val (default), or val,infer_mac (also infer_latency_ms, infer_peak_bytes, "
        "params): then fixed choices of every kind are tried, and optuna looks for the whole front.",
    ),
]
ReplayOption = Annotated[
    bool,
    typer.Option("--replay", help="Train nothing: look trainings up in those that are shipped with the space."),
]
ReplayOfOption = Annotated[
    str | None,
    typer.Option(
        "--replay-of",
        help="Train nothing: look trainings up in those of an earlier run; without --space, in its space, with its "
        "data and changes.",
    ),
]
ProcessesOption = Annotated[
    int,
    typer.Option(
        "--processes-per-trial",
        help="With --train: processes that train a trial together, as under torchrun, each with a GPU where there are "
        "any.",
    ),
]
TrainOption = Annotated[
    str | None,
    typer.Option("--train", help="Your own training: path/to/file.py:function or package.module:function."),
]
DilationsOption = Annotated[
    str | None, typer.Option("--dilations", help="With --train: what a site may get. Default: 1,2,3,4,6,8.")
]
InputOption = Annotated[
    str | None, typer.Option("--input", help="With --train: what the network is shown of one image, as 3x512x512.")
]
DirectionOption = Annotated[
    str | None, typer.Option("--direction", help="With --train: maximize (default) or minimize the score.")
]
ScoreOption = Annotated[str | None, typer.Option("--score", help="With --train: name of the score, for the report.")]
TrackOption = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        help="Tracker that follows the run: tensorboard, mlflow, wandb, or your own: path/to/file.py:Class (repeat).",
    ),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust", help="Run the code that the directory of a run names, not installed, though it was not begun here."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def make_request(
    space: SpaceOption = None,
    preset: PresetOption = None,
    data: DataOption = None,
    backbone: BackboneOption = None,
    site: SiteOption = None,
    strategies: StrategiesOption = None,
    paths: PathsOption = None,
    budget: BudgetOption = None,
    seeds: SeedsOption = 1,
    address: AddressOption = None,
    cpus_per_trial: CpusOption = None,
    gpus_per_trial: GpusOption = None,
    memory_per_trial: MemoryOption = None,
    trial_timeout: TimeoutOption = None,
    processes_per_trial: ProcessesOption = 1,
    confirm: ConfirmOption = 0,
    objectives: ObjectivesOption = None,
    replay: ReplayOption = False,
    replay_of: ReplayOfOption = None,
    changes: SetOption = None,
    train: TrainOption = None,
    dilations: DilationsOption = None,
    input_shape: InputOption = None,
    direction: DirectionOption = None,
    score: ScoreOption = None,
    track: TrackOption = None,
) -> Request:
    """Make the request that the options of `run` and `plan` describe.

    Raises:
        RequestError: Neither a space nor a training function is named, or an option goes with the other.
    """
    from rfsearch.ledger import Request
    from rfsearch.ledger.request import EMBEDDED
    from rfsearch.observers import check_tracks
    from rfsearch.plugins import space_file
    from rfsearch.sources import absolute
    from rfsearch.space.objectives import check_objectives
    from rfsearch.space.own_file import is_own, with_file

    check_tracks(track or ())
    replayed = run_directory(replay_of).resolve() if replay_of is not None else None
    request = Request(
        space=space or "",
        preset=preset,
        data=data,
        backbone=backbone,
        sites=tuple(site or ()),
        strategies=_names(strategies),
        paths=paths,
        budget=budget,
        seeds=seeds,
        address=address,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        memory_per_trial=memory_per_trial,
        changes=tuple(changes or ()),
        train=train,
        dilations=_numbers("--dilations", dilations, ",") if dilations else (),
        input_shape=(1, *_numbers("--input", input_shape, "x")) if input_shape else (),
        direction=_direction(direction),
        score=score,
        track=tuple(map(absolute, track or ())),
        trial_timeout=trial_timeout,
        processes_per_trial=processes_per_trial,
        confirm=confirm,
        objectives=check_objectives([name.strip() for name in objectives.split(",")]) if objectives else (),
        replay=str(replayed) if replayed else EMBEDDED if replay else None,
    )
    if replayed and not space and train is None:
        request = _like(request, replayed)
        space = request.space
    own: dict[str, object] = {"--train": train, "--dilations": dilations, "--input": input_shape}
    own |= {"--direction": direction, "--score": score}
    own |= {"--processes-per-trial": None if processes_per_trial == 1 else processes_per_trial}
    if space and is_own(file := space_file(space)):
        return _require_nothing_else(with_file(request, file))
    if train is not None:
        if space:
            raise RequestError("--train names your own training, and --space a built-in one. Give one of them.")
        return _require_nothing_else(request)
    if not space:
        raise RequestError("name a space with --space, or your own training with --train. See: rfsearch list.")
    if given := [option for option, value in own.items() if value is not None]:
        raise RequestError(f"{given[0]} goes with --train. In a space, use --set, such as --set dilations=[1,2,4].")
    return request


def _like(request: Request, run_dir: Path) -> Request:
    """Return a request in the space of an earlier run, where it says nothing else of that."""
    from rfsearch.ledger.manifest import read_manifest
    from rfsearch.ledger.typed_json import sound

    before = sound(read_manifest(run_dir).request)
    if not before.space:
        raise RequestError(
            f"{run_dir}: its trainings are of a loop of its user's own; those of a space can be replayed."
        )
    return replace(
        request,
        space=before.space,
        preset=request.preset or before.preset,
        data=request.data or before.data,
        backbone=request.backbone or before.backbone,
        sites=request.sites or before.sites,
        paths=request.paths or before.paths,
        budget=request.budget or before.budget,
        changes=(*before.changes, *request.changes),
    )


def _names(strategies: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in strategies.split(",")) if strategies is not None else ()


def _require_nothing_else(request: Request) -> Request:
    """Check that nothing is asked of a user's own training that only built-in ones have."""
    built_in = {"--data": request.data, "--preset": request.preset, "--set": request.changes or None}
    built_in |= {"--replay": request.replay}
    if given := [option for option, value in built_in.items() if value is not None]:
        raise RequestError(f"{given[0]} goes with built-in trainings. Your own function reads its data as it likes.")
    if request.backbone is None:
        raise RequestError("--train needs the network too: --backbone path/to/file.py:callable, without arguments.")
    if not request.input_shape:
        raise RequestError("--train needs what the network is shown of one image: --input 3x512x512.")
    return request


def _direction(text: str | None) -> Direction | None:
    match text:
        case None | "maximize" | "minimize":
            return text
    raise RequestError(f"--direction is maximize or minimize. Got {text!r}.")


def _numbers(option: str, text: str, between: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.lower().split(between)]
    if not all(part.isdecimal() for part in parts):
        example = "1,2,3,4,6,8" if between == "," else "3x512x512"
        raise RequestError(f"{option} is whole numbers, such as {example}. Got {text!r}.")
    return tuple(map(int, parts))


def with_options_of(
    make: Callable[..., T],
) -> Callable[[Callable[Concatenate[T, P], None]], Callable[..., None]]:
    """Give a command the options of a function, and what the function makes of them as its first argument.

    Args:
        make: The function; its parameters are options.

    Returns:
        A decorator of functions whose other parameters are options of the command's own, each with a default.
    """
    shared = inspect.signature(make, eval_str=True, locals={"Request": object}).parameters

    def decorate(command: Callable[Concatenate[T, P], None]) -> Callable[..., None]:
        own = list(inspect.signature(command, eval_str=True, locals={"Request": object}).parameters.values())[1:]
        act: Callable[..., None] = command

        @wraps(command)
        def called(**given: object) -> None:
            made = make(**{name: given.pop(name) for name in shared})
            act(made, **given)

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*shared.values(), *own)]
        called.__dict__["__signature__"] = inspect.Signature(parameters)
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return called

    return decorate
