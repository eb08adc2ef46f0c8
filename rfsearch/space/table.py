"""What all tables of a space file have in common: no unknown key, and numbers that a training can have."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# Bounds against slips of the keyboard, far beyond what any training has used: without them such a number ends as a hang
# or as a process without memory, long after the file was read.
MOST_STEPS = 10**9
MOST_IMAGES = 10**6  # at a time
LONGEST_SIDE = 2**15  # px
MOST_RUNGS = 10**4
MOST_CHANNELS = 2**16
WIDEST = 2**10  # taps or regions of an axis
FARTHEST = 2**15  # px: dilations and sample strides
LARGEST_FACTOR = 2.0**10  # of f, and of zooming images

Side = Annotated[int, Field(ge=1, le=LONGEST_SIDE)]
Dilation = Annotated[int, Field(ge=1, le=FARTHEST)]


class Table(BaseModel):
    """Check a table of a space file, and hold its values unchanged."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
