"""Rendered faces in relief: how far each pixel of a face is from the camera. A layout that needs no folder."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt

from rfsearch.data import Embedded, ImageSet, Split, rendered_faces
from rfsearch.data.rendered_faces import Count

FAR = 1.0  # of the background; the tip of a nose is at about 0.35
_SKIN, _NOSE, _SUNKEN = range(1, 11), (6,), (4, 5, 8)  # class ids: a head, its nose, its eyes and inner mouth


class FacesInRelief(Embedded):
    """Draw faces with their depth: N x 1 x H x W float32, in units of the background's distance.

    Args:
        rendered: Number of images of train, val and test.
    """

    rendered: tuple[Count, Count, Count] = (32, 8, 8)

    def held_bytes(self, size: tuple[int, int] | None) -> int:
        height, width = size or (64, 64)
        return sum(self.rendered) * (3 + 4) * height * width

    def make(self, size: tuple[int, int] | None) -> ImageSet:
        faces = rendered_faces(*self.rendered, size=size or (64, 64))
        splits = {
            title: Split(split.images, np.stack([depth_of(ids)[None] for ids in split.targets]), split.names)
            for title, split in faces.splits.items()
        }
        return ImageSet("faces-in-relief", (), None, splits, rendered=True, notice="Drawn faces, no photographs.")


def depth_of(ids: np.ndarray) -> np.ndarray:
    """Return H x W float32 depths of a head that is a dome, its nose a smaller one, its eyes and mouth sunk in.

    Args:
        ids: H x W class ids of a rendered face.
    """
    depth = FAR - 0.5 * _dome(np.isin(ids, _SKIN)) - 0.15 * _dome(np.isin(ids, _NOSE))
    return (depth + 0.05 * _dome(np.isin(ids, _SUNKEN))).astype(np.float32)


def _dome(inside: np.ndarray) -> np.ndarray:
    """Heights, 0 at the edge of a region and 1 where it is widest, as of half a ball."""
    from_edge = distance_transform_edt(inside)
    return np.sqrt(1 - (1 - from_edge / max(1.0, from_edge.max())) ** 2)
