"""The closed form against what Wei et al. printed; rows that do not agree are named in the data."""

import csv

import pytest

from rfsearch.plugins import shipped
from rfsearch.receptive import new_receptive_field

ROWS = list(csv.DictReader((shipped("baselines") / "published" / "wei" / "rf_fc6.csv").open()))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['dataset']}-{row['init_dilation']}-{row['f']}")
def test_a_printed_receptive_field(row):
    computed = new_receptive_field(int(row["kernel"]), int(row["init_dilation"]), float(row["f"]))
    assert (computed == int(row["rf_px_printed"])) == (row["agrees"] == "yes")


def test_the_two_misprints_are_what_a_kernel_longer_by_one_would_give():
    misprints = [row for row in ROWS if row["agrees"] == "no"]
    assert [int(row["rf_px_printed"]) for row in misprints] == [332, 364]
    for row in misprints:
        k, f = (int(row["kernel"]) - 1) * int(row["init_dilation"]) + 1, float(row["f"])
        assert 212 + 8 * (-int(-(k + 2) // f) - 1) == int(row["rf_px_printed"])
