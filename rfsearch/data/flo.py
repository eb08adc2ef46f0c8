"""Read and write optical flow in the Middlebury format, `.flo`, which FlyingChairs and MPI Sintel use.

Baker et al., "A database and evaluation methodology for optical flow", IJCV 2011, and the format's readme: all values
are little-endian; the number 202021.25 ("PIEH" as text), width and height as 32-bit integers, then two 32-bit floats a
pixel, row by row: displacement to the right and downwards, px. A value beyond 1e9 says that the flow is unknown.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from rfsearch.errors import DataError

_MAGIC = b"PIEH"
_HEADER = 12  # bytes: magic, width, height
_LONGEST = 99_999  # px of a side, as in the format's own reader
_UNKNOWN, _WRITTEN_UNKNOWN = 1e9, 1e10


def read_flo(path: Path) -> np.ndarray:
    """Read a flow field: H x W x 2 float32, to the right and downwards, px; NaN where the flow is unknown.

    Raises:
        DataError: The file is missing or damaged; it is named with what is wrong.
    """
    try:
        body = path.read_bytes()
    except OSError as cause:
        raise DataError(f"{path}: {'no such file' if not path.exists() else cause.strerror or cause}") from cause
    if len(body) < _HEADER or body[:4] != _MAGIC:
        raise DataError(f"{path}: a .flo file begins with {_MAGIC.decode()}. This one begins with {body[:4]!r}")
    width, height = struct.unpack("<ii", body[4:_HEADER])
    if not (0 < width <= _LONGEST and 0 < height <= _LONGEST):
        raise DataError(f"{path}: the sides of a .flo file are 1 to {_LONGEST:,} px. Got {width} x {height} (W x H)")
    expected = _HEADER + 8 * width * height
    if len(body) != expected:
        raise DataError(f"{path}: {width} x {height} px (W x H) of flow take {expected:,} bytes. Got {len(body):,}")
    flow = np.frombuffer(body, "<f4", offset=_HEADER).reshape(height, width, 2).astype(np.float32)
    if faulty := int(np.isnan(flow).any(axis=2).sum()):
        raise DataError(f"{path}: the flow of {faulty:,} of {width * height:,} px is not a number (NaN)")
    flow[(np.abs(flow) > _UNKNOWN).any(axis=2)] = np.nan
    return flow


def write_flo(path: Path, flow: np.ndarray) -> None:
    """Write a flow field, H x W x 2; where it is NaN it is written as unknown.

    Raises:
        ValueError: It is no such array.
    """
    if flow.ndim != 3 or flow.shape[2] != 2 or 0 in flow.shape:
        raise ValueError(f"A flow field is H x W x 2. Got {flow.shape=}.")
    height, width = flow.shape[:2]
    known = np.where(np.isnan(flow).any(axis=2, keepdims=True), _WRITTEN_UNKNOWN, flow)
    path.write_bytes(_MAGIC + struct.pack("<ii", width, height) + known.astype("<f4").tobytes())
