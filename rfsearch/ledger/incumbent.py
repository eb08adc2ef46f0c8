"""Who wins: the one rule by which a trial leads its arm and the run."""

from __future__ import annotations

from collections.abc import Iterable

from rfsearch.direction import Direction, merit
from rfsearch.ledger.record import Record


def incumbent(records: Iterable[Record | None], direction: Direction) -> Record | None:
    """Choose the trial that a search would answer with.

    It is the scored one with the best validation score. Of equals the first one stays, so the order matters: give
    records in the order in which they came in.

    Args:
        records: Candidates for the lead; None stands for a lead that nobody holds yet.
        direction: Whether a higher or a lower score is the better one.

    Returns:
        The incumbent, or None where no trial was scored.
    """
    best: Record | None = None
    highest = float("-inf")
    for record in records:
        if record is None or not record.scored or record.val is None:
            continue
        if (reached := merit(record.val, direction)) > highest:
            best, highest = record, reached
    return best


def leaders(records: Iterable[Record], direction: Direction) -> dict[tuple[str, int], Record]:
    """Choose the incumbent of each arm.

    Args:
        records: A run's records in the order in which they came in.
        direction: Whether a higher or a lower score is the better one.

    Returns:
        Incumbents by strategy and seed, without the arms that have none.
    """
    best: dict[tuple[str, int], Record] = {}
    for record in records:
        arm = record.strategy, record.seed
        if (leader := incumbent((best.get(arm), record), direction)) is not None:
            best[arm] = leader
    return best
