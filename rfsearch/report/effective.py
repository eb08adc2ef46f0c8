"""The effective receptive fields of what is recommended and of the hand default, on the page. It imports no torch."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from rfsearch.report.field_page import overlaid
from rfsearch.report.pictures import Part, picture_uri

FIELDS_FILE = "effective_fields.npz"
_STATES = ("before training", "trained")


@dataclass(frozen=True, eq=False)
class Looked:
    """Hold the effective field of one network, with fresh weights and with trained ones.

    Attributes:
        role: What it is in the run: "recommended" or "hand default".
        trial: The trial that trained it.
        rf_px: Its theoretical field, px.
        sizes_px: Its effective ones, before training and after it, px.
        maps: 2 x H x W, likewise: the share of each pixel in all gradient.
    """

    role: str
    trial: str
    rf_px: int
    sizes_px: tuple[float, float]
    maps: np.ndarray

    def __str__(self) -> str:
        """Say how far it looks."""
        before, after = (f"{px:.0f}" for px in self.sizes_px)
        role = self.role.capitalize()
        return f"{role}: {self.rf_px:,} px in theory; in effect {before} px before training, {after} px trained."


@dataclass(frozen=True, eq=False)
class MeasuredFields:
    """Hold the effective fields of a run's networks.

    Attributes:
        image: H x W x 3 uint8, one of the images on which they were measured.
        networks: Of which networks.
    """

    image: np.ndarray
    networks: tuple[Looked, ...]

    def write(self, file: BinaryIO) -> None:
        """Write them to an .npz file that `read` reads."""
        np.savez_compressed(
            file,
            image=self.image,
            roles=np.array([one.role for one in self.networks], np.str_),
            trials=np.array([one.trial for one in self.networks], np.str_),
            rf_px=np.array([one.rf_px for one in self.networks]),
            sizes_px=np.array([one.sizes_px for one in self.networks]),
            maps=np.stack([one.maps for one in self.networks]),
        )

    @staticmethod
    def read(file: Path) -> MeasuredFields | None:
        """Read what `write` wrote; None where there is no such file, or a damaged one."""
        try:
            with np.load(file, allow_pickle=False) as stored:
                columns = (stored[name] for name in ("roles", "trials", "rf_px", "sizes_px", "maps"))
                networks = [
                    Looked(str(role), str(trial), int(rf), (float(sizes[0]), float(sizes[1])), maps)
                    for role, trial, rf, sizes, maps in zip(*columns, strict=True)
                ]
                return MeasuredFields(stored["image"], tuple(networks))
        except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, zipfile.BadZipFile):
            return None

    @property
    def pictures(self) -> Sequence[Sequence[Part]]:
        """The maps of each network on the image, before training and after it."""
        return [
            [
                Part(
                    f"{one.role}, {state}, {size:.0f} px",
                    picture_uri(overlaid(self.image, shares, one.rf_px, size)),
                    False,
                )
                for state, shares, size in zip(_STATES, one.maps, one.sizes_px, strict=True)
            ]
            for one in self.networks
        ]
