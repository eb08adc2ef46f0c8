"""Divide what a data set has no split for, by a seeded hash of names: the same names are divided alike everywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from rfsearch.data.loading import Item


def in_hashed_order(names: Iterable[str], seed: int) -> list[str]:
    """Return names in the order of a seeded hash.

    Args:
        names: Of images, or of whatever is divided whole.
        seed: Of the hash.
    """
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())


def hold_out(items: Sequence[Item], seed: int, share: int, most: int) -> tuple[list[Item], list[Item]]:
    """Return what stays and what is held out, each in the order of the items.

    Args:
        items: At least one.
        seed: Of the hash.
        share: One in so many is held out, and at least one.
        most: No more than that.
    """
    order = in_hashed_order((item.name for item in items), seed)
    held = set(order[: min(max(len(order) // share, 1), most)])
    return [item for item in items if item.name not in held], [item for item in items if item.name in held]
