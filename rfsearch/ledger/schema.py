"""What the schema of a ledger means, and how records of an earlier one are read.

Schema 1: no `outcome`. A record had `f` and `gamma`, the numbers that its paths ended with; where training searched a
dilation, `f` and `trace` held the dilation that it started from over the one that it had found.
Schema 2: `outcome`, and `dilation` beside `f` and `gamma`: the dilation of each path that training searched one for, as
it ended; `f` is the inflation factor and nothing else. The outcome held a layer's dilation as a whole number.
Schema 3: choices of any kind, with its name; the outcome holds every number that training left, and nothing else does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from rfsearch.choices import Candidate
from rfsearch.ledger.record import Record, Rung, parsed

SCHEMA = 3

Trace = Iterable[tuple[int, str, float]]


@dataclass(frozen=True)
class Ends:
    """Hold what a record of schema 1 or 2 said of the numbers that its paths ended with, by path.

    Attributes:
        f: Inflation factors; in schema 1, what a searched dilation started from over what it became.
        gamma: Sample strides, px.
        dilation: Dilations that training found, px; schema 2.
    """

    f: Mapping[str, float] = field(default_factory=dict)
    gamma: Mapping[str, float] = field(default_factory=dict)
    dilation: Mapping[str, float] = field(default_factory=dict)


def upgraded(record: Record, schema: int, ends: Ends) -> Record:
    """Return a record of an earlier schema as today's: with all that its paths ended with in its outcome.

    Args:
        record: The record, of which the outcome of schema 1 is its candidate.
        schema: The schema that it was written in, 1 or 2.
        ends: What it said beside the outcome.
    """
    candidate = parsed(record.candidate)
    if candidate is None:
        return record
    if schema == 1:
        rungs, trace = split_looks(candidate, record.rungs, record.trace)
        starts = _starts(candidate)
        ends = replace(ends, f={path: _moved(starts, path, f) for path, f in ends.f.items()})
        record = replace(record, rungs=tuple(rungs), trace=tuple(trace))
    moved = {**ends.gamma, **ends.f, **ends.dilation}
    return replace(record, outcome=candidate.ended(moved).to_json())


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
