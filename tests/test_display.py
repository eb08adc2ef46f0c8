"""The terminal: figures with units, one line a finished trial, and causes shown as they are."""

import io
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console

from rfsearch import plugins
from rfsearch.choices import Candidate, Dilated, Guest, Searched
from rfsearch.display import Board, side_by_side
from rfsearch.ledger import Budget, Cost, Journal, Record, read_history
from rfsearch.planning.contest import Arm, Contest
from rfsearch.planning.forecast import Forecast
from rfsearch.reproduce import Measured
from rfsearch.strategies.guard import Guarded
from rfsearch.strategies.listed import Listed
from tests.toys import helen_space


@pytest.fixture
def contest(tmp_path):
    space = helen_space()
    strategy = Guarded("exhaustive", plugins.load("strategies", "exhaustive")(space, 0))
    arm = Arm(strategy, 0, Budget("1000flop", "flop", 1000.0))
    full = Forecast(Cost(100.0, 1.0, 1.0), Cost(1.0, 0.1, 0.1), Cost(25.0, 0.3, 0.3), peak_bytes=1, rf_px=50)
    return Contest([arm], Journal(tmp_path), read_history(tmp_path), lambda candidate: full, space.reference_candidate)


def test_a_finished_trial_is_one_line_and_a_look_is_none(contest):
    told = io.StringIO()
    board = Board(Console(file=told, width=200), "title", "score", contest)
    given = contest.next()
    record = Record(
        trial=given.trial,
        strategy="exhaustive",
        seed=0,
        status="pruned",
        candidate=given.candidate,
        rf_px=47,
        rf_init_px=47,
        cost=Cost(100.0, 1.0, 1.0),
        val=0.5,
    )
    board.watch(record, contest)
    assert told.getvalue() == ""
    board.watch(contest.finish(replace(record, status="completed")), contest)
    line = told.getvalue()
    assert line.count("\n") == 1
    for part in ("completed", given.trial, "RF 47 px", "score 0.500", "10 % spent"):
        assert part in line


def test_a_cause_is_shown_as_it_is(contest):
    told = io.StringIO()
    board = Board(Console(file=told, width=200), "title", "score", contest)
    given = contest.next()
    cause = "ValueError: got [red]shape[/red] (3, 4)"
    failed = Record(given.trial, "exhaustive", 0, "failed", given.candidate, 0, 0, Cost(), cause=cause)
    board.watch(contest.finish(failed), contest)
    assert cause in told.getvalue()


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


def line_of(folder: Path, candidate: Candidate, dilation: dict[str, float], heir_of: str = "") -> str:
    """What the display says of a finished training."""
    arm = Arm(Guarded("listed", Listed([candidate])), 0, Budget("1000flop", "flop", 1000.0))
    full = Forecast(Cost(100.0, 1.0, 1.0), Cost(1.0, 0.1, 0.1), Cost(25.0, 0.3, 0.3), peak_bytes=1, rf_px=50)
    space = helen_space()
    contest = Contest([arm], Journal(folder), read_history(folder), lambda _: full, space.reference_candidate)
    given, told = contest.next(), io.StringIO()
    assert given is not None
    record = Record(
        given.trial,
        "listed",
        0,
        "completed",
        given.candidate,
        47,
        31,
        Cost(100.0, 1.0, 1.0),
        outcome=candidate.ended(dilation).to_json(),
        val=0.5,
        heir_of=heir_of,
    )
    board = Board(Console(file=told, width=200), "title", "score", contest)
    board.watch(contest.finish(record), contest)
    return told.getvalue()


def test_an_heir_says_whom_it_goes_on_from(tmp_path):
    assert "conv6: d=2 on from listed-0-007, RF" in line_of(
        tmp_path, Candidate({"conv6": Dilated(2)}), {}, "listed-0-007"
    )


def test_what_was_found_at_several_sites_is_one_list(tmp_path):
    candidate = Candidate({"a": Searched(2), "b": Searched(2)})
    assert "to be found -> a d=4, b d=1, RF" in line_of(tmp_path, candidate, {"a": 4, "b": 1})


@pytest.mark.parametrize(
    ("dilation", "end"), [({"conv6": 4}, "d=2, layer dcls -> conv6 d=4, RF"), ({}, "layer dcls, RF")]
)
def test_what_a_layer_has_found_is_on_its_line(tmp_path, dilation, end):
    assert end in line_of(tmp_path, Candidate({"conv6": Guest(2, "peers.dcls:dcls")}), dilation)


def test_the_board_is_whole_at_eighty_columns(tmp_path):
    space = helen_space()
    full = Forecast(Cost(100.0, 1.0, 1.0), Cost(1.0, 0.1, 0.1), Cost(25.0, 0.3, 0.3), peak_bytes=1, rf_px=50)
    arms = [
        Arm(Guarded(name, plugins.load("strategies", name.partition("@")[0])(space.with_form(form), 10)), 10, BUDGET)
        for name, form in (("inflation@tri", "tri"), ("exhaustive@lsdfn", "lsdfn"))
    ]
    contest = Contest(arms, Journal(tmp_path), read_history(tmp_path), lambda _: full, space.reference_candidate)
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    board = Board(console, "Face parsing (helen, preset mini-tri): rendered-faces", "f_classmean_pooled", contest)
    given = contest.next()
    record = Record(
        given.trial, given.strategy, 10, "completed", given.candidate, 1263, 1263, Cost(100.0, 1.0, 1.0), val=0.71234,
        path_rf_px={"conv6/1": 1163, "conv6/2": 1195, "conv6/3": 1263},
    )  # fmt: skip
    contest.finish(record)
    running = contest.next()
    board.watch(replace(record, trial=running.trial, status="pruned", steps=54_000, val=0.51234), contest)
    console.print(board._draw())
    shown = console.file.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    assert "\u2026" not in shown
    rows = shown.splitlines()
    row = next(row for row in rows if row.startswith("inflation@tri/10"))
    assert all(part in row for part in ("5.0 % of 2e15flop", " 1 ", "0.712", "1,163 | 1,195 | 1,263"))
    assert any(row.startswith("exhaustive@lsdfn/10") for row in rows)
    told = " ".join(shown.split())
    assert f"In training: {running.trial} {Candidate.from_json(running.candidate)} (step 54,000, 0.512)" in told
    assert "best: f_classmean_pooled" in told


BUDGET = Budget("2e15flop", "flop", 2000.0)
