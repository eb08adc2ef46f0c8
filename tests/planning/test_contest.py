"""The contest: equal budgets kept, whatever trials cost, and a resumed contest that goes on where it was."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from rfsearch import plugins
from rfsearch.choices import Candidate, Dilated, inflated
from rfsearch.errors import ModelError, StrategyError
from rfsearch.ledger import Assignment, Budget, Cost, Journal, Record, incumbent, read_history
from rfsearch.ledger.journal import LEDGER_FILE
from rfsearch.planning.contest import Arm, Contest
from rfsearch.planning.forecast import Forecast
from rfsearch.space import read_space
from rfsearch.strategies import Description, Exhausted, Heir
from rfsearch.strategies.guard import Guarded
from rfsearch.strategies.listed import Listed
from tests.growth import lines_run

SPACE = read_space(plugins.space_file("helen"), None)
FULL = 100.0


def forecast(candidate: Candidate) -> Forecast:
    return Forecast(
        Cost(FULL, 10.0, 1.0), least=Cost(3.0, 0.3, 0.03), stretch=Cost(25.0, 2.5, 0.25), peak_bytes=1, rf_px=50
    )


def guarded(name: str) -> Guarded:
    return Guarded(name, plugins.load("strategies", name)(SPACE, 0))


def contest(run_dir: Path, names=("exhaustive", "optuna", "inflation"), budget: float = 750.0) -> Contest:
    run_dir.mkdir(exist_ok=True)
    journal = Journal(run_dir)
    arms = [Arm(guarded(name), 0, Budget(f"{budget}flop", "flop", budget)) for name in names]
    return Contest(arms, journal, read_history(run_dir), forecast, SPACE.reference_candidate)


def trained(assignment: Assignment, full: float = FULL, status: str = "completed") -> Record:
    """A training that costs `full` FLOP, and is cut at its limit as real ones are."""
    candidate = Candidate.from_json(assignment.candidate)
    cut = full > assignment.limit
    return Record(
        trial=assignment.trial,
        strategy=assignment.strategy,
        seed=assignment.seed,
        status="cut" if cut else status,
        candidate=assignment.candidate,
        rf_px=50,
        rf_init_px=50,
        cost=Cost(min(full, assignment.limit), 10.0, 1.0),
        val=None if status == "failed" else 1 / (1 + abs(candidate.sites[0][1][0].choice.whole_dilation - 4)),
        train_seed=assignment.train_seed,
        cause="broken" if status == "failed" else "",
    )


def play(game: Contest, workers: int = 1, full: float = FULL, most: int = 10**6) -> list[Record]:
    """Run trials `workers` at a time, each batch finishing in reverse order."""
    records: list[Record] = []
    while not game.done and len(records) < most:
        batch = [a for a in (game.next() for _ in range(workers)) if a is not None]
        assert batch, "a contest that is not done hands something out once nothing is in training"
        records += [game.finish(trained(a, full)) for a in reversed(batch)]
    return records


def spent(records: list[Record], name: str) -> float:
    return sum(r.cost.flop for r in records if r.strategy == name)


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("full", [100.0, 93.0, 260.0])
def test_every_arm_spends_its_budget_and_no_more(tmp_path, workers, full):
    records = play(contest(tmp_path), workers, full)
    for name in ("exhaustive", "optuna", "inflation"):
        # Trials that cost more than forecast can overshoot only where several were in training at once.
        most = 750.0 if workers == 1 or full <= FULL else 750.0 + workers * full
        assert 0.97 * 750 <= spent(records, name) <= most


@pytest.mark.parametrize("workers", [2, 3])
def test_what_trainings_cost_over_their_forecast_is_reserved_for_the_next(tmp_path, workers):
    """A learned factor makes them dearer. Those that are in training beside them must leave it room."""
    records = play(contest(tmp_path, ("inflation",)), workers, full=130.0)
    assert 0.97 * 750 <= spent(records, "inflation") <= 750
    resumed = contest(tmp_path, ("inflation",))
    assert [arm.excess for arm in resumed.arms] == [1.3]


def test_trials_in_training_have_their_share_reserved(tmp_path):
    game = contest(tmp_path, ("exhaustive",), budget=250.0)
    first, second = game.next(), game.next()
    assert (first.limit, second.limit) == (250.0, 150.0)
    game.finish(trained(first, full=20.0, status="pruned"))
    assert game.next().limit == pytest.approx(130.0)  # 250 - 20 spent - 100 reserved


def test_a_trial_that_would_be_cut_waits_for_those_in_training(tmp_path):
    game = contest(tmp_path, ("exhaustive",), budget=150.0)
    first = game.next()
    assert game.next() is None
    assert not game.done
    game.finish(trained(first, full=20.0, status="pruned"))
    assert game.next().limit == pytest.approx(130.0)


def test_while_one_arm_waits_the_next_begins(tmp_path):
    game = contest(tmp_path, ("exhaustive", "optuna"), budget=150.0)
    assert [game.next().strategy, game.next().strategy] == ["exhaustive", "optuna"]


@pytest.mark.parametrize("workers", [1, 3])
def test_arms_take_turns_so_that_none_waits_for_another_to_end(tmp_path, workers):
    records = play(contest(tmp_path), workers)
    counts = dict.fromkeys(("exhaustive", "optuna", "inflation"), 0)
    for number, record in enumerate(records, start=1):
        counts[record.strategy] += 1
        if number % workers == 0:
            assert max(counts.values()) - min(counts.values()) <= 1


def test_a_candidate_that_cannot_be_forecast_is_handed_out_all_the_same(tmp_path):
    def blind(candidate):
        if candidate != SPACE.reference_candidate:
            raise ModelError("no forecast")
        return forecast(candidate)

    arm = Arm(guarded("exhaustive"), 0, Budget("x", "flop", 300.0))
    game = Contest([arm], Journal(tmp_path), read_history(tmp_path), blind, SPACE.reference_candidate)
    records = play(game)
    assert len(records) >= 3


def test_a_pruned_or_failed_trial_is_charged(tmp_path):
    game = contest(tmp_path, ("optuna",), budget=200.0)
    game.finish(trained(game.next(), full=70.0, status="failed"))
    assert game.next().limit == pytest.approx(130.0)


def test_names_are_unique_and_a_repeat_gets_a_fresh_training_seed(tmp_path):
    records = play(contest(tmp_path, ("exhaustive",), budget=1200.0))
    assert len({r.trial for r in records}) == len(records)
    assert len({(r.candidate, r.train_seed) for r in records}) == len(records)


def test_the_same_candidate_has_the_same_training_seed_in_every_arm(tmp_path):
    records = play(contest(tmp_path, ("exhaustive", "optuna")))
    reference = SPACE.reference_candidate.to_json()
    seeds = {r.strategy: r.train_seed for r in reversed(records) if r.candidate == reference}
    assert seeds["exhaustive"] == seeds["optuna"]


@pytest.mark.parametrize("finished", range(0, 24, 3))
def test_resumed_after_any_number_of_trials_it_ends_the_same(tmp_path, finished):
    whole = play(contest(tmp_path / "whole"))
    half = contest(tmp_path / "half")
    play(half, most=finished)
    if not half.done:
        half.next()  # handed out, never finished: the interrupt
    play(contest(tmp_path / "half"))
    resumed = list(read_history(tmp_path / "half").records.values())
    assert resumed == whole


def test_a_model_that_always_fails_does_not_go_on_for_ever(tmp_path):
    game = contest(tmp_path, ("random",))
    for _ in range(5):
        game.finish(trained(game.next(), full=0.0, status="failed"))
    assert game.done
    assert "broken" in game.arms[0].exhausted


def test_the_incumbent_is_the_best_scored_trial_over_all_arms(tmp_path):
    game = contest(tmp_path)
    records = play(game)
    assert game.best.val == max(r.val for r in records)


def test_of_equal_trials_the_one_that_finished_first_leads_whichever_arm_it_is_of(tmp_path):
    game = contest(tmp_path, ("exhaustive", "optuna"), budget=150.0)
    waiting = [game.next(), game.next()]
    assert [assignment.strategy for assignment in waiting] == ["exhaustive", "optuna"]
    finished = [game.finish(replace(trained(assignment), val=0.5)) for assignment in reversed(waiting)]
    assert game.best == incumbent(finished, "maximize") == finished[0]
    assert contest(tmp_path, ("exhaustive", "optuna"), budget=150.0).best == finished[0]


def test_only_a_strategy_that_prunes_is_asked(tmp_path):
    game = contest(tmp_path)
    record = trained(Assignment("exhaustive-0-000", "exhaustive", 0, SPACE.reference_candidate.to_json(), 0, 1.0))
    assert game.keep(replace(record, status="pruned"))


class Handing:
    """Two members at dilations 1 and 2; then both go on from the first one, at dilations 1 and 1; then at 1 and 2."""

    def __init__(self):
        self.told, self.room = [], None

    def describe(self):
        return Description(fewest=2)

    def allot(self, room):
        self.room = room

    def suggest(self, pending):
        number = len(self.told) + len(pending)
        if number == 6:
            return Exhausted("three rounds are enough")
        if number < 2:
            return SPACE.uniform(Dilated(number + 1))
        if len(self.told) < number // 2 * 2:
            return Exhausted("the round before is in training")
        return Heir(SPACE.uniform(Dilated((1, 1, 1, 2)[number - 2])), f"handing-0-{number // 2 * 2 - 2:03d}")

    def observe(self, record):
        self.told.append(record.trial)

    def prune(self, candidate, rungs):
        return True

    @property
    def awaited(self):
        return self.told[-2:]


def handing(run_dir: Path, budget: float = 500.0, strategy: Handing | None = None) -> Contest:
    arm = Arm(Guarded("handing", strategy or Handing()), 0, Budget(f"{budget}flop", "flop", budget))
    return Contest([arm], Journal(run_dir), read_history(run_dir), forecast, SPACE.reference_candidate)


def test_heirs_are_handed_out_and_resumed_with_their_parents(tmp_path):
    game, seen = handing(tmp_path), []
    for _ in range(2):
        seen += [game.next(), game.next()]
        assert game.next() is None  # what comes next depends on what is in training
        assert not game.done
        for assignment in seen[-2:]:
            game.finish(trained(assignment, full=25.0, status="pruned"))
    assert [a.heir_of for a in seen] == ["", "", "handing-0-000", "handing-0-000"]
    last = game.next()
    assert (last.trial, last.heir_of) == ("handing-0-004", "handing-0-002")
    assert handing(tmp_path).next() == last  # interrupted
    assert read_history(tmp_path).assignments[last.trial] == last


@pytest.mark.parametrize("parent", ["../../elsewhere", "/elsewhere", "handing-0-007", "another-0-000"])
def test_an_heir_of_no_trial_of_its_arm_is_the_strategys_fault(tmp_path, parent):
    class Straying(Handing):
        def suggest(self, pending):
            return Heir(SPACE.reference_candidate, parent)

    with pytest.raises(StrategyError, match=f"strategy handing: an heir goes on .* Got '{parent}'"):
        handing(tmp_path, strategy=Straying()).next()
    assert read_history(tmp_path).assignments == {}


def test_a_strategy_at_its_end_is_done_when_resumed_too(tmp_path):
    game = handing(tmp_path)
    while (assignment := game.next()) is not None:
        assert not handing(tmp_path).done
        game.finish(trained(assignment, full=25.0, status="pruned"))
        assert handing(tmp_path).done == (assignment.trial == "handing-0-005")
    before = (tmp_path / LEDGER_FILE).read_bytes()
    assert handing(tmp_path).arms[0].exhausted == "three rounds are enough"
    assert (tmp_path / LEDGER_FILE).read_bytes() == before


def test_the_first_heir_at_its_parents_candidate_keeps_its_seed_and_no_other(tmp_path):
    game, seen = handing(tmp_path), []
    while (assignment := game.next()) is not None:
        seen.append(assignment)
        game.finish(trained(assignment, full=25.0, status="pruned"))
    given = [(Candidate.from_json(a.candidate).sites[0][1][0].choice.whole_dilation, a.train_seed) for a in seen]
    # Round by round; 1 is handed on by its own seed, a second heir at 1 gets a fresh one, and 2 is no more repeated.
    assert given == [(1, 0), (2, 0), (1, 0), (1, 2), (1, 0), (2, 1)]


def test_of_those_that_hand_on_a_stretch_and_its_scoring_are_reserved(tmp_path):
    game = handing(tmp_path, budget=250.0)
    first, second = game.next(), game.next()
    assert (first.limit, second.limit) == (250.0, 250.0 - (25.0 + 3.0))


def test_what_heirs_go_on_from_is_needed_until_they_are_back_and_none_is_to_come(tmp_path):
    game = handing(tmp_path)
    begun = [game.next(), game.next()]
    for assignment in begun:
        game.finish(trained(assignment, full=25.0, status="pruned"))
    assert game.parents == {"handing-0-000", "handing-0-001"}
    heirs = [game.next(), game.next()]
    game.finish(trained(heirs[1], full=25.0, status="pruned"))
    assert game.parents == {"handing-0-000", "handing-0-001", "handing-0-003"}
    # All that is left is reserved for the one in training: what it will not need is for heirs to come.
    tight = handing(tmp_path, budget=105.0)
    assert tight.next() == heirs[0]
    assert "handing-0-003" in tight.parents
    tight.finish(trained(heirs[0], full=30.0))
    assert tight.parents == set()


def test_a_strategy_is_told_how_many_full_trainings_its_budget_has_room_for(tmp_path):
    strategy = Handing()
    handing(tmp_path, budget=399.0, strategy=strategy)
    assert [strategy.room(Cost(spent)) for spent in (0.0, 99.0, 100.0, 399.0, 500.0)] == [3, 3, 2, 0, 0]


def test_of_an_heir_no_full_training_is_forecast(tmp_path):
    game = handing(tmp_path)
    records = []
    for _ in range(3):
        assignment = game.next()
        record = replace(trained(assignment, full=25.0, status="pruned"), heir_of=assignment.heir_of)
        records.append(game.finish(record))
    assert [r.forecast for r in records] == [Cost(FULL, 10.0, 1.0)] * 2 + [None]
    assert {r.forecast_peak_bytes for r in records} == {1}


def drawn(count: int) -> list[Candidate]:
    return [SPACE.uniform(inflated(1, 1 + i / 10_000)) for i in range(count)]


@pytest.mark.parametrize("kind", ["random", "listed"])
def test_the_work_of_handing_out_and_of_resuming_grows_as_the_trials_do(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("rfsearch.ledger.journal.os.fsync", lambda _: None)

    def game(count: int) -> Contest:
        strategy = Listed(drawn(count)) if kind == "listed" else plugins.load("strategies", kind)(SPACE, 0)
        budget = Budget("flop", "flop", FULL * count)
        folder = tmp_path / str(count)
        folder.mkdir(exist_ok=True)
        arm = Arm(Guarded(kind, strategy), 0, budget)
        return Contest([arm], Journal(folder), read_history(folder), forecast, SPACE.reference_candidate)

    played = [lines_run(lambda count=count: play(game(count))) for count in (60, 240)]
    resumed = [lines_run(lambda count=count: game(count)) for count in (60, 240)]
    assert played[1] < 4.4 * played[0]
    assert resumed[1] < 4.4 * resumed[0]


class Brief:
    """One candidate, and then nothing."""

    def __init__(self):
        self.tried = 0

    def suggest(self, pending):
        return Exhausted("one is enough") if self.tried or pending else SPACE.reference_candidate

    def observe(self, record):
        self.tried += 1


@pytest.mark.parametrize(
    ("strategy", "budget", "status", "why"),
    [
        (Brief, 300.0, "completed", "one is enough"),
        (lambda: plugins.load("strategies", "random")(SPACE, 0), 102.0, "completed", "less than the shortest training"),
        (lambda: plugins.load("strategies", "random")(SPACE, 0), 900.0, "failed", "its last 5 trials failed, .*broken"),
        (lambda: plugins.load("strategies", "random")(SPACE, 0), 200.0, "completed", None),
    ],
)
def test_an_arm_that_leaves_budget_unspent_says_why_once_in_the_ledger(tmp_path, strategy, budget, status, why):
    def game():
        arm = Arm(Guarded("mine", strategy()), 3, Budget(f"{budget}flop", "flop", budget))
        return Contest([arm], Journal(tmp_path), read_history(tmp_path), forecast, SPACE.reference_candidate)

    first = game()
    while (assignment := first.next()) is not None:
        assert read_history(tmp_path).ends == {}
        first.finish(trained(assignment, status=status))
    ends = read_history(tmp_path).ends
    assert set(ends) == ({("mine", 3)} if why else set())
    assert why is None or re.search(why, ends["mine", 3])
    before = (tmp_path / LEDGER_FILE).read_bytes()
    assert game().done
    assert (tmp_path / LEDGER_FILE).read_bytes() == before
    # What a process wrote that was killed before it came to that is made up for.
    lines = [line for line in before.splitlines(keepends=True) if b'"end"' not in line]
    (tmp_path / LEDGER_FILE).write_bytes(b"".join(lines))
    assert game().done
    assert read_history(tmp_path).ends == ends


def test_a_candidate_that_could_not_begin_to_train_is_not_handed_out_and_ends_its_arm(tmp_path):
    """Its first step costs more than is left, where that of the hand default would fit."""

    def dearer(candidate: Candidate) -> Forecast:
        found = forecast(candidate)
        return found if candidate == SPACE.reference_candidate else replace(found, entry=Cost(60.0, 0.3, 0.03))

    def game():
        listed = Listed([SPACE.reference_candidate, SPACE.uniform(Dilated(4)), SPACE.uniform(Dilated(2))])
        arm = Arm(Guarded("mine", listed), 0, Budget("250flop", "flop", 250.0))
        return Contest([arm], Journal(tmp_path), read_history(tmp_path), dearer, SPACE.reference_candidate)

    first = game()
    while (assignment := first.next()) is not None:
        first.finish(trained(assignment))
    assert first.done
    assert len(read_history(tmp_path).records) == 2  # 50 are left
    assert "less than its next candidate needs to begin" in read_history(tmp_path).ends["mine", 0]
    assert game().done


class Raising:
    """A strategy one of whose methods fails."""

    def __init__(self, method):
        self.method = method

    def _fail(self, method):
        if method == self.method:
            raise LookupError("no such row")

    def suggest(self, pending):
        self._fail("suggest")
        return SPACE.reference_candidate

    def observe(self, record):
        self._fail("observe")

    def prune(self, candidate, rungs):
        self._fail("prune")


@pytest.mark.parametrize("method", ["suggest", "observe", "prune"])
def test_what_a_strategy_raises_names_it_and_its_method_and_loses_no_record(tmp_path, method):
    def game(strategy):
        arm = Arm(Guarded("mine", strategy), 0, Budget("300flop", "flop", 300.0))
        return Contest([arm], Journal(tmp_path), read_history(tmp_path), forecast, SPACE.reference_candidate)

    def played(first):
        record = trained(first.next())
        first.keep(replace(record, status="pruned"))
        first.finish(record)

    message = rf"strategy mine: {method}\(.*failed with LookupError: no such row. Raised in .*test_contest.py, line"
    with pytest.raises(StrategyError, match=message):
        played(game(Raising(method)))
    assert len(read_history(tmp_path).records) == (method == "observe")
    play(game(Brief()) if method == "observe" else game(Raising("")))
    assert len(read_history(tmp_path).records) >= 1
