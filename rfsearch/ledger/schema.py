"""What the schema of a ledger means, and how records of an earlier one are read.

Schema 1: no `outcome` and no `dilation`; where training searched a dilation, `f` and `trace` held the dilation that it
started from over the one that it had found. Schema 2: `outcome`; `f` is the inflation factor and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from rfsearch.ledger.record import Record, Rung, parsed
from rfsearch.space.choice import Candidate

SCHEMA = 2

Trace = Iterable[tuple[int, str, float]]


def upgraded(record: Record) -> Record:
    """Return a record of schema 1 as today's: `f` taken apart, and the outcome worked out from it."""
    candidate = parsed(record.candidate)
    if candidate is None:
        return record
    starts = _starts(candidate)
    dilation = {path: starts[path] / f for path, f in record.f.items() if path in starts and f}
    f = _factors(record.f, starts)
    rungs, trace = split_looks(candidate, record.rungs, record.trace)
    outcome = candidate.ended(dilation, f, record.gamma).to_json()
    return replace(record, outcome=outcome, f=f, dilation=dilation, rungs=tuple(rungs), trace=tuple(trace))


def split_looks(
    candidate: Candidate, rungs: Iterable[Rung], trace: Trace
) -> tuple[list[Rung], list[tuple[int, str, float]]]:
    """Return the rungs and the trace of a training of schema 1 as today's."""
    starts = _starts(candidate)
    moved = [(step, path, starts[path] / f if path in starts and f else f) for step, path, f in trace]
    return [replace(rung, f=_factors(rung.f, starts)) for rung in rungs], moved


def _starts(candidate: Candidate) -> Mapping[str, int]:
    """Return the dilation that each path was started from whose dilation training searched."""
    return {path: choice.dilation for path, choice in candidate if choice.searched}


def _factors(mixed: Mapping[str, float], starts: Mapping[str, int]) -> Mapping[str, float]:
    return {path: f for path, f in mixed.items() if path not in starts}
