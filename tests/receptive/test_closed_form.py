"""The closed form of Wei sec. 3.3, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from rfsearch.errors import SpaceError
from rfsearch.receptive import new_receptive_field


@pytest.mark.parametrize(
    ("kernel", "init_dilation", "f", "expected"),
    [
        (3, 4, 0.73, 316),  # extent 9, 10 / 0.73 = 13.7, so k' = 14
        (3, 6, 0.76, 356),  # extent 13, 14 / 0.76 = 18.4, so k' = 19
        (4, 1, 1.0, 244),  # extent 4, k' = 5
        (4, 2, 2.0, 236),  # extent 7, k' = 4
    ],
)
def test_worked_examples(kernel: int, init_dilation: int, f: float, expected: int) -> None:
    assert new_receptive_field(kernel, init_dilation, f) == expected


def test_f_one_is_one_stride_more_than_the_plain_arithmetic() -> None:
    assert new_receptive_field(3, 5, 1.0, base=100, stride=4) == 100 + 4 * 2 * 5 + 4


def test_a_whole_quotient_is_not_rounded_up() -> None:
    """f = 4 / n, kept in single precision, gives k' = n and not n + 1."""
    for n in range(1, 100):
        for f in (4 / n, torch.tensor(4 / n, dtype=torch.float32).item()):
            assert new_receptive_field(3, 1, f, base=0, stride=1) == n - 1
    assert new_receptive_field(3, 1, 4 / 7.001, base=0, stride=1) == 7


@pytest.mark.parametrize(("kernel", "dilation", "f"), [(3, 1, 0.0), (3, 1, math.nan), (0, 1, 1.0), (3, 0, 1.0)])
def test_wrong_requests_are_refused(kernel: int, dilation: int, f: float) -> None:
    with pytest.raises(SpaceError, match="Got"):
        new_receptive_field(kernel, dilation, f)
