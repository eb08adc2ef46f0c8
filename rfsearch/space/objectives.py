"""What a search goes by: the validation score, and costs of the trained network that are to be low beside it."""

from __future__ import annotations

from collections.abc import Sequence

from rfsearch.errors import SpaceError, nearest

SCORE = "val"
LATENCY = "infer_latency_ms"
COSTS = {
    "infer_mac": "inference MAC",
    LATENCY: "inference latency",
    "infer_peak_bytes": "inference peak memory",
    "params": "number of parameters",
}
"""Fields of a record that are known when its training ends, by name."""


def check_objectives(names: Sequence[str]) -> tuple[str, ...]:
    """Return objectives, the score first.

    Raises:
        SpaceError: One is unknown or named twice, or the score is not among them.
    """
    known = (SCORE, *COSTS)
    for name in names:
        if name not in known:
            raise SpaceError(f"objectives are {', '.join(known)}. Got {name!r}.{nearest(str(name), known)}")
    if len(set(names)) < len(names) or SCORE not in names:
        got = ",".join(names)
        raise SpaceError(f"objectives are {SCORE} and costs, each named once: {SCORE},infer_mac. Got {got!r}.")
    return (SCORE, *(name for name in names if name != SCORE))
