"""Files of flow: written and read back, held against the format's own description, and refused by name."""

import struct

import numpy as np
import pytest

from rfsearch.data.flo import read_flo, write_flo
from rfsearch.errors import DataError


def a_field() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 30, (5, 7, 2)).astype(np.float32)


def test_a_field_is_read_back_as_it_was_written(tmp_path):
    write_flo(tmp_path / "a.flo", a_field())
    np.testing.assert_array_equal(read_flo(tmp_path / "a.flo"), a_field())


def test_the_bytes_are_those_of_the_format(tmp_path):
    """202021.25, width, height, then right and down, pixel by pixel, row by row."""
    values = [float(number) for number in range(12)]
    body = struct.pack("<fii12f", 202021.25, 3, 2, *values)
    (tmp_path / "a.flo").write_bytes(body)
    flow = read_flo(tmp_path / "a.flo")
    assert flow.shape == (2, 3, 2)
    assert flow[0, 1].tolist() == [2.0, 3.0]
    assert flow[1, 0].tolist() == [6.0, 7.0]
    write_flo(tmp_path / "b.flo", flow)
    assert (tmp_path / "b.flo").read_bytes() == body


def test_unknown_flow_is_nan_and_written_as_unknown(tmp_path):
    field = a_field()
    field[1, 2] = np.nan
    write_flo(tmp_path / "a.flo", field)
    assert np.frombuffer((tmp_path / "a.flo").read_bytes(), "<f4").max() > 1e9
    np.testing.assert_array_equal(read_flo(tmp_path / "a.flo"), field)


def test_only_fields_are_written(tmp_path):
    with pytest.raises(ValueError, match="H x W x 2. Got flow.shape=\\(2, 5, 7\\)"):
        write_flo(tmp_path / "a.flo", a_field().transpose(2, 0, 1))


def damaged(body: bytes) -> dict[str, tuple[bytes, str]]:
    nan = bytearray(body)
    nan[12:16] = struct.pack("<f", float("nan"))
    return {
        "empty": (b"", "begins with PIEH. This one begins with b''"),
        "magic": (b"PIEX" + body[4:], "begins with PIEH. This one begins with b'PIEX'"),
        "sides": (body[:4] + struct.pack("<ii", 0, 5) + body[12:], "1 to 99,999 px. Got 0 x 5"),
        "short": (body[:-1], r"7 x 5 px \(W x H\) of flow take 292 bytes. Got 291"),
        "long": (body + b"0000", "take 292 bytes. Got 296"),
        "nan": (bytes(nan), r"the flow of 1 of 35 px is not a number"),
    }


@pytest.mark.parametrize("kind", ["empty", "magic", "sides", "short", "long", "nan"])
def test_a_damaged_file_is_refused_by_name(kind, tmp_path):
    write_flo(tmp_path / "a.flo", a_field())
    body, message = damaged((tmp_path / "a.flo").read_bytes())[kind]
    (tmp_path / "a.flo").write_bytes(body)
    with pytest.raises(DataError, match=f"a.flo: .*{message}"):
        read_flo(tmp_path / "a.flo")


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match="missing.flo: no such file"):
        read_flo(tmp_path / "missing.flo")
