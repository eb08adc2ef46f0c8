"""Divide what a data set has no split for, by a seeded hash of names: the same names are divided alike everywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from rfsearch.data.loading import Item


def in_hashed_order(names: Iterable[str], seed: int) -> list[str]:
    """Return names in the order of a seeded hash.

    Args:
        names: Of images, or of whatever is divided whole.
        seed: Of the hash.
    """
    return sorted(names, key=lambda name: _hash_of(name, seed))


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


def split_by_hash(items: Sequence[Item], seed: int, percent: Mapping[str, int]) -> dict[str, list[Item]]:
    """Return the items of each split, in their own order.

    An item's split follows from its name alone, so that it stays the same when others are added or taken away. The
    shares are therefore met on average only, and a split of few items may be empty.

    Args:
        items: What is split.
        seed: Of the hash.
        percent: Share of each split; together 100.

    Example:
        >>> items = [Item(f"frame{k}", ()) for k in range(1000)]
        >>> {title: len(split) for title, split in split_by_hash(items, 0, {"train": 80, "val": 20}).items()}
        {'train': 802, 'val': 198}
    """
    titles = [title for title, share in percent.items() for _ in range(share)]
    found: dict[str, list[Item]] = {title: [] for title in percent}
    for item in items:
        found[titles[int.from_bytes(_hash_of(item.name, seed)) % len(titles)]].append(item)
    return found


def _hash_of(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()
