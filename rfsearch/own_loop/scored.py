"""What a user's training function says of its network."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np
import torch

from rfsearch.errors import RequestError


@dataclass
class Scored:
    """Hold what a training function has said of its network.

    Attributes:
        val: The score that the search goes by.
        test: Likewise on images that nothing is chosen on.
        all: Other scores, by name.
    """

    val: float
    test: float | None = None
    all: Mapping[str, float] = field(default_factory=dict)


def checked_scores(val: object, test: object, scores: Mapping[str, object]) -> Scored:
    """Return what a training function has said, checked. A score that is not finite is no score, `val` aside.

    Raises:
        RequestError: A score is not one number.
    """
    measured = None if test is None else _number("test", test)
    others = {name: _number(name, value) for name, value in scores.items()}
    return Scored(
        _number("val", val),
        measured if measured is not None and math.isfinite(measured) else None,
        {name: value for name, value in others.items() if math.isfinite(value)},
    )


def _number(name: str, value: object) -> float:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    if not isinstance(value, numbers.Real | np.generic):
        _refuse(name, value)
    return float(value)


def _refuse(name: str, value: object) -> NoReturn:
    raise RequestError(f"a score is one number. Got {name} = {value!r}.")
