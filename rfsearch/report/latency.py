"""What a report says of inference latency: how it was measured, and how the winner compares with the hand default."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from rfsearch.ledger import Record
from rfsearch.report.digest import Digest
from rfsearch.report.wording import counted, finite, multiple, number


def how_measured(told: Digest) -> str:
    """Return in words how the run's latencies were measured, and whose is missing; empty where there are none."""
    timed = [record for record in told.scored if record.infer_latency_spread_ms is not None]
    again = f"rfsearch resume {shlex.quote(str(told.run.directory))}"
    if not timed:
        if all(finite(record.infer_latency_ms) is None for record in told.scored):
            return ""
        return (
            "The latencies are those of an older version, which measured them while other trials trained: they also "
            f"tell how busy the machine was. They are measured with nothing else running by: {again}"
        )
    where = next(iter(told.run.latencies.values())).where if told.run.latencies else "an unknown device"
    said = (
        f"Latency is that of one image, measured after the search with nothing else running ({where}): the median of "
        "several passes, and from the 10th to the 90th percentile of them. Latencies that overlap are ties."
    )
    if missing := len(told.scored) - len(timed):
        said += f" Not measured: {counted(missing, 'scored trial')} of {len(told.scored):,}. Measure more by: {again}"
    return said


def winners_latency(told: Digest, winner: Record) -> Iterator[str]:
    """Say how long an image takes through the winner, and whether the hand default can be told apart from it."""
    if (ours := winner.infer_latency_spread_ms) is None:
        return
    default = next((r for r in told.defaults if r.infer_latency_spread_ms is not None), None)
    if default is None or told.is_default(winner):
        yield f"One image takes the winner {shown(winner)}."
        return
    theirs = default.infer_latency_spread_ms
    assert theirs is not None
    tied = ours[0] <= theirs[1] and theirs[0] <= ours[1]
    ratio = (winner.infer_latency_ms or 0.0) / (default.infer_latency_ms or 1.0)
    how = "a tie, since their spreads overlap" if tied else f"{multiple(ratio)} as long"
    yield f"One image takes the winner {shown(winner)}, the hand default {shown(default)}: {how}."


def shown(record: Record) -> str:
    """Return a record's latency in words, with its spread where that is known: 2.10 ms (2.05 to 2.21)."""
    median = f"{number(record.infer_latency_ms)} ms"
    if record.infer_latency_spread_ms is None:
        return median
    low, high = record.infer_latency_spread_ms
    return f"{median} ({number(low)} to {number(high)})"
