"""A search that looks its trainings up finds what the same search finds that trains."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from rfsearch.choices import Candidate, Dilated, Inflated
from rfsearch.errors import RunDirectoryError, SpaceError
from rfsearch.ledger import Assignment, Cost, Record, Request, Rung, read_run
from rfsearch.planning.request import check_request
from rfsearch.replay import ReplayForecasts, ReplayTable, ReplayTrainings
from rfsearch.report.verdict import verdict_of
from rfsearch.report.view import build_view
from rfsearch.training import Order
from tests.calls import wrong
from tests.planned import planned
from tests.small_run import run_in_process
from tests.toys import toy_file

STRATEGIES = ("exhaustive", "inflation", "fractional")


def made(choice, train_seed=0, val=0.5, flop=100.0, **more):
    """A completed training with looks at a third and two thirds of its cost."""
    text = Candidate({"conv": choice}).to_json()
    rungs = tuple(Rung(step, val * step / 30, {}, Cost(flop * step / 30, step, step / 10)) for step in (10, 20))
    cost = Cost(flop, 30.0, 3.0)
    return Record("a", "a", 0, "completed", text, 31, 31, cost, val=val, test=val, train_seed=train_seed, steps=30,
                  rungs=rungs, **more)  # fmt: skip


def table_of(run, *records):
    return ReplayTable(replace(run, records=records))


def assigned(choice, train_seed=0, limit=1000.0, heir_of=""):
    return Assignment("b-1-000", "b", 1, Candidate({"conv": choice}).to_json(), train_seed, limit, heir_of)


@pytest.fixture(scope="module")
def donor(tmp_path_factory):
    """A run of a toy space that trained."""
    folder = tmp_path_factory.mktemp("donor")
    space = toy_file(folder, budget="4x")
    run_in_process("run", "--space", space, "--strategies", ",".join(STRATEGIES), "--seeds", 2, "--out", folder / "run")
    return space, folder / "run"


@pytest.fixture(scope="module")
def run(donor):
    return read_run(donor[1])


def test_a_training_is_looked_up_by_candidate_and_seed(run):
    records = [made(Dilated(d), seed, val=d + seed / 10000) for d in (1, 2) for seed in (1000, 0)]
    table = table_of(run, *records)
    assert table.training_of(assigned(Dilated(2), 1000)).val == 2.1
    assert table.training_of(assigned(Dilated(1), 0)).val == 1.0
    drawn = {seed: table.training_of(assigned(Dilated(2), seed)).val for seed in range(1, 40)}
    assert set(drawn.values()) == {2.0, 2.1}, "a seed that is not in the table draws one that is"
    assert drawn == {seed: table.training_of(assigned(Dilated(2), seed)).val for seed in range(1, 40)}


def test_what_did_not_end_or_hangs_on_another_trial_stands_for_nothing(run):
    others = [replace(made(Dilated(1)), status=status) for status in ("pruned", "cut", "failed")]
    table = table_of(run, *others, made(Dilated(2), heir_of="a"), made(Dilated(4)))
    assert set(table.trainings) == {made(Dilated(4)).candidate}
    assert table.training_of(assigned(Dilated(4), heir_of="b-1-000")) is None


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        (Inflated(8, 1.35), Dilated(6)),  # 5.9 px between taps
        (Inflated(4, 1.05), Dilated(4)),
        (Inflated(8, 0.75), Inflated(8, 0.7)),
    ],
)
def test_a_candidate_between_those_of_the_table_gets_the_nearest_of_its_kind(run, asked, nearest):
    kinds = [Dilated(2), Dilated(4), Dilated(6), Dilated(8), Inflated(8, 0.7)]
    kinds += [Inflated(d, 1.0, learned=True) for d in (1, 4, 8)]
    table = table_of(run, *map(made, kinds))
    assert table.training_of(assigned(asked)).candidate == Candidate({"conv": nearest}).to_json()


class Counted:
    """Forecasts that say what was asked of them."""

    flop_per_s = 7.0

    def __init__(self):
        self.asked = []

    def __call__(self, candidate):
        self.asked.append(candidate)
        return len(self.asked)


def test_a_training_is_forecast_as_that_which_stands_for_it(run):
    table, forecasts = table_of(run, made(Dilated(4)), made(Inflated(8, 0.7))), Counted()
    forecast = ReplayForecasts(table, forecasts)
    kinds = [Inflated(4, 1.03), Inflated(8, 0.72), Dilated(4), Inflated(4, 1.0, learned=True)]
    for choice in kinds:
        forecast(Candidate({"conv": choice}))
    stand_ins = [Dilated(4), Inflated(8, 0.7), Dilated(4), Inflated(4, 1.0, learned=True)]
    assert forecasts.asked == [Candidate({"conv": choice}) for choice in stand_ins], "the table has no learned f"
    assert forecast.flop_per_s == 7.0


def test_a_kind_that_the_table_is_without_fails_its_trial_with_the_reason(run):
    trainings = ReplayTrainings(table_of(run, made(Dilated(2))))
    order = Order(assigned(Inflated(2, 1.0, learned=True)), "flop", torch.device("cpu"), Path("unused"))
    record = trainings.begin(order).advance()
    assert (record.status, record.val, record.cost) == ("failed", None, Cost())
    assert "no whole training of it" in record.cause


def looks_of(run, limit, currency="flop"):
    order = Order(assigned(Dilated(2), 0, limit), currency, torch.device("cpu"), Path("unused"))
    training, seen = ReplayTrainings(table_of(run, made(Dilated(2)))).begin(order), []
    while not seen or seen[-1].status == "pruned":
        seen.append(training.advance())
    return seen


def test_looks_come_one_by_one_and_the_end_is_the_trainings_own(run):
    first, second, last = looks_of(run, 100.0)
    assert [len(record.rungs) for record in (first, second, last)] == [1, 2, 2]
    assert (first.val, first.cost.flop, first.steps, first.test) == (
        pytest.approx(0.5 / 3),
        pytest.approx(100 / 3),
        10,
        None,
    )
    assert (last.status, last.val, last.test, last.cost, last.steps) == (
        "completed",
        0.5,
        0.5,
        Cost(100.0, 30.0, 3.0),
        30,
    )
    assert (last.trial, last.strategy, last.seed) == ("b-1-000", "b", 1)


@pytest.mark.parametrize(("currency", "limit"), [("flop", 50.0), ("device_s", 15.0), ("epochs", 1.5)])
def test_a_limit_cuts_without_a_score_and_is_charged_to_the_last(run, currency, limit):
    look, last = looks_of(run, limit, currency)
    assert (last.status, last.val, last.test, last.steps) == ("cut", None, None, 10)
    assert last.cost == Cost(50.0, 15.0, 1.5)
    assert (look.status, last.scored) == ("pruned", False)


def test_a_replayed_search_has_the_trials_of_the_one_that_trained(donor, tmp_path, monkeypatch, call):
    space, run_dir = donor
    out = tmp_path / "again"
    words = ["run", "--space", space, "--replay-of", run_dir, "--strategies", ",".join(STRATEGIES), "--seeds", 2]
    monkeypatch.setattr("rfsearch.training.trainings.ImageTrainings.begin", None)  # nothing is trained
    assert call(*words, "--out", out)[0] == 0
    trained, replayed = (pd.read_csv(folder / "trials.csv").set_index("trial") for folder in (run_dir, out))
    completed = trained[trained.status == "completed"].index
    assert len(completed) >= 8
    same = ["candidate", "outcome", "rf_px", "val", "test", "train_flop", "device_s", "epochs", "steps", "train_seed"]
    pd.testing.assert_frame_equal(replayed.loc[completed, same], trained.loc[completed, same])
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Replayed: nothing is trained." in page


def test_a_replay_that_was_interrupted_ends_as_an_unbroken_one(donor, tmp_path, call):
    space, run_dir = donor
    words = ["run", "--space", space, "--replay-of", run_dir, "--strategies", ",".join(STRATEGIES)]
    assert call(*words, "--out", tmp_path / "whole")[0] == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    ledger = tmp_path / "broken" / "ledger.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(lines[: len(lines) // 2]))
    assert call("resume", tmp_path / "broken")[0] == 0
    assert (tmp_path / "broken" / "trials.csv").read_text() == (tmp_path / "whole" / "trials.csv").read_text()


def test_one_training_that_is_looked_up_often_is_no_evidence_of_many(donor, tmp_path, call):
    space, run_dir = donor
    words = ["run", "--space", space, "--replay-of", run_dir, "--strategies", "exhaustive,fractional", "--seeds", 8]
    assert call(*words, "--out", tmp_path / "many")[0] == 0
    view = build_view(read_run(tmp_path / "many"))
    assert all(len(contender.trained) <= 2 for contender in view.contenders)  # as many as were trained
    said = str(verdict_of(view))
    assert "look up the same trainings again: they carry no interval, probability or test" in said
    assert "95 % interval" not in said
    assert "Wilcoxon" not in said
    code, _, err = call("compare", tmp_path / "many", run_dir, "--out", tmp_path / "compare.html")
    assert code == 2
    assert "many looked theirs up in another run" in err


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (["recipe.steps=9"], "recipe.steps"),
        (["image_size=[64,64]"], "image_size"),
        (["data.rendered=[14,6,6]"], "data"),
    ],
)
def test_trainings_of_another_recipe_or_other_data_are_not_taken_for_these(donor, tmp_path, changes, named):
    space, run_dir = donor
    request = Request(str(space), replay=str(run_dir), changes=tuple(changes))
    with pytest.raises(SpaceError, match=f"differ from those of this search in .*{named}"):
        planned(request, tmp_path)


def test_what_strategies_may_try_may_differ(donor, tmp_path):
    space, run_dir = donor
    request = Request(str(space), replay=str(run_dir), changes=("reference=2", "f_search=[0.5,2.0]"), budget="9x")
    assert planned(request, tmp_path).trainings.table.run.directory == run_dir


def test_a_replay_goes_with_no_confirmation_no_own_training_and_no_missing_run(donor, tmp_path, call):
    with pytest.raises(SpaceError, match="a replay trains nothing"):
        check_request(Request("helen", replay="", confirm=1))
    with pytest.raises(RunDirectoryError, match="nowhere"):
        planned(Request(str(donor[0]), replay=str(tmp_path / "nowhere")), tmp_path)
    told = call("run", "--train", "a.py:train", "--backbone", "a.py:make", "--input", "3x8x8", "--replay")
    wrong(told, "--replay goes with built-in trainings")


def test_a_space_without_shipped_trainings_says_which_have_some(donor, tmp_path):
    with pytest.raises(SpaceError, match=r"no trainings of space 'toy' are shipped; there are some of .*helen"):
        planned(Request(str(donor[0]), replay=""), tmp_path)


def test_the_shipped_trainings_of_helen_replay_in_seconds(tmp_path, call):
    began = time.perf_counter()
    strategies = "exhaustive,random,optuna,inflation@bi,fractional"
    told = call("run", "--space", "helen", "--replay", "--strategies", strategies, "--out", tmp_path / "run")
    assert told[0] == 0, told
    trials = pd.read_csv(tmp_path / "run" / "trials.csv")
    assert set(trials.status) <= {"completed", "pruned", "cut"}
    assert len(trials) > 30
    assert trials.val.notna().mean() > 0.5
    assert time.perf_counter() - began < 120


def test_a_replay_without_a_space_takes_that_of_the_run(donor, tmp_path, call):
    _, run_dir = donor
    code, _, err = call("run", "--replay-of", run_dir, "--strategies", "exhaustive", "--budget", "4x", "--out", "run")
    assert code == 0, err
    again, before = (read_run(folder).manifest for folder in (tmp_path / "run", run_dir))
    assert again.image_space.recipe == before.image_space.recipe
    assert again.request.strategies == ("exhaustive",)


def test_what_is_asked_for_besides_counts_in_a_replay_without_a_space(donor, tmp_path, call):
    words = ["plan", "--replay-of", donor[1], "--strategies", "exhaustive", "--objectives", "val,infer_mac"]
    code, out, err = call(*words, "--json")
    assert code == 0, err
    assert any(notice.startswith("Besides the score") for notice in json.loads(out)["notices"])
    wrong(call("plan", "--replay-of", donor[1], "--set", "recipe.steps=3"), "differ from those of this search")


def test_no_search_goes_by_a_cost_that_the_trainings_do_not_have(tmp_path, call):
    words = ["plan", "--space", "helen", "--replay", "--strategies", "exhaustive"]
    told = call(*words, "--objectives", "val,infer_mac,infer_latency_ms")
    wrong(told, "infer_latency_ms is not known", "Go by another cost, such as infer_mac")


def test_a_run_with_a_directory_of_its_own_leaves_none_besides(donor, tmp_path, call):
    call("run", "--replay-of", donor[1], "--out", "mine")
    assert not (tmp_path / "runs").exists()


def test_a_whole_dilation_that_was_not_trained_is_no_other_one(run):
    table = table_of(run, made(Dilated(4)), made(Inflated(4, 1.0, learned=True)))
    assert table.training_of(assigned(Dilated(6))) is None
    assert table.training_of(assigned(Inflated(6, 1.0, learned=True))) is None
    assert table.training_of(assigned(Inflated(6, 1.2))).candidate == Candidate({"conv": Dilated(4)}).to_json()
