"""What a site can get besides one path: several in parallel, or an LS-DFN block."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from rfsearch.space.table import FARTHEST, MOST_CHANNELS, WIDEST, Table

SINGLE, LSDFN = "single", "lsdfn"


class PathSet(Table):
    """Put parallel paths at every site.

    Args:
        manual: Their dilations as set by hand, the baseline of this number of paths.
        labels: Classes that guide each path (Wei eq. 12), an empty set for a path that is not guided; left out where no
            path is.
    """

    manual: tuple[Annotated[int, Field(le=FARTHEST)], ...] = Field(min_length=2)
    labels: tuple[tuple[str, ...], ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> PathSet:
        if any(d < 1 for d in self.manual):
            raise ValueError("manual dilations are integers of at least 1")
        if len(self.labels) not in (0, len(self.manual)):
            raise ValueError(f"labels has a set for each path: {len(self.manual)} paths, {len(self.labels)} label sets")
        return self


PATHS = {"bi": PathSet(manual=(4, 6)), "tri": PathSet(manual=(4, 6, 8))}  # Wei et al.: the manual dilations


class SamplingSpec(Table):
    """Say what an LS-DFN block at a site may be.

    Args:
        gammas: Sample strides, px of the site's map, where learned ones start too.
        regions: s, regions an axis, odd; 1 is the plain dynamic filter network.
        features: Channels of its feature branch.
        channels: Channels of its output; left out, one a class.
        kernel: Taps an axis, odd.
        bounds: Of a learned gamma.
    """

    gammas: tuple[float, ...] = Field(default=(1.0, 2.0, 3.0), min_length=1)
    regions: tuple[Annotated[int, Field(le=WIDEST)], ...] = Field(default=(5,), min_length=1)
    features: int = Field(default=32, gt=0, le=MOST_CHANNELS)
    channels: int | None = Field(default=None, gt=0, le=MOST_CHANNELS)
    kernel: int = Field(default=3, gt=0, le=WIDEST)
    bounds: tuple[float, float] = (0.25, 16.0)

    @model_validator(mode="after")
    def _consistent(self) -> SamplingSpec:
        low, high = self.bounds
        if not 0 < low <= high <= FARTHEST:
            raise ValueError(f"bounds = [low, high] needs 0 < low <= high <= {FARTHEST}")
        if any(not low <= gamma <= high for gamma in self.gammas) or len(set(self.gammas)) != len(self.gammas):
            raise ValueError(f"gammas are different sample strides within bounds {list(self.bounds)}, above 0")
        if any(s < 1 or s % 2 == 0 for s in self.regions):
            raise ValueError(f"regions are odd numbers of at least 1, got {list(self.regions)}")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel is odd, got {self.kernel}")
        return self
