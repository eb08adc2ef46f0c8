"""A guard around a strategy, which may be a user's: whatever goes wrong in one is a single message that names it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

from rfsearch.choices import Candidate
from rfsearch.errors import RfsearchError, StrategyError
from rfsearch.ledger.record import Cost, Record, Rung
from rfsearch.strategies.base import (
    Budgeted,
    Describing,
    Description,
    Exhausted,
    Heir,
    Pruning,
    Relaying,
    Strategy,
)


class Guarded:
    """Ask a strategy what it can be asked, and answer for what it cannot.

    Every method raises StrategyError where the strategy's own code raises, or returns something else than it must.

    Args:
        name: Name of the strategy, for messages.
        strategy: The strategy.
    """

    def __init__(self, name: str, strategy: object) -> None:
        """Find out which optional methods the strategy has."""
        if not isinstance(strategy, Strategy):
            raise StrategyError(
                f"strategy {name}: a strategy has the methods suggest(pending) and observe(record). Got "
                f"{_shown(strategy)}, which has not both."
            )
        self.name = name
        self._strategy = strategy
        self._describing = strategy if isinstance(strategy, Describing) else None
        self._pruning = strategy if isinstance(strategy, Pruning) else None
        self._budgeted = strategy if isinstance(strategy, Budgeted) else None
        with _blaming(self.name, "awaited"):  # looking for a property computes it
            self._relaying = strategy if isinstance(strategy, Relaying) else None

    @classmethod
    def built(cls, name: str, build: Callable[[], object]) -> Guarded:
        """Build a strategy and guard it."""
        with _blaming(name, "its constructor (space, seed)"):
            strategy = build()
        return cls(name, strategy)

    def suggest(self, pending: Sequence[Candidate]) -> Candidate | Heir | Exhausted:
        """Return what to try next; see `Strategy.suggest`."""
        with _blaming(self.name, "suggest(pending)"):
            answer = self._strategy.suggest(pending)
            whole = isinstance(answer, Candidate | Exhausted) or (
                isinstance(answer, Heir) and isinstance(answer.candidate, Candidate) and isinstance(answer.of, str)
            )
            if not whole:
                raise StrategyError(
                    f"strategy {self.name}: suggest(pending) returns a Candidate, an Heir or Exhausted. "
                    f"Got {_shown(answer)}."
                )
        return answer

    def observe(self, record: Record) -> None:
        """Report a finished trial to the strategy."""
        with _blaming(self.name, "observe(record)"):
            self._strategy.observe(record)

    def describe(self) -> Description:
        """Return what the strategy says of itself, or else a description by its first suggestion."""
        if self._describing is None:
            first = self.suggest([])
            return Description((first,) if isinstance(first, Candidate) else ())
        with _blaming(self.name, "describe()"):
            described = self._describing.describe()
            if not isinstance(described, Description):
                raise StrategyError(f"strategy {self.name}: describe() returns a Description. Got {_shown(described)}.")
            if strange := [one for one in described.candidates if not isinstance(one, Candidate)]:
                raise StrategyError(f"strategy {self.name}: its candidates are Candidates. Got {_shown(strange[0])}.")
            if not isinstance(described.fewest, int):
                raise StrategyError(
                    f"strategy {self.name}: fewest is a number of full trainings. Got {_shown(described.fewest)}."
                )
        return described

    def prunes(self, candidate: Candidate, rungs: Sequence[Rung]) -> bool:
        """Return whether a training is not worth finishing; a strategy that does not prune never says so."""
        with _blaming(self.name, "prune(candidate, rungs)"):
            return self._pruning is not None and bool(self._pruning.prune(candidate, rungs))

    def allot(self, room: Callable[[Cost], int]) -> None:
        """Tell a strategy that plans by its budget what there is room for; see `Budgeted.allot`."""
        with _blaming(self.name, "allot(room)"):
            if self._budgeted is not None:
                self._budgeted.allot(room)

    @property
    def relays(self) -> bool:
        """Whether every trial is pruned at its next rung, for heirs to go on from there."""
        return self._relaying is not None

    @property
    def awaited(self) -> Collection[str]:
        """Names of the trials that may yet have heirs."""
        with _blaming(self.name, "awaited"):
            return list(self._relaying.awaited) if self._relaying is not None else []


@contextmanager
def _blaming(name: str, method: str) -> Iterator[None]:
    """Turn what a strategy's code raises into one message; errors of this package are messages already."""
    try:
        yield
    except RfsearchError:
        raise
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())[:500]
        raise StrategyError(
            f"strategy {name}: {method} failed with {type(error).__name__}{f': {text}' if text else ''}."
            f"{_raised_in(error)}"
        ) from error


def _raised_in(error: BaseException) -> str:
    """Return the place that raised an error, as a sentence for whoever has to fix it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or trace.tb_frame.f_code.co_filename == __file__:
        return ""
    return f" Raised in {trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno}."


def _shown(value: object) -> str:
    """Return a value as a message shows it."""
    text = " ".join(repr(value).split())
    return f"{type(value).__name__} {text[:100]}"
