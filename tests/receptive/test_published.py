"""The papers' printed numbers: how many there are, a few of them typed in again, and those that follow from others."""

from collections import Counter
from decimal import Decimal

import pytest

from rfsearch.published import Row, candidate_of, read_table, table_names
from rfsearch.receptive import new_receptive_field

BASE, STRIDE = 212, 8  # receptive field and stride of pool5, px (Wei sec. 3.3)
PRINTED = [
    (table, row)
    for table in ("wei-table2", "wei-table3", "wei-table4")
    for row in read_table(table).rows
    if "rf_px" in row.printed
]
MISPRINTS = [(table, row) for table, row in PRINTED if "rf_px" in row.suspect]


def numbers(row: Row, column: str) -> tuple[float, ...]:
    """Numbers of the paths of a row, in their order."""
    value = row.printed[column]
    return tuple(map(float, value if isinstance(value, tuple) else (value,)))


def extent(table: str, row: Row) -> list[tuple[int, int]]:
    """Taps and initial dilation of every path of a row."""
    kernel = read_table(table).protocol.kernel
    assert kernel is not None
    return [(kernel, path.choice.dilations[0]) for _, path in candidate_of(row)]


@pytest.mark.parametrize(("table", "row"), PRINTED, ids=lambda part: getattr(part, "label", part))
def test_a_receptive_field_is_the_printed_one(table, row):
    if "f" in row.printed:
        paths = zip(extent(table, row), numbers(row, "f"), strict=True)
        computed = tuple(new_receptive_field(*path, f) for path, f in paths)
    else:
        computed = tuple(BASE + STRIDE * (kernel - 1) * dilation for kernel, dilation in extent(table, row))
    assert (computed == numbers(row, "rf_px")) == ("rf_px" not in row.suspect)


def test_every_row_of_weis_tables_that_prints_a_receptive_field_is_computed():
    assert Counter(table for table, _ in PRINTED) == {"wei-table2": 13, "wei-table3": 14, "wei-table4": 4}


