"""Differentiable layers that set or learn a receptive field. Works without Ray."""

from rfsearch.layers.inflation import (
    Inflation,
    InflationFactor,
    Interpolation,
    inflate,
    inflated_size,
    interpolate,
)

__all__ = ["Inflation", "InflationFactor", "Interpolation", "inflate", "inflated_size", "interpolate"]
