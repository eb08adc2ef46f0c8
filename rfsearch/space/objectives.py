"""What a search goes by: the validation score, and costs of the trained network that are to be low beside it."""

from __future__ import annotations

from collections.abc import Sequence

from rfsearch.errors import SpaceError, nearest

SCORE = "val"
COSTS = {
    "infer_mac": "inference MAC",
    "infer_peak_bytes": "inference peak memory",
    "params": "number of parameters",
}
"""Fields of a record that are known when its training ends, by name."""
_TIMED = "infer_latency_ms"


def check_objectives(names: Sequence[str]) -> tuple[str, ...]:
    """Return objectives, the score first.

    Raises:
        SpaceError: One is unknown or named twice, or the score is not among them.
    """
    known = (SCORE, *COSTS)
    if _TIMED in names:
        raise SpaceError(
            f"{_TIMED} is measured once nothing trains any more, so no search can go by it; the report draws the front "
            "of it. Nearest: infer_mac."
        )
    for name in names:
        if name not in known:
            raise SpaceError(f"objectives are {', '.join(known)}. Got {name!r}.{nearest(str(name), known)}")
    if len(set(names)) < len(names) or SCORE not in names:
        got = ",".join(names)
        raise SpaceError(f"objectives are {SCORE} and costs, each named once: {SCORE},infer_mac. Got {got!r}.")
    return (SCORE, *(name for name in names if name != SCORE))