def test_the_two_misprints_are_what_a_kernel_longer_by_one_would_give():
    assert [row.printed["rf_px"] for _, row in MISPRINTS] == [332, 364]
    assert [(table, row.label) for table, row in MISPRINTS] == [
        ("wei-table3", "f learned from dilation 4"),
        ("wei-table3", "f learned from dilation 6"),
    ]
    for table, row in MISPRINTS:
        ((kernel, dilation),), (f,) = extent(table, row), numbers(row, "f")
        k = (kernel - 1) * dilation + 1
        assert BASE + STRIDE * (-int(-(k + 2) // f) - 1) == row.printed["rf_px"]


COUNTS = {  # rows, numbers, marks, suspect numbers, statements of the text
    "wei-table2": (13, 110, 1, 1, 6),
    "wei-table3": (14, 47, 0, 2, 5),
    "wei-table4": (4, 44, 0, 0, 2),
    "wei-table5": (4, 24, 0, 1, 1),
    "lsdfn-table1": (5, 9, 2, 0, 1),
    "lsdfn-table2": (3, 12, 0, 0, 2),
    "lsdfn-table3": (3, 15, 0, 0, 2),
    "lsdfn-table4": (4, 10, 2, 1, 1),
    "lsdfn-table5": (4, 87, 1, 1, 6),
    "lsdfn-table6": (12, 19, 5, 0, 3),
}


def test_every_table_is_whole():
    assert table_names() == sorted(COUNTS)
    for name, counts in COUNTS.items():
        table = read_table(name)
        rows = [row for row in table.rows if row.printed]
        assert counts == (
            len(rows),
            sum(len(numbers(row, column)) for row in rows for column in row.printed),
            sum(len(row.marks) for row in rows),
            sum(len(row.suspect) for row in rows),
            len(table.statements),
        ), name


def test_weis_tables_have_their_starts_by_hand_and_learned():
    starts = {
        name: [
            [row.printed["dilation"] for row in read_table(name).rows if ("f" in row.printed) == learned]
            for learned in (False, True)
        ]
        for name in ("wei-table2", "wei-table3")
    }
    assert starts == {
        "wei-table2": [[2, 4, 6, 8, 10, 12, 14], [2, 2, 6, 8, 10, 12]],
        "wei-table3": [[4, 6, 8, 10, 12, 14, 16, 18, 20], [4, 6, 16, 18, 20]],
    }
    for name in starts:
        for row in read_table(name).rows:  # what is trained starts where the paper did
            assert extent(name, row)[0][1] == row.printed["dilation"]


@pytest.mark.parametrize(
    ("table", "label", "column", "printed"),
    [
        ("wei-table2", "dilation 4, set by hand", "overall", "0.9012"),
        ("wei-table2", "dilation 14, set by hand", "eyebrow", "0.7486"),
        ("wei-table2", "f learned from dilation 2", "f", "2.44"),
        ("wei-table2", "f learned from dilation 2, after a delay", "f", "0.88*"),
        ("wei-table2", "f learned from dilation 8", "face", "0.9148"),
        ("wei-table2", "f learned from dilation 12", "f", "3.60"),
        ("wei-table3", "dilation 4, set by hand", "mean_iou", "61.310"),
        ("wei-table3", "f learned from dilation 18", "mean_iou", "67.780"),
        ("wei-table4", "three guided paths, f learned", "f", "1.61, 1.12, 1.11"),
        ("wei-table4", "two guided paths, f learned", "rf_px", "268, 372"),
        ("wei-table4", "two paths, set by hand", "overall", "0.8964"),
        ("wei-table5", "Smith et al. 2013, exemplars", "nose", "0.922"),
        ("lsdfn-table1", "CoupleNet + LS-DFN", "voc_twelve", "81.7†"),
        ("lsdfn-table1", "Deformable convolution", "voc_twelve", "-"),
        ("lsdfn-table2", "C' = 32, with attention", "s_one", "72.9"),
        ("lsdfn-table3", "C' = 24", "gamma_two_without", "77.3"),
        ("lsdfn-table4", "C' = 24, with residual learning", "with_attention", "78.68"),
        ("lsdfn-table4", "C' = 32, without residual learning", "without_attention", "F"),
        ("lsdfn-table5", "DeepLab V2 with its four dilations", "bg", "-"),
        ("lsdfn-table5", "LS-DFN beside the dilations", "sofa", "64.9"),
        ("lsdfn-table5", "segmentation-aware convolution beside the dilations", "all", "79.8"),
        ("lsdfn-table6", "FlowNetC + LS-DFN, s = 9", "aepe", "2.06"),
        ("lsdfn-table6", "FlowNetC + LS-DFN, s = 9", "time", "51"),
        ("lsdfn-table6", "PWC-Net", "time", "-"),
    ],
)
def test_a_number_is_kept_as_printed(table, label, column, printed):
    (row,) = (row for row in read_table(table).rows if row.label == label)
    value = row.printed.get(column, ())
    parts = value if isinstance(value, tuple) else (value,)
    assert ", ".join(map(str, parts)) + row.marks.get(column, "") == printed


def test_the_delayed_start_is_the_only_row_whose_f_waits():
    table = read_table("wei-table2")
    waits = {row.label: table.protocol_of(row).f_delay_steps for row in table.rows}
    assert {label: steps for label, steps in waits.items() if steps} == {
        "f learned from dilation 2, after a delay": 10_000
    }


def test_weis_own_row_of_table_5_is_a_row_of_table_2_with_fewer_digits():
    (full,) = (row for row in read_table("wei-table2").rows if row.label == "f learned from dilation 8")
    short = read_table("wei-table5").rows[-1]
    assert candidate_of(short) == candidate_of(full)
    for column, value in short.printed.items():
        assert isinstance(value, Decimal)
        assert abs(value - full.printed[column]) <= Decimal("0.0005")
    assert full.printed["face"] == full.printed["mouth"]
    assert ("face" in full.suspect, "face" in short.suspect) == (True, True)


def test_the_mean_of_the_classes_is_the_printed_one_but_for_a_misprint():
    table = read_table("lsdfn-table5")
    for row in table.rows:
        classes = [float(row.printed[name]) for name in table.columns if name != "all" and name in row.printed]
        if len(classes) == 21:
            follows = abs(sum(classes) / 21 - float(row.printed["all"])) <= 0.1  # each is rounded to 0.1
            assert follows == ("all" not in row.suspect)
    assert [row.label for row in table.rows if "all" in row.suspect] == ["LS-DFN in place of the dilations"]


def test_a_gain_that_the_text_names_is_that_of_the_table_but_for_misprints():
    rows = {row.label: row.printed for row in read_table("lsdfn-table5").rows}
    ours, other = rows["LS-DFN beside the dilations"], rows["segmentation-aware convolution beside the dilations"]
    statements = {statement.about: statement for statement in read_table("lsdfn-table5").statements}
    gain = "gain over segmentation-aware convolution"
    for about, column in {gain: "all", f"{gain}, boat": "boat", f"{gain}, sofa": "sofa"}.items():
        follows = ours[column] - other[column] == statements[about].printed
        assert follows == (not statements[about].suspect)
    flow = {row.label: row.printed for row in read_table("lsdfn-table6").rows}
    gains = {statement.about: statement.printed for statement in read_table("lsdfn-table6").statements}
    assert flow["FlowNets"]["aepe"] - flow["FlowNets + LS-DFN, s = 7"]["aepe"] == gains["gain on FlowNets"]
