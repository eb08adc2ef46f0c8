"""The keys that all layouts of picture files share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rfsearch.data.base import Layout
from rfsearch.data.fitting import Resize
from rfsearch.data.picture_files import MOST_PIXELS
from rfsearch.data.pictures import PictureRule

Byte = Annotated[int, Field(ge=0, le=255)]


class PictureLayout(Layout):
    """Read a folder of picture files with a class id per pixel.

    Args:
        classes: Names in the order of the ids. Empty: as the layout finds them.
        ignore_index: Id of pixels without a class.
        flip_pairs: Class ids that a horizontal flip exchanges.
        resize: How images of another shape are brought to the size: "stretch" distorts them, "crop" keeps the centre,
            "pad" adds ignored pixels.
        white: Value of grey images of more than 8 bits that is white. None: their type's largest, 1 of floats.
        max_pixels: Images of more pixels are refused. None: 178,956,970.
    """

    classes: tuple[str, ...] = ()
    ignore_index: Byte | None = None
    flip_pairs: tuple[tuple[int, int], ...] = ()
    resize: Resize = "stretch"
    white: float | None = Field(default=None, gt=0)
    max_pixels: int | None = Field(default=None, gt=0)

    @property
    def pictures(self) -> PictureRule:
        """Return how the picture files are decoded."""
        return PictureRule(self.white, self.max_pixels or MOST_PIXELS)
