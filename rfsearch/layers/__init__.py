"""Offer differentiable layers that set or learn a receptive field. They work without Ray."""

from rfsearch.layers.correlation import Correlation, correlate
from rfsearch.layers.fractional import FractionalConv2d
from rfsearch.layers.fractional_convolution import fractional_conv2d
from rfsearch.layers.guidance import LabelWeight, WeightedGradient, guided
from rfsearch.layers.inflation import (
    Inflation,
    InflationFactor,
    Interpolation,
    inflate,
    inflated_size,
    interpolate,
)
from rfsearch.layers.initialisation import low_centre_
from rfsearch.layers.lsdfn import LSDFN, SampleStride

__all__ = [
    "LSDFN",
    "Correlation",
    "FractionalConv2d",
    "Inflation",
    "InflationFactor",
    "Interpolation",
    "LabelWeight",
    "SampleStride",
    "WeightedGradient",
    "correlate",
    "fractional_conv2d",
    "guided",
    "inflate",
    "inflated_size",
    "interpolate",
    "low_centre_",
]
