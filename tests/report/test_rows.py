"""The one view of the records: the tables of the CSV files, and the order and words of rows."""

import math
from dataclasses import replace

import pytest

from rfsearch.choices import Candidate, Dilated, Guest, Inflated, Searched
from rfsearch.ledger import incumbent
from rfsearch.ledger.record import TRIAL_COLUMNS
from rfsearch.ledger.schema import Ends, upgraded
from rfsearch.report.rows import anytime_table, arm_rows, trial_columns, trial_groups, trial_line, trials_table
from rfsearch.report.view import build_view
from tests.ledger.records import RECORD
from tests.report.made_up import REFERENCE_FLOP, MakeRun, record


def test_trials_csv_has_the_contracts_columns():
    table = trials_table([RECORD])
    assert tuple(table.columns) == TRIAL_COLUMNS
    row = table.iloc[0]
    assert (row.train_flop, row.device_s, row.epochs, row.f) == (1e9, 2.5, 3.0, 0.9)
    assert (row.outcome, row.steps, row.train_seed, row.heir_of) == (RECORD.outcome, 0, 0, "")


def test_trials_csv_tells_the_dilation_that_training_found():
    finding, layer = Searched(2), Guest(4, "a.b:c")
    started = Candidate({"a": [finding, Dilated(6)], "b": layer, "c": Inflated(3, 1.5)}).to_json()
    old, unknown = replace(RECORD, candidate=started, outcome=started), replace(RECORD, candidate='{"conv6": "?"}')
    found = upgraded(old, 1, Ends({"a/1": 2 / 11, "b": 4 / 7.6, "c": 1.5}))
    unknown = upgraded(replace(unknown, outcome=unknown.candidate), 1, Ends())
    torn = upgraded(old, 1, Ends({"b": math.nan}))
    table = trials_table([found, unknown, torn, RECORD])
    assert list(table.dilation) == ["a/1=11;a/2=6;b=8;c=3", "", "a/1=2;a/2=6;b=4;c=3", "conv6=4"]
    assert list(table.f) == ["c=1.5", "", "c=1.5", "conv6=0.9"]
    assert found.found.keys() == {"a/1", "b"}
    assert found.found["a/1"] == Dilated(11)
    assert found.found["b"] == Guest(4, "a.b:c", found=found.found["b"].found)
    assert found.found["b"].found == pytest.approx(7.6)


def test_the_incumbent_is_chosen_on_validation_and_spending_adds_up():
    worse = replace(RECORD, trial="b", val=0.4, test=0.9)
    better = replace(RECORD, trial="c", val=0.6, test=0.1)
    pruned = replace(RECORD, trial="d", val=0.99, test=None, status="pruned")
    table = anytime_table([RECORD, worse, better, pruned], "maximize")
    assert list(table.incumbent) == [RECORD.trial, RECORD.trial, "c", "c"]
    assert list(table.test) == [0.4, 0.4, 0.1, 0.1]
    assert list(table.spent_flop) == [1e9, 2e9, 3e9, 4e9]


def test_rows_of_trials_go_by_strategy_then_by_initial_field_whatever_order_they_came_in(make_run: MakeRun):
    records = [record("a", 8), record("b", 2), record("c", 4, strategy="random", seed=1), record("d", 1, val=0.9)]
    arms = [{"strategy": "random", "seed": 1}, {"strategy": "exhaustive", "seed": 0}]
    told = build_view(make_run(records, arms=arms))
    groups = trial_groups(told)
    assert [(name, [row.record.trial for row in rows]) for name, rows in groups] == [
        ("random", ["c"]), ("exhaustive", ["d", "b", "a"]),
    ]  # fmt: skip
    leading = [row.record for _, rows in groups for row in rows if row.leads]
    assert leading == [incumbent(told.records, "maximize")]
    headings = [column.heading for column in trial_columns(told)]
    assert headings[:6] == ["initial dilation", "initial RF, px", "f", "new RF, px", "val", "test"]
    assert all(len(row.cells) == len(headings) for _, rows in groups for row in rows)
    assert dict(zip(headings, groups[1][1][2].cells, strict=True))["initial dilation"] == ("8", 8.0)


def test_a_row_of_an_arm_says_what_it_spent_of_its_budget_and_how_its_trials_ended(make_run: MakeRun):
    records = [record("a"), record("b", status="failed", val=None), record("c", seed=1)]
    arms = [{"strategy": "exhaustive", "seed": seed} for seed in (2, 1, 0)]
    rows = arm_rows(build_view(make_run(records, arms=arms, budget={"limit": 4 * REFERENCE_FLOP})))
    assert [(row.arm.seed, row.share, row.statuses) for row in rows] == [
        (0, 0.5, "1 completed, 1 failed"), (1, 0.25, "1 completed"), (2, 0.0, "none yet"),
    ]  # fmt: skip


def test_a_finished_trial_is_one_line_with_the_fields_of_its_paths():
    done = record("exhaustive-0-001", 2, val=0.5, path_rf_px={"conv6/1": 91, "conv6/2": 1155})
    assert trial_line(done, "iou").startswith("completed exhaustive-0-001   conv6: d=2")
    assert trial_line(done, "iou").endswith(", RF 92 (91 | 1,155) px, iou 0.500")
