"""Tables in the terminal: a published one beside what was measured."""

import io
from decimal import Decimal

from rich.console import Console

from rfsearch.choices import Candidate, Dilated
from rfsearch.display import plan_table, side_by_side
from rfsearch.ledger.manifest import PlannedCandidate
from rfsearch.reproduce import Measured


def test_candidates_that_cannot_be_told_apart_share_a_row_each_with_its_dilations():
    def dilations(*of_sites: int) -> str:
        return Candidate({f"s{k}": Dilated(d) for k, d in enumerate(of_sites)}).to_json()

    alike = tuple(dilations(*of_sites) for of_sites in ((1, 1, 2), (2, 1, 1), (2, 2, 2)))
    row = PlannedCandidate(
        candidate=dilations(1, 1, 1), alike=alike, rf_px=9, share=0.1, flop=1e9, seconds=2.0, peak_bytes=1
    )
    console = Console(file=io.StringIO(), width=200)
    console.print(plan_table([row], 1e9))
    assert "(alike: d=1/1/2, 2/1/1, 2)" in console.file.getvalue()


def test_printed_and_measured_share_a_row_and_paths_a_cell():
    rows = [
        Measured("two paths", {"rf_px": 316, "f1": 0.9}, {"rf_px": 63.0, "score": 0.7101, "f1": 0.974, "f2": 0.89}, 1),
        Measured("too far", {"score": 0.5}, {}, why="it does not fit"),
    ]
    console = Console(file=io.StringIO(), width=100)
    console.print(side_by_side(rows, "miou_dataset"))
    told = console.file.getvalue().splitlines()
    assert told[1].split() == ["row", *["printed", "measured"] * 3]
    assert told[2].split() == ["two", "paths", "316", "63", "-", "0.71", "0.9", "0.974", "|", "0.89"]
    assert told[3].split() == ["too", "far", "-", "-", "0.5", "-", "-", "-"]
    assert told[4].strip() == "it does not fit"


def test_a_column_without_a_side_has_none_and_a_wide_table_is_continued_below():
    rows = [
        Measured("dilation 4", {"dilation": 4, "eye": Decimal("0.8460")}, {"score": 0.71}, 1, marks={"nose": "F"}),
        Measured("of others", {"eye": Decimal("0.770")}, {}, why="nobody here has it", marks={"eye": "*"}),
    ]
    headings = {"dilation": "dilation", "eye": "eye", "nose": "nose"}
    wide, narrow = (Console(file=io.StringIO(), width=width) for width in (100, 30))
    for console in (wide, narrow):
        console.print(side_by_side(rows, "f_classmean_pooled", headings, console))
    lines = [line.split() for line in wide.file.getvalue().splitlines()]
    assert lines[:2] == [
        ["dilation", "eye", "nose", "f_classmean_pooled"],
        ["row", *["printed"] * 3, "measured"],
    ]
    assert lines[2:] == [
        ["dilation", "4", "4", "0.8460", "F", "0.71"],
        ["of", "others", "-", "0.770*", "-", "-"],
        ["nobody", "here", "has", "it"],
    ]
    lines = [line.split() for line in narrow.file.getvalue().splitlines()]
    assert [line for line in lines if line[0] in ("dilation", "nose", "of", "nobody")] == [
        ["dilation", "eye"],
        ["dilation", "4", "4", "0.8460"],
        ["of", "others", "-", "0.770*"],
        ["nobody"],
        ["nose"],
        ["dilation", "4", "F"],
        ["of", "others", "-"],
        ["dilation", "4", "0.71"],
        ["of", "others", "-"],
    ]
