"""Inference latency in words: how it was measured, and how long it takes."""

from __future__ import annotations

from rfsearch.ledger import Record
from rfsearch.numbers import counted, finite, number
from rfsearch.report.provenance import resume_command
from rfsearch.report.view import RunView
from rfsearch.space.objectives import LATENCY


def how_measured(view: RunView) -> str:
    """Return in words how the run's latencies were measured, and whose is missing; empty where there are none."""
    timed = [record for record in view.scored if record.infer_latency_spread_ms is not None]
    command = resume_command(view.run)
    if not timed:
        if all(finite(record.infer_latency_ms) is None for record in view.scored):
            return ""
        if LATENCY in view.facts.costs:
            return (
                "The latencies are those that the search went by, which each trial measured at its end while others "
                f"trained. Once nothing trains, they are measured anew, also by: {command}"
            )
        return (
            "The latencies are those of an older version, which measured them while other trials trained: they also "
            f"tell how busy the machine was. They are measured anew, when nothing trains, by: {command}"
        )
    where = next(iter(view.run.latencies.values())).where if view.run.latencies else "an unknown device"
    text = (
        f"Latency is that of one image, measured after the search, when nothing else of it runs ({where}): the median "
        "of several passes, and from the 10th to the 90th percentile of them. Latencies that overlap are ties."
    )
    if missing := len(view.scored) - len(timed):
        text += f" Not measured: {counted(missing, 'scored trial')} of {len(view.scored):,}. Measure more by: {command}"
    return text


def latency_words(record: Record) -> str:
    """Return a record's latency in words, with its spread where that is known: 2.10 ms (2.05 to 2.21)."""
    median = f"{number(record.infer_latency_ms)} ms"
    if record.infer_latency_spread_ms is None:
        return median
    low, high = record.infer_latency_spread_ms
    return f"{median} ({number(low)} to {number(high)})"
