"""How numbers read, in the terminal, in messages and on the page alike. What is missing or not finite reads as a dash.

A number has three significant digits unless it says otherwise, a duration the two largest units that fit it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

MISSING = "–"


def finite(value: object) -> float | None:
    """Return a number as float; None for anything that is missing, infinite, not a number, or no number at all."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def number(value: object, digits: int = 3) -> str:
    """Format a number to so many significant digits: 0.0012, 1,230, 1.23e+07 from a million on."""
    x = finite(value)
    if x is None:
        return MISSING
    if x == 0:
        return "0"
    exponent = math.floor(math.log10(abs(float(f"{x:.{digits - 1}e}"))))
    if exponent >= 6 or exponent < -6:
        return f"{x:.{digits - 1}e}"
    x = round(x, digits - 1 - exponent)
    return f"{x:,.{max(0, digits - 1 - exponent)}f}"


def plain(value: float) -> str:
    """Format a dilation or factor without trailing zeros: 4, 0.73."""
    return f"{value:.3g}"


def score(value: object) -> str:
    """Format a score: three decimals on a scale of 0 to 1, three digits on a larger one."""
    x = finite(value)
    if x is None:
        return MISSING
    return f"{x:.3f}" if abs(x) < 10 else number(x)


def multiple(value: object) -> str:
    """Format a multiple of one reference training: 2.13×."""
    return MISSING if finite(value) is None else f"{number(value)}×"


def signed(value: object, digits: int = 2) -> str:
    """Format a difference with its sign: +0.012, -0.0030, 0."""
    x = finite(value)
    return MISSING if x is None else ("+" if x > 0 else "") + number(x, digits)


def percent(value: object, digits: int = 2) -> str:
    """Format a share of 1 as per cent: 33 %."""
    x = finite(value)
    return MISSING if x is None else f"{number(100 * x, digits)} %"


def prefixed(value: object, unit: str) -> str:
    """Format a large count with its SI prefix: 1.50 TFLOP."""
    x = finite(value)
    if x is None:
        return MISSING
    factor, prefix = si_scale(x)
    return f"{number(x / factor)} {prefix}{unit}"


def si_scale(largest: float) -> tuple[float, str]:
    """Return the factor and the SI prefix under which a count reads best."""
    for factor, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(largest) >= factor:
            return factor, prefix
    return 1.0, ""


def byte_size(value: object) -> str:
    """Format a number of bytes in binary units: 1.50 GiB."""
    x = finite(value)
    if x is None:
        return MISSING
    factor, unit = byte_scale(x)
    return f"{number(x / factor)} {unit}"


def byte_scale(largest: float) -> tuple[float, str]:
    """Return the factor and the binary unit under which a number of bytes reads best."""
    for factor, unit in ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB")):
        if abs(largest) >= factor:
            return factor, unit
    return 1.0, "bytes"


def duration(seconds: object) -> str:
    """Format seconds: 12.3 s, 5 min 12 s, 2 h 05 min."""
    x = finite(seconds)
    if x is None:
        return MISSING
    if x < 59.95:
        return f"{number(x)} s"
    whole = round(x)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(x / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def amount(value: object, currency: str) -> str:
    """Format an amount in a currency that a budget can name.

    Args:
        value: The amount.
        currency: flop, device_s (seconds) or epochs.
    """
    if currency == "device_s":
        return duration(value)
    if currency == "epochs":
        return f"{number(value)} epochs"
    return prefixed(value, "FLOP")


def parallel(words: Iterable[str]) -> str:
    """Join the words for the parallel paths of a site, in their order: 91 | 155."""
    return " | ".join(words)


def field_px(rf_px: int, path_rf_px: Mapping[str, int] | None = None) -> str:
    """Format a receptive field, without its unit.

    Args:
        rf_px: The receptive field, px.
        path_rf_px: Those behind each of several parallel paths, px; then they stand behind it: 163 (91 | 155).
    """
    paths = parallel(f"{px:,}" for px in (path_rf_px or {}).values())
    return f"{rf_px:,} ({paths})" if paths else f"{rf_px:,}"


def counted(count: int, one: str, many: str = "") -> str:
    """Format a count of things: 1 trial, 3 trials.

    Args:
        count: How many.
        one: What one of them is called.
        many: What several are called, where that is not `one` with an s.
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"
