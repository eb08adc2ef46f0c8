"""Calls of a strategy, which may be anyone's: whatever goes wrong in one is a single message that names it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rfsearch.errors import RfsearchError, StrategyError
from rfsearch.ledger.record import Cost, Record, Rung
from rfsearch.space.choice import Candidate
from rfsearch.strategies.base import Budgeted, Exhausted, Heir, Listing, Pruning, Relaying, Strategy


def made(name: str, make: Callable[[int], Any], seed: int) -> Strategy:
    """Build a strategy. Raises StrategyError where its constructor fails, or what it makes has not both methods."""
    with _blaming(name, "its constructor (space, seed)"):
        strategy = make(seed)
        if not isinstance(strategy, Strategy):
            raise StrategyError(
                f"strategy {name}: a strategy has the methods suggest(pending) and observe(record). Got "
                f"{_described(strategy)}, which has not both."
            )
    return strategy


def suggested(name: str, strategy: Strategy, pending: Sequence[Candidate]) -> Candidate | Heir | Exhausted:
    """Ask a strategy what to try next."""
    with _blaming(name, "suggest(pending)"):
        answer = strategy.suggest(pending)
        whole = isinstance(answer, Candidate | Exhausted) or (
            isinstance(answer, Heir) and isinstance(answer.candidate, Candidate) and isinstance(answer.of, str)
        )
        if not whole:
            raise StrategyError(
                f"strategy {name}: suggest(pending) returns a Candidate, an Heir or Exhausted. "
                f"Got {_described(answer)}."
            )
    return answer


def observed(name: str, strategy: Strategy, record: Record) -> None:
    """Tell a strategy of a finished trial."""
    with _blaming(name, "observe(record)"):
        strategy.observe(record)


def prunes(name: str, strategy: Strategy, candidate: Candidate, rungs: Sequence[Rung]) -> bool:
    """Ask a strategy whether a training is not worth finishing; one that does not prune never says so."""
    with _blaming(name, "prune(candidate, rungs)"):
        return isinstance(strategy, Pruning) and bool(strategy.prune(candidate, rungs))


def allotted(name: str, strategy: Strategy, room: Callable[[Cost], int]) -> None:
    """Tell a strategy that plans by its budget what there is room for."""
    with _blaming(name, "allot(room)"):
        if isinstance(strategy, Budgeted):
            strategy.allot(room)


def fewest(name: str, strategy: Strategy) -> int | None:
    """Return how many full trainings a strategy that plans by its budget needs room for; None for any other one."""
    with _blaming(name, "fewest"):
        if not isinstance(strategy, Budgeted):
            return None
        if not isinstance(strategy.fewest, int):
            raise StrategyError(
                f"strategy {name}: fewest is a number of full trainings. Got {_described(strategy.fewest)}."
            )
        return strategy.fewest


def relays(name: str, strategy: Strategy) -> bool:
    """Return whether a strategy prunes its trials for heirs to go on from there."""
    with _blaming(name, "awaited"):
        return isinstance(strategy, Relaying)


def awaited(name: str, strategy: Strategy) -> list[str]:
    """Return the trials that a strategy may yet want heirs of."""
    with _blaming(name, "awaited"):
        return list(strategy.awaited) if isinstance(strategy, Relaying) else []


def listed(name: str, strategy: Strategy) -> list[Candidate]:
    """Return the candidates that a strategy knows beforehand, none where it lists none."""
    with _blaming(name, "candidates"):
        found = list(strategy.candidates) if isinstance(strategy, Listing) else []
        if strange := [one for one in found if not isinstance(one, Candidate)]:
            raise StrategyError(f"strategy {name}: its candidates are Candidates. Got {_described(strange[0])}.")
    return found


@contextmanager
def _blaming(name: str, method: str) -> Iterator[None]:
    """Turn what a strategy's code raises into one message; the errors of this package are messages already."""
    try:
        yield
    except RfsearchError:
        raise
    except (Exception, SystemExit) as error:
        said = " ".join(str(error).split())[:500]
        raise StrategyError(
            f"strategy {name}: {method} failed with {type(error).__name__}{f': {said}' if said else ''}.{_where(error)}"
        ) from error


def _where(error: BaseException) -> str:
    """Return the place that raised an error, for who has to mend it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or trace.tb_frame.f_code.co_filename == __file__:
        return ""
    return f" Raised in {trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno}."


def _described(value: object) -> str:
    """Return a value as a message shows it."""
    shown = " ".join(repr(value).split())
    return f"{type(value).__name__} {shown[:100]}"
