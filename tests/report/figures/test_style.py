"""Colours that stand for strategies and fates stay apart for readers who see fewer of them."""

import itertools

import numpy as np
import pytest

from rfsearch.report.figures.budget_use import _COLOURS as FATES
from rfsearch.report.figures.style import COLOURS, DASHES, SYMBOLS

# Linear RGB as seen without one kind of cones: Machado, Oliveira, Fernandes, "A physiologically-based model for
# simulation of color vision deficiency", IEEE TVCG 15(6), 2009, severity 1.
SIGHT = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "all colours": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # of linear sRGB
WHITE = XYZ.sum(1)


def linear(colour: str) -> np.ndarray:
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """Return CIE L*a*b* of linear sRGB."""
    ratio = XYZ @ rgb.clip(0, 1) / WHITE
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def nearest(colours, sight: str) -> float:
    """Return the smallest difference of two colours; one of 2.3 is just noticed side by side."""
    seen = [lab(np.array(SIGHT[sight]) @ linear(colour)) for colour in colours]
    return min(float(np.linalg.norm(one - other)) for one, other in itertools.combinations(seen, 2))


@pytest.mark.parametrize("sight", SIGHT)
def test_strategies_and_fates_are_told_apart(sight):
    assert nearest(COLOURS[:5], sight) > 28
    assert nearest(COLOURS, sight) > 18
    assert nearest(FATES.values(), sight) > 18


@pytest.mark.parametrize("colour", COLOURS)
def test_colours_stand_out_on_a_light_and_on_a_dark_page(colour):
    light = XYZ[1] @ linear(colour)
    assert (1 + 0.05) / (light + 0.05) > 2.4
    assert (light + 0.05) / (XYZ[1] @ linear("#15181c") + 0.05) > 3


def test_five_strategies_have_dashes_and_marks_of_their_own():
    assert len({*DASHES[:5]}) == 5
    assert len({*SYMBOLS}) == len(COLOURS)
