"""A kind of choice: how many taps an axis a convolution has. It imports no torch; its installer does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rfsearch import Choice
from rfsearch.errors import SpaceError


@dataclass(frozen=True)
class Kernel(Choice):
    """A site's convolution with another kernel. size: taps an axis, odd, so that the map keeps its size."""

    kind: ClassVar[str] = "kernel"
    installer: ClassVar[str] = "rfsearch_example.install_kernel:install"

    size: int

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or self.size < 1 or self.size % 2 == 0:
            raise SpaceError(f"the size of a kernel is an odd number of at least 1. Got {self.size!r}.")

    def __str__(self) -> str:
        return f"kernel {self.size}"
