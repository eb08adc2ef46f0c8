"""Pillow's settings of the whole process, put back behind every file that is opened.

Pillow limits pixels, warns of damaged metadata, and prints what it finds in a file that it refuses.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from PIL import Image

_opening = threading.Lock()
_silencing = threading.Lock()
_silent = 0  # files that are open, while Pillow says nothing of their metadata
_METADATA_WARNINGS = r"PIL\.(Tiff|Jpeg)ImagePlugin"  # modules whose only warnings are of damaged metadata
_PILLOW_TIFF = logging.getLogger("PIL.TiffImagePlugin")


@contextmanager
def no_metadata_warnings() -> Iterator[None]:
    """Keep Pillow from warning of damaged metadata, which viewers take no notice of either.

    Filters belong to the whole process: the first of the threads that read sets this one, and the last takes it away.
    """
    global _silent
    with _silencing:
        _silent += 1
        if _silent == 1:
            warnings.filterwarnings("ignore", category=UserWarning, module=_METADATA_WARNINGS)
    try:
        yield
    finally:
        with _silencing:
            _silent -= 1
            if not _silent:
                filters: Any = warnings.filters  # a list
                filters[:] = [kept for kept in filters if not _is_ours(kept)]


def open_unlimited(file: BinaryIO) -> Image.Image:
    """Read a header without Pillow's limit of pixels, and without what it prints of a file besides refusing it.

    Both are settings of the whole process.
    """
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        silent, _PILLOW_TIFF.disabled = _PILLOW_TIFF.disabled, True
        try:
            return Image.open(file)
        finally:
            Image.MAX_IMAGE_PIXELS, _PILLOW_TIFF.disabled = limit, silent


def _is_ours(entry: tuple[Any, ...]) -> bool:
    """Return whether an entry of Python's filters of warnings is the one that is set here."""
    return getattr(entry[3], "pattern", None) == _METADATA_WARNINGS
