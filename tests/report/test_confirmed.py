"""What is trained again, and what a report then says: of constructed ledgers, and of a run that was."""

import json
import shutil

import pandas as pd
import pytest
import torch

from rfsearch.choices import Candidate, Dilated, Fractional
from rfsearch.ledger import Assignment, Journal, Record, read_history, read_run
from rfsearch.ledger.links import CONFIRMATION
from rfsearch.ledger.run_directory import LEDGER_FILE
from rfsearch.ledger.typed_json import sound
from rfsearch.planning.plan import load_data
from rfsearch.report import summarise
from rfsearch.report.confirmed import best_outcomes
from rfsearch.report.page import write
from rfsearch.report.view import build_view
from rfsearch.training import Order, Training
from tests.report.made_up import MakeRun, record
from tests.report.test_decision import NOISE, found, lead, trained
from tests.small_run import run_in_process, train_in_process
from tests.toys import toy_file

CPU = torch.device("cpu")


def again(dilation: float, level: float, times: int = 4) -> list[Record]:
    choice = Dilated(int(dilation)) if float(dilation).is_integer() else Fractional(dilation)
    return [
        record(f"confirmed-{1000 + i}-{dilation}", val=level + NOISE[i], test=level + NOISE[i], seed=1000 + i,
               train_seed=1_000_000 + 1000 * i, strategy="confirmed", candidate=Candidate({"conv6": choice}).to_json())
        for i in range(times)
    ]  # fmt: skip


def confirmed(make_run: MakeRun, searched: list[list[Record]], confirmations: list[list[Record]]):
    run = make_run([r for group in searched for r in group])
    folder = run.directory / CONFIRMATION
    folder.mkdir()
    journal = Journal(folder)
    for one in (r for group in confirmations for r in group):
        journal.start(Assignment(one.trial, one.strategy, one.seed, one.candidate, one.train_seed, 1e30))
        journal.finish(one)
    return read_run(run.directory)


def test_the_recommended_outcome_the_next_best_and_the_default_are_trained_again(make_run):
    view = build_view(make_run([*trained(1, 0.6), *trained(4, 0.70), *trained(8, 0.65), *found(3.5, 0.72, times=1)]))
    in_order = [Candidate({"conv6": choice}) for choice in (Fractional(3.5), Dilated(4), Dilated(8), Dilated(1))]
    assert best_outcomes(view, 2) == [in_order[0], in_order[1], in_order[3]]
    assert best_outcomes(view, 99) == in_order


def test_where_nothing_was_scored_nothing_is_trained_again(make_run):
    assert best_outcomes(build_view(make_run([])), 3) == []


def test_scores_are_those_of_the_confirmation_and_so_is_the_decision(make_run):
    """Dilation 8 was lucky in the search."""
    searched = [trained(1, 0.6), trained(4, 0.70, times=1), trained(8, 0.74, times=1)]
    given = confirmed(make_run, searched, [again(8, 0.68), again(4, 0.71), again(1, 0.61)])
    verdict = summarise(given)
    assert lead(verdict).startswith("Use dilation 4 at conv6")
    assert "3 outcomes of this run were trained again" in lead(verdict)
    assert "4 seeds each that chose nothing" in lead(verdict)
    assert "That cost 12.0 TFLOP (12.0× one reference training) and 6 min 00 s of device time" in lead(verdict)
    assert "The search alone would have recommended dilation 8 at conv6, which did not hold up." in lead(verdict)
    assert "0.10 better on the test images: more than noise" in lead(verdict)
    scores = [0.71 + NOISE[i] for i in range(4)]
    assert f"It scored {sum(scores) / 4:.3f} (mean of 4" in str(verdict)
    assert "It scored 0.7" in str(verdict)
    assert "0.740" not in str(verdict)


def test_what_cannot_be_told_apart_is_not_said_to_fail(make_run):
    searched = [trained(1, 0.6), trained(4, 0.70), found(3.5, 0.75)]
    verdict = summarise(confirmed(make_run, searched, [again(3.5, 0.705), again(4, 0.71), again(1, 0.6)]))
    assert lead(verdict).startswith("Use dilation 4 at conv6")
    assert "cannot be told apart" in lead(verdict)
    assert "would have recommended dilation 3.5, found in training, at conv6." in lead(verdict)


def test_what_holds_up_is_not_said_to_fail(make_run):
    searched = [trained(1, 0.6), trained(4, 0.70, times=1)]
    verdict = summarise(confirmed(make_run, searched, [again(4, 0.70), again(1, 0.6)]))
    assert lead(verdict).startswith("Use dilation 4 at conv6")
    assert "did not hold up" not in str(verdict)


