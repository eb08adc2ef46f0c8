"""What a request means, and what is wrong with it as far as that can be told without looking at its data."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from rfsearch import plugins
from rfsearch.data.faults import require_folder
from rfsearch.errors import BudgetError, SpaceError
from rfsearch.ledger import Budget, Request
from rfsearch.planning.entrants import FORM_MARK, Entrant, find_entrants, split_strategy
from rfsearch.sources import absolute
from rfsearch.space import Space, read_space
from rfsearch.space.objectives import check_objectives
from rfsearch.storage import uri_of

_MEMORY = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*([kmgt])(?:i?b)?\s*", re.IGNORECASE)
_EACH = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
SEEDS_MOST = 1000
CONFIRMED_MOST = 100


@dataclass(frozen=True)
class CheckedRequest:
    """Hold a request whose space, strategies and options are known to be sound. Its data has not been read.

    Attributes:
        request: The request, strategies in files by their absolute paths.
        space: The space that it means.
        entrants: The strategies that it means.
    """

    request: Request
    space: Space
    entrants: tuple[Entrant, ...]


def resolve_space(request: Request) -> Space:
    """Return the space that a request means, its overrides in place.

    Raises:
        SpaceError: There is no such space, or an override does not fit it.
    """
    space = read_space(plugins.space_file(request.space), request.preset, request.changes)
    named, of_zoo = plugins.split_weights(request.backbone or space.backbone)
    backbone = absolute(named)  # workers and resumed runs have other working directories
    # A preset's trained weights belong to its own backbone, those of the request to whatever it names.
    asked = any(change.partition("=")[0].strip() == "weights" for change in request.changes)
    weights = "none" if backbone != absolute(space.backbone) and not asked else space.weights
    weights = of_zoo or weights
    if weights not in ("none", "hub", of_zoo):
        weights = str(Path(weights).expanduser().resolve())
    space = space.with_(backbone=backbone, weights=weights, sites=request.sites or None, budget=request.budget)
    if request.objectives:
        space = space.with_(objectives=check_objectives(request.objectives))
    return space if request.paths is None else space.with_path_count(request.paths)


def check_request(request: Request) -> CheckedRequest:
    """Check everything in a request that can be checked without its data.

    Raises:
        RequestError: Something in it is wrong.
    """
    space = resolve_space(request)
    if request.data is not None and uri_of(request.data) is None:
        require_folder(Path(request.data))
    check_request_in_general(request)
    entrants = find_entrants(request, space)
    plugins.backbone(space.backbone)
    Budget.parse(space.budget, reference_flop=1.0)
    return CheckedRequest(replace(request, strategies=named_anywhere(request)), space, entrants)


def named_anywhere(request: Request) -> tuple[str, ...]:
    """Return a request's strategies by names that mean the same in every working directory."""
    return tuple(FORM_MARK.join(filter(None, split_strategy(named))) for named in request.strategies)


def check_request_in_general(request: Request) -> None:
    """Check what is alike for every kind of run.

    Raises:
        SpaceError: An amount is none.
    """
    if not isinstance(request.seeds, int) or not 1 <= request.seeds <= SEEDS_MOST:
        raise SpaceError(
            f"--seeds is the number of seeds per strategy, at least 1 and at most {SEEDS_MOST}. Got {request.seeds}."
        )
    _check_amount("--cpus-per-trial", request.cpus_per_trial)
    if request.gpus_per_trial != 0:
        _check_amount("--gpus-per-trial", request.gpus_per_trial)
    if not isinstance(request.confirm, int) or not 0 <= request.confirm <= CONFIRMED_MOST:
        raise SpaceError(
            f"--confirm is the number of outcomes to train again, at most {CONFIRMED_MOST}. Got {request.confirm!r}."
        )
    if request.confirm and request.replay is not None:
        raise SpaceError("--confirm trains with seeds that chose nothing, and a replay trains nothing. Leave one out.")
    _check_processes(request)
    timeout_s(request)
    memory_bytes(request)


def timeout_s(request: Request) -> float | None:
    """Return the seconds that a trial may go without a validation, None where that follows from its forecast.

    Raises:
        SpaceError: It is no time.
    """
    text = request.trial_timeout
    if text is None:
        return None
    try:
        asked = Budget.parse(text, reference_flop=1.0)
    except BudgetError:
        asked = None
    if asked is None or asked.currency != "device_s":
        raise SpaceError(f"--trial-timeout is a time, as 30min (also s, h). Got {text!r}.")
    return asked.limit


def memory_bytes(request: Request) -> float:
    """Return the memory that is set aside for a trial, bytes; 0 where none is.

    Raises:
        SpaceError: It is no amount of memory.
    """
    text = request.memory_per_trial
    if text is None:
        return 0.0
    match = _MEMORY.fullmatch(str(text))
    amount = float(match[1]) * _EACH[match[2].lower()] if match else 0.0
    if not 1 <= amount < math.inf:
        raise SpaceError(f"--memory-per-trial is a number and a unit, as 8g (also k, m, t). Got {text!r}.")
    return float(round(amount))


def _check_amount(option: str, amount: float | None) -> None:
    """Raise SpaceError for an amount of cores or GPUs that a trial cannot have."""
    if amount is None:
        return
    if not 0 < amount < math.inf:
        raise SpaceError(f"{option} is a positive number. Got {amount:g}.")
    if amount > 1 and amount != int(amount):
        raise SpaceError(f"{option} is a whole number, or a share below 1. Got {amount:g}. Nearest: {int(amount)}.")


def _check_processes(request: Request) -> None:
    """Raise SpaceError where a trial's processes and what they get do not go together."""
    processes, gpus = request.processes_per_trial, request.gpus_per_trial
    if not isinstance(processes, int) or processes < 1:
        raise SpaceError(f"--processes-per-trial is a whole number, at least 1. Got {processes!r}.")
    if processes == 1:
        return
    from torch import distributed  # slow to import, and few requests need it

    if request.train is None and request.space:
        raise SpaceError("--processes-per-trial goes with --train: built-in trainings have one process.")
    if sys.platform == "win32" or not distributed.is_available():
        raise SpaceError("--processes-per-trial needs torch.distributed, which this torch is without, and no Windows.")
    if gpus not in (None, 0, processes):
        raise SpaceError(
            f"each of {processes} processes has a GPU of its own, or none. Got {gpus:g} with --gpus-per-trial. "
            f"Nearest: {processes}."
        )
