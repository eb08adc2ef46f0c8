"""A run in the terminal: one line a finished trial, causes as they are, and a board that fits and says how long."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from rfsearch import plugins
from rfsearch.board import Board
from rfsearch.choices import Candidate, Dilated, Guest, Searched
from rfsearch.ledger import Budget, Cost, Journal, Record, read_history
from rfsearch.planning.contest import Arm, Contest
from rfsearch.planning.forecast import Forecast
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
    assert all(part in row for part in ("5.0 % of 2e15flop", " 1 ", "0.712", " 1,263"))
    assert any(row.startswith("exhaustive@lsdfn/10") for row in rows)
    told = " ".join(shown.split())
    assert f"In training: {running.trial} {Candidate.from_json(running.candidate)} (step 54,000, 0.512)" in told
    assert "best: f_classmean_pooled" in told
    assert f"RF 1,263 (1,163 | 1,195 | 1,263) px ({given.trial})" in told


BUDGET = Budget("2e15flop", "flop", 2000.0)


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def contest_of(folder, seeds, budget=BUDGET, strategies=("exhaustive",)):
    """A contest of arms whose trainings cost 100 FLOP each."""
    space = helen_space()
    full = Forecast(Cost(100.0, 10.0, 1.0), Cost(1.0, 0.1, 0.1), Cost(25.0, 0.3, 0.3), peak_bytes=1, rf_px=50)
    arms = [
        Arm(Guarded(name, plugins.load("strategies", name)(space, seed)), seed, budget)
        for name in strategies
        for seed in range(seeds)
    ]
    return Contest(arms, Journal(folder), read_history(folder), lambda _: full, space.reference_candidate)


def trained(given, val=0.5, **changes):
    record = Record(
        given.trial, given.strategy, given.seed, "completed", given.candidate, 47, 47, Cost(100.0, 10.0, 1.0), val=val
    )
    return replace(record, **changes)


def shown(board, height=40):
    console = Console(file=io.StringIO(), width=80, height=height, force_terminal=True, color_system=None)
    board._console = console
    console.print(board._draw())
    return console.file.getvalue()


def board_of(contest, clock):
    return Board(Console(file=io.StringIO(), width=200), "title", "score", contest, clock)


def test_the_time_left_is_what_is_left_at_the_pace_so_far(tmp_path):
    contest, clock = contest_of(tmp_path, 2, Budget("1000flop", "flop", 1000.0)), Clock()
    board = board_of(contest, clock)
    assert "0 % of all budgets spent\n" in shown(board).replace(" \n", "\n")
    board.watch(contest.finish(trained(contest.next())), contest)
    looked_at = contest.next()
    board.watch(trained(looked_at, status="pruned", cost=Cost(60.0, 6.0, 0.6), steps=3), contest)
    clock.now = 120.0
    # 160 of 2 x 1000 FLOP in two minutes: 80 a minute, and 1840 take another 23.
    assert "8.0 % of all budgets spent, 80.0 FLOP a minute, about 23 min 00 s left" in shown(board)


def test_what_an_earlier_process_has_spent_is_no_pace_and_an_ended_arm_has_nothing_left(tmp_path):
    contest = contest_of(tmp_path, 2, Budget("1000flop", "flop", 1000.0))
    contest.finish(trained(contest.next()))
    first, clock = contest.arms[0], Clock()
    first.exhausted = "all candidates have been tried"
    assert contest.ended(first)
    assert not contest.ended(contest.arms[1])
    given = contest.next()
    board = board_of(contest, clock)
    assert "left" not in shown(board)
    board.watch(contest.finish(trained(given)), contest)
    clock.now = 60.0
    assert "100 FLOP a minute, about 9 min 00 s left" in shown(board)


def test_seconds_have_no_rate(tmp_path):
    contest, clock = contest_of(tmp_path, 1, Budget("100s", "device_s", 100.0)), Clock()
    board = board_of(contest, clock)
    board.watch(contest.finish(trained(contest.next())), contest)
    clock.now = 10.0
    assert "10 % of all budgets spent, about 1 min 30 s left" in shown(board)


def test_where_arms_do_not_fit_a_strategy_is_a_row_and_trials_in_training_are_counted(tmp_path):
    contest, clock = contest_of(tmp_path, 9, strategies=("exhaustive", "random")), Clock()
    board = board_of(contest, clock)
    for val in (0.4, 0.7):
        board.watch(contest.finish(trained(contest.next(), val)), contest)
    for _ in range(30):
        contest.next()
    whole, low = shown(board, 80), shown(board, 24)
    assert "exhaustive/8" in whole
    assert "random/0" in whole
    assert len(low.splitlines()) <= 24
    row = next(line for line in low.splitlines() if line.startswith("exhaustive, 9 seeds"))
    assert all(part in row for part in ("1.1 % of 2e15flop", " 2 ", "0.700"))
    assert "others in training" in low
    assert "others in training" not in whole


def test_failures_are_counted_and_the_last_cause_stays(tmp_path):
    contest = contest_of(tmp_path, 1)
    board = board_of(contest, Clock())
    for cause in ("ValueError: first", "ValueError: [b]second[/b]"):
        given = contest.next()
        board.watch(contest.finish(trained(given, None, status="failed", cause=cause)), contest)
    told = shown(board)
    assert f"2 trials failed, the last one ({given.trial}): ValueError: [b]second[/b]" in told


def test_an_arm_that_went_over_is_not_said_to_be_at_its_budget(tmp_path):
    contest = contest_of(tmp_path, 1, Budget("1000flop", "flop", 1000.0))
    board = board_of(contest, Clock())
    board.watch(contest.finish(trained(contest.next(), cost=Cost(1030.0, 10.0, 1.0))), contest)
    assert "arm 103 % spent" in board._console.file.getvalue()


def test_the_best_so_far_is_what_training_found(tmp_path):
    contest = contest_of(tmp_path, 1, strategies=("inflation",))
    board, given = board_of(contest, Clock()), contest.next()
    learned = Candidate.from_json(given.candidate)
    assert learned.learned
    outcome = learned.ended({"conv6": 1.5})
    board.watch(contest.finish(trained(given, 0.6, outcome=outcome.to_json())), contest)
    assert f"Best so far: 0.600 with {outcome}, RF 47 px ({given.trial})" in " ".join(shown(board).split())
