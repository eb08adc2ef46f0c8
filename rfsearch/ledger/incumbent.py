"""Who wins: the one rule by which a trial leads its arm and the run."""

from __future__ import annotations

from collections.abc import Iterable

from rfsearch.ledger.record import Record


def incumbent(records: Iterable[Record | None]) -> Record | None:
    """Choose the trial that a search would answer with.

    It is the scored one with the highest validation score. Of equals the first one stays, so the order matters: give
    records in the order in which they came in.

    Args:
        records: Candidates for the lead; None stands for a lead that nobody holds yet.

    Returns:
        The incumbent, or None where no trial was scored.
    """
    best: Record | None = None
    best_val = float("-inf")
    for record in records:
        if record is not None and record.scored and record.val is not None and record.val > best_val:
            best, best_val = record, record.val
    return best


def leaders(records: Iterable[Record]) -> dict[tuple[str, int], Record]:
    """Choose the incumbent of each arm.

    Args:
        records: A run's records in the order in which they came in.

    Returns:
        Incumbents by strategy and seed, without the arms that have none.
    """
    best: dict[tuple[str, int], Record] = {}
    for record in records:
        arm = record.strategy, record.seed
        if (leader := incumbent((best.get(arm), record))) is not None:
            best[arm] = leader
    return best
