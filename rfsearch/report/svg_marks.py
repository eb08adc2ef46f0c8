"""The marks of an SVG figure: the outlines of plotly's symbols that the report uses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

# Corners as angles from the top, in degrees, with their distance in radii.
_CORNERS: Mapping[str, Sequence[tuple[float, float]]] = {
    "square": [(45 + 90 * k, 1.2) for k in range(4)],
    "diamond": [(90 * k, 1.25) for k in range(4)],
    "triangle-up": [(120 * k, 1.25) for k in range(3)],
    "pentagon": [(72 * k, 1.1) for k in range(5)],
    "star-triangle-down": [(180 + 60 * k, 1.35 if k % 2 == 0 else 0.55) for k in range(6)],
    "cross": [
        (angle + 90 * k, distance) for k in range(4) for angle, distance in ((-21.8, 1.08), (21.8, 1.08), (45, 0.57))
    ],
    "x": [
        (45 + angle + 90 * k, distance)
        for k in range(4)
        for angle, distance in ((-21.8, 1.08), (21.8, 1.08), (45, 0.57))
    ],
}


def mark(symbol: str, x: float, y: float, radius: float) -> str:
    """Return the path of one mark; a symbol that is not known is a circle.

    Args:
        symbol: Plotly's name, also with `-open`.
        x: Its centre from the left, px.
        y: Its centre from the top, px.
        radius: Half of its size, px.
    """
    corners = _CORNERS.get(symbol.removesuffix("-open"))
    if corners is None:
        r = f"{radius:.3g}"
        return f"M{x - radius:.4g} {y:.4g}a{r} {r} 0 1 0 {2 * radius:.3g} 0a{r} {r} 0 1 0 {-2 * radius:.3g} 0Z"
    ends = (
        (x + radius * far * math.sin(math.radians(angle)), y - radius * far * math.cos(math.radians(angle)))
        for angle, far in corners
    )
    return "M" + "L".join(f"{a:.4g} {b:.4g}" for a, b in ends) + "Z"
