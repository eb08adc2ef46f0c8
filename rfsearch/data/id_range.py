"""Refuse labels that hold ids of no class, and say what is likely meant by all such ids of the set together.

Advice from the ids of a single label would differ from file to file, and number classes by what that label lacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from rfsearch.data.class_ids import COMMON_IGNORE
from rfsearch.data.faults import Faults
from rfsearch.data.labels import OTHER, inline_table, some

_SHOWN = 4
_WRITTEN_OUT = 24  # classes up to which a map is written out


def check_id_range(
    labels: Iterable[tuple[Path, np.ndarray]],
    num_classes: int,
    ignore_index: int | None,
    faults: Faults,
    *,
    mapped: bool,
    inferred: bool,
) -> None:
    """Add a fault for all labels that hold the same ids of no class; the first says what to do about all such ids.

    Args:
        labels: Of all splits: each file, and whether it holds each id, 256 bool.
        num_classes: The number of classes.
        ignore_index: Id that needs to be no class.
        faults: Gets the messages.
        mapped: Whether a map of ids gave these ids.
        inferred: Whether the classes were inferred from the ids of the training labels or from the map.
    """
    files_of: dict[tuple[int, ...], list[Path]] = {}
    held: set[int] = set()
    for file, ids in labels:
        present = np.flatnonzero(ids).tolist()
        held.update(present)
        if outside := tuple(k for k in present if k >= num_classes and k != ignore_index):
            files_of.setdefault(outside, []).append(file)
    advice = f". {_advice(held - {ignore_index}, num_classes, ignore_index, mapped, inferred)}" if files_of else ""
    ignored = "no ignore index is set" if ignore_index is None else f"the ignore index is {ignore_index}"
    for outside, files in files_of.items():
        more = f" (and {len(files) - 1} more)" if len(files) > 1 else ""
        ids_are = f"class id {outside[0]} is" if len(outside) == 1 else f"class ids {some(outside, _SHOWN)} are"
        faults.add(f"{files[0]}{more}: {ids_are} outside 0..{num_classes - 1}, and {ignored}{advice}")
        advice = ""


def _advice(held: set[int], num_classes: int, ignore_index: int | None, mapped: bool, inferred: bool) -> str:
    """Say what ids of no class may be, and how each of these is written in a space file."""
    outside = sorted(k for k in held if k >= num_classes)
    if ignore_index is not None and ignore_index < num_classes:
        return f"Names are in the order of the ids, from 0 on: the ignored id {ignore_index} has one too"
    # As many ids as classes, and not only a few of them are too large: ids that leave gaps, such as a mask's 0 and 255.
    if not mapped and len(held) == num_classes <= 2 * len(outside):
        ignored = [] if ignore_index is None else [f"{ignore_index} = {ignore_index}"]
        numbered = [f"{stored} = {k}" for k, stored in enumerate(sorted(held))]
        return f"To say which class each id is: [data] map = {inline_table([*numbered, *ignored])}"
    where = "in [data] of the space's file"
    ignoring = f"For an id that is no class: {_ignoring(outside, num_classes, ignore_index, mapped, where)}"
    if inferred:
        source = "those that the map gives" if mapped else "what the training labels hold"
        naming = f"For one that is a class: name all in classes.txt; 0..{num_classes - 1} are {source}"
    else:
        naming = f"For one that is a class: name it too, in the order of the ids; {num_classes} names are given"
    if mapped:
        return f"{ignoring}. {naming}"
    entries = [f"{k} = CLASS" for k in outside[:_SHOWN]] + ["..."] * (len(outside) > _SHOWN)
    form = inline_table([*_unchanged(num_classes), *entries])
    return f"{ignoring}. {naming}. For one that belongs to another class: map = {form}"


def _ignoring(outside: Sequence[int], num_classes: int, ignore_index: int | None, mapped: bool, where: str) -> str:
    """Say how ids are ignored: by the ignore index if it is free and they are one, else by a map that joins them."""
    if ignore_index is None and len(outside) == 1:
        return f"ignore_index = {outside[0]} {where}, or --set data.ignore_index={outside[0]}"
    target = COMMON_IGNORE if ignore_index is None else ignore_index
    if mapped:
        joined = f"{target} in place of it in the map {where}"
    else:
        joined = f"map = {inline_table([*_unchanged(num_classes), f'{OTHER} = {target}'])} {where}"
    return f"{joined}, with ignore_index = {target}" if ignore_index is None else joined


def _unchanged(num_classes: int) -> list[str]:
    """Write the entries of a map that leave the classes as they are."""
    entries = [f"{k} = {k}" for k in range(num_classes)]
    return entries if num_classes <= _WRITTEN_OUT else [*entries[:2], "...", entries[-1]]
