"""The closed form against what Wei et al. printed; rows that do not agree are named in the data."""

import pytest

from rfsearch.receptive import new_receptive_field
from rfsearch.reproduce import Row, candidate_of, read_table

PRINTED = [
    (table, row)
    for table in ("wei-table2", "wei-table3", "wei-table4")
    for row in read_table(table).rows
    if {"rf_px", "f"} <= set(row.printed)
]
MISPRINTS = [(table, row) for table, row in PRINTED if "rf_px" in row.suspect]


def extent(table: str, row: Row) -> tuple[int, int]:
    """Taps and initial dilation of a row with one path."""
    ((_, path),) = candidate_of(row)
    kernel = read_table(table).protocol.kernel
    assert kernel is not None
    return kernel, path.choice.dilations[0]


@pytest.mark.parametrize(("table", "row"), PRINTED, ids=str)
def test_a_receptive_field_is_the_printed_one(table, row):
    computed = new_receptive_field(*extent(table, row), row.printed["f"])
    assert (computed == row.printed["rf_px"]) == ("rf_px" not in row.suspect)


def test_the_two_misprints_are_what_a_kernel_longer_by_one_would_give():
    assert [row.printed["rf_px"] for _, row in MISPRINTS] == [332, 364]
    for table, row in MISPRINTS:
        kernel, dilation = extent(table, row)
        k, f = (kernel - 1) * dilation + 1, row.printed["f"]
        assert 212 + 8 * (-int(-(k + 2) // f) - 1) == row.printed["rf_px"]
