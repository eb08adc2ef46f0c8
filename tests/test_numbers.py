"""How numbers read: one form each, in the terminal, in messages and on the page."""

from __future__ import annotations

import pytest

from rfsearch.numbers import byte_size, duration, field_px, finite, multiple, number, percent, prefixed, score, signed


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


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0 bytes"), (1000, "1,000 bytes"), (1024, "1.00 KiB"), (1_234_567, "1.18 MiB"), (2.5e15, "2,270 TiB")],
)
def test_a_size_has_three_digits_and_a_binary_unit(value: float, shown: str) -> None:
    assert byte_size(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.5, "0.500 s"), (99, "1 min 39 s"), (101, "1 min 41 s"), (120, "2 min 00 s"), (7200, "2 h 00 min")],
)
def test_a_duration_has_units_to_its_size(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_a_difference_has_its_sign() -> None:
    assert [signed(x) for x in (0.0123, -0.003, 0, None)] == ["+0.012", "-0.0030", "0", "–"]


def test_receptive_fields_of_parallel_paths_share_a_text() -> None:
    assert (field_px(1263), field_px(1263, {"a/1": 91, "a/2": 1263})) == ("1,263", "1,263 (91 | 1,263)")