def test_the_default_wins_where_nothing_else_holds_up(make_run):
    verdict = summarise(
        confirmed(make_run, [trained(4, 0.70, times=1), trained(1, 0.6, times=1)], [again(4, 0.5), again(1, 0.6)])
    )
    assert lead(verdict).startswith("Keep the hand default")


def test_an_outcome_of_longer_trainings_is_compared_at_one_length(make_run):
    verdict = summarise(confirmed(make_run, [trained(1, 0.6), found(3.5, 0.75)], [again(3.5, 0.72), again(1, 0.6)]))
    assert "The trainings differ in length" not in str(verdict)
    assert "0.12 better" in str(verdict)


def test_a_default_that_only_the_confirmation_trained_is_compared_with(make_run):
    verdict = summarise(confirmed(make_run, [found(3.5, 0.75)], [again(3.5, 0.72), again(1, 0.6)]))
    assert "has no scored trial" not in str(verdict)
    assert "0.12 better" in str(verdict)
    none_else = summarise(confirmed_again(make_run, [again(3.5, 0.5), again(1, 0.6)]))
    assert lead(none_else).startswith("Keep the hand default")


def confirmed_again(make_run, confirmations):
    run = make_run([])
    (run.directory / CONFIRMATION / LEDGER_FILE).unlink()
    (run.directory / CONFIRMATION).rmdir()
    return confirmed(make_run, [], confirmations)


def test_the_page_shows_what_was_trained_again(make_run):
    run = confirmed(make_run, [trained(1, 0.6), trained(4, 0.70)], [again(4, 0.70), again(1, 0.6)])
    page = write(run.directory).read_text(encoding="utf-8")
    assert "Trained again" in page
    assert "confirmed.csv" in page
    table = pd.read_csv(run.directory / "confirmed.csv")
    assert len(table) == 8
    assert set(table.train_seed) == {1_000_000, 1_001_000, 1_002_000, 1_003_000}
    assert "Trained again" not in write_without(run)


def write_without(run):
    (run.directory / CONFIRMATION / LEDGER_FILE).unlink()
    return write(run.directory).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("confirmed")
    words = ["--space", toy_file(folder, budget="60x", steps=2), "--strategies", "exhaustive", "--gpus-per-trial", 0]
    run_in_process("run", *words, "--confirm", 1, "--out", folder / "run")
    return folder / "run"


def test_a_run_trains_its_best_again_with_seeds_of_their_own(finished_run, tmp_path):
    run = read_run(finished_run)
    outcomes = {c.to_json() for c in best_outcomes(build_view(run).without_confirmations, 1)}
    assert build_view(run).facts.reference in outcomes
    assert {r.candidate for r in run.confirmations} == outcomes
    assert len(run.confirmations) == 8
    assert not {r.train_seed for r in run.confirmations} & {r.train_seed for r in run.records}
    assert not (finished_run / CONFIRMATION / "checkpoints").exists()
    space = sound(run.manifest.resolved_space)
    one = run.confirmations[0]
    order = Order(Assignment("again", "s", 0, one.candidate, one.train_seed, 1e30), "flop", CPU, tmp_path / "again")
    training = Training(space, load_data(space, None, tmp_path), order)
    while (record := training.advance()).status == "pruned":
        pass
    assert (record.val, record.test, record.cost.flop) == (one.val, one.test, one.cost.flop)
    assert "trained again" in (finished_run / "report.html").read_text(encoding="utf-8")


def test_an_interrupted_confirmation_goes_on_and_a_later_one_may_ask_for_more(
    finished_run, call, monkeypatch, tmp_path
):
    whole = {(r.candidate, r.train_seed): r.val for r in read_run(finished_run).confirmations}
    again = tmp_path / "run"
    shutil.copytree(finished_run, again)
    ledger = again / CONFIRMATION / LEDGER_FILE
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(lines[: len(lines) // 2 + 1]))
    train_in_process(monkeypatch)
    code, _, err = call("resume", again)
    assert code == 0, err
    assert {(r.candidate, r.train_seed): r.val for r in read_run(again).confirmations} == whole
    assert "Nothing was left to train" in "".join(call("resume", again)[1:])
    code, _, err = call("resume", again, "--confirm", 3)
    assert code == 0, err
    more = {(r.candidate, r.train_seed): r.val for r in read_run(again).confirmations}
    assert whole.items() < more.items()
    assert len({candidate for candidate, _ in more}) == 3
    assert json.loads((again / "manifest.json").read_text())["request"]["confirm"] == 1
    assert len(read_history(again).records) == len(read_run(finished_run).records)


def test_a_number_that_is_none_is_refused(call):
    code, _, err = call("plan", "--space", "helen", "--confirm", "-1")
    assert code == 2
    assert "--confirm is the number of outcomes to train again" in err
