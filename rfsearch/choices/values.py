"""Checks of the values that a choice is made of, NumPy's among them."""

from __future__ import annotations

import math
import numbers
from typing import TypeGuard

from rfsearch.errors import SpaceError


def fix(choice: object, **values: object) -> None:
    """Set fields of a frozen object that is being made."""
    for name, value in values.items():
        object.__setattr__(choice, name, value)


def whole(value: object, what: str) -> int:
    """Return a whole number as int.

    Args:
        value: The number.
        what: What it is, for the message: "a dilation".

    Raises:
        SpaceError: It is none.
    """
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    near = f" Nearest: {round(value)}." if isinstance(value, float) and math.isfinite(value) else ""
    raise SpaceError(f"{what} is an integer. Got {value!r}.{near}")


def real(value: object, what: str) -> float:
    """Return a real number as float.

    Args:
        value: The number.
        what: What it is, for the message: "an inflation factor".

    Raises:
        SpaceError: It is none.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    raise SpaceError(f"{what} is a number. Got {value!r}.")


def dilation(value: object) -> int:
    """Return a whole dilation as int. Raises SpaceError for what is none, or below 1."""
    found = whole(value, "a dilation")
    if found < 1:
        raise SpaceError(f"a dilation is an integer of at least 1. Got {found}.")
    return found


def names(labels: object) -> tuple[str, ...]:
    """Return the names of classes as a tuple. Raises SpaceError for anything but a list of texts."""
    if isinstance(labels, list | tuple) and all(isinstance(label, str) for label in labels):
        return tuple(labels)
    raise SpaceError(f"labels are the names of classes, a list of texts. Got {labels!r}.")


def is_end(value: float | None) -> TypeGuard[float]:
    """Return whether training left a number that a choice can hold: a value that diverged is none."""
    return value is not None and 0 < value < math.inf


def clamped(value: float, bounds: tuple[float, float]) -> float:
    """Return the value within bounds that is nearest to one."""
    return min(max(value, bounds[0]), bounds[1])
