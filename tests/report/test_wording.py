from __future__ import annotations

import pytest

from rfsearch.report.wording import byte_size, duration, finite, listing, multiple, number, percent, prefixed, score


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.012345, "0.0123"), (0.9996, "1.00"), (9.996, "10.0"), (45.0, "45.0"), (999.6, "1,000"),
     (123456, "123,000"), (-2.5, "-2.50"), (1.5e9, "1.50e+09"), (float("nan"), "–"), (None, "–")],
)  # fmt: skip
def test_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_units() -> None:
    assert prefixed(1.5e12, "FLOP") == "1.50 TFLOP"
    assert prefixed(12, "FLOP") == "12.0 FLOP"
    assert multiple(2.134) == "2.13×"
    assert byte_size(3 * 2**29) == "1.50 GiB"
    assert percent(0.0332) == "3.3 %"
    assert [duration(s) for s in (0.5, 12.34, 59.96, 312, 7500)] == [
        "0.500 s", "12.3 s", "1 min 00 s", "5 min 12 s", "2 h 05 min",
    ]  # fmt: skip
    assert (score(0.71234), score(71.234), score(None)) == ("0.712", "71.2", "–")


def test_every_unit_has_a_dash_for_what_is_missing() -> None:
    for value in (None, float("nan"), float("inf"), "text", True):
        assert finite(value) is None
        assert {f(value) for f in (number, score, multiple, percent, byte_size, duration)} == {"–"}
        assert prefixed(value, "FLOP") == "–"


def test_listing() -> None:
    assert [listing(["a"]), listing(["a", "b"]), listing(["a", "b", "c"]), listing([])] == [
        "a",
        "a and b",
        "a, b and c",
        "",
    ]
