"""What the schema of a ledger means, and how records of an earlier one are read.

Schema 1: no `outcome`. A record had `f` and `gamma`, the numbers that its paths ended with; where training searched a
dilation, `f` and `trace` held the dilation that it started from over the one that it had found.
Schema 2: `outcome`, from which these numbers follow; `f` is the inflation factor and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from rfsearch.choices import Candidate
from rfsearch.ledger.record import Record, Rung, parsed

SCHEMA = 2

Trace = Iterable[tuple[int, str, float]]


@dataclass(frozen=True)
class Ends:
    """What a record of schema 1 said of the numbers that its paths ended with, by path."""

    f: Mapping[str, float] = field(default_factory=dict)
    gamma: Mapping[str, float] = field(default_factory=dict)


def upgraded(record: Record, ends: Ends) -> Record:
    """Return a record of schema 1 as today's: with its outcome, and without dilations among its factors."""
    candidate = parsed(record.candidate)
    if candidate is None:
        return record
    starts = _starts(candidate)
    moved = {**ends.gamma, **{path: _moved(starts, path, f) for path, f in ends.f.items()}}
    rungs, trace = split_looks(candidate, record.rungs, record.trace)
    return replace(record, outcome=candidate.ended(moved).to_json(), rungs=tuple(rungs), trace=tuple(trace))


def split_looks(
    candidate: Candidate, rungs: Iterable[Rung], trace: Trace
) -> tuple[list[Rung], list[tuple[int, str, float]]]:
    """Return the rungs and the trace of a training of schema 1 as today's."""
    starts = _starts(candidate)
    factors = [replace(rung, f={path: f for path, f in rung.f.items() if path not in starts}) for rung in rungs]
    return factors, [(step, path, _moved(starts, path, f)) for step, path, f in trace]


def _starts(candidate: Candidate) -> Mapping[str, float]:
    """Return the dilation, px, that each path was started from whose dilation training searched."""
    numbers = {name: path.choice.numbers for name, path in candidate if path.choice.moves == "dilation"}
    return {name: found["dilation"] for name, found in numbers.items()}


def _moved(starts: Mapping[str, float], path: str, f: float) -> float:
    """Return the number that training moved."""
    return starts[path] / f if path in starts and f else f
