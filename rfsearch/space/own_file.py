"""A space file for trainings of a user's own: the arguments of `rfsearch.search` as TOML."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from pydantic import Field, ValidationError

from rfsearch.direction import Direction
from rfsearch.errors import SpaceError
from rfsearch.ledger.request import Request
from rfsearch.space.faults import describe_fault
from rfsearch.space.file import read_toml
from rfsearch.space.table import Dilation, Table

USUAL_DILATIONS = (1, 2, 3, 4, 6, 8)


class OwnFile(Table):
    """Hold a whole file. What is left out is as in `rfsearch.search`.

    Args:
        train: SPEC of the function that trains a trial.
        model: SPEC of what makes the network, without arguments.
        input_shape: C x its axes: what the network is shown of one image.
        sites: Module paths or patterns.
        dilations: What a site may get, px of its map.
        strategies: Names or SPECs.
        paths: Number of parallel paths.
        budget: Of each arm.
        direction: Whether a higher or a lower score is the better one.
        score: Its name.
    """

    train: str
    model: str
    input_shape: tuple[int, ...] = Field(min_length=2)
    sites: tuple[str, ...] = ()
    dilations: tuple[Dilation, ...] = Field(default=USUAL_DILATIONS, min_length=1)
    strategies: tuple[str, ...] = ()
    paths: int | None = None
    budget: str | None = None
    direction: Direction = "maximize"
    score: str = "score"


def is_own(file: Path) -> bool:
    """Return whether a space file names a training function.

    Raises:
        SpaceError: It cannot be read.
    """
    return "train" in read_toml(file)[1]


def with_file(request: Request, file: Path) -> Request:
    """Return a request with what a file says wherever it says nothing itself.

    Raises:
        SpaceError: The file has faults, all in one message, each with its line.
    """
    text, body = read_toml(file)
    try:
        own = OwnFile.model_validate(body)
    except ValidationError as error:
        faults = "; ".join(map(partial(describe_fault, text), error.errors(include_url=False)))
        raise SpaceError(f"{file}: {faults}.") from error
    return replace(
        request,
        train=request.train or own.train,
        backbone=request.backbone or own.model,
        input_shape=request.input_shape or (1, *own.input_shape),
        sites=request.sites or own.sites,
        dilations=request.dilations or own.dilations,
        strategies=request.strategies or own.strategies,
        paths=request.paths or own.paths,
        budget=request.budget or own.budget,
        direction=own.direction if request.direction is None else request.direction,
        score=request.score or own.score,
    )
