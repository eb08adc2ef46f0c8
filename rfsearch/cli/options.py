"""Options that several commands share, and those of which a request is made."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Concatenate, ParamSpec, TypeVar

import typer

from rfsearch.space import SINGLE
from rfsearch.strategies.defaults import default_strategies

if TYPE_CHECKING:
    from rfsearch.ledger import Request

P = ParamSpec("P")
T = TypeVar("T")

RunArgument = Annotated[Path, typer.Argument(help="Run directory, finished or not.")]
SpaceOption = Annotated[str, typer.Option("--space", help="Name of a space, or a space file.")]
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
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def make_request(
    space: SpaceOption,
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
    changes: SetOption = None,
) -> Request:
    """Make the request that the options of `run` and `plan` describe."""
    from rfsearch.ledger import Request

    return Request(
        space=space,
        preset=preset,
        data=data,
        backbone=backbone,
        sites=tuple(site or ()),
        strategies=tuple(name.strip() for name in strategies.split(",")) if strategies is not None else (),
        paths=paths,
        budget=budget,
        seeds=seeds,
        address=address,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        changes=tuple(changes or ()),
    )


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
