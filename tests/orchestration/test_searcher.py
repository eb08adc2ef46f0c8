"""Trials whose workers die: handed out again, until it is their own doing, and charged for what was lost."""

import json

import pytest
from ray.exceptions import ActorUnavailableError, RayActorError

from rfsearch import plugins
from rfsearch.errors import RunDirectoryError
from rfsearch.ledger import Budget, Cost, Journal, Record, Rung, read_history
from rfsearch.ledger.files import write_whole
from rfsearch.ledger.journal import resume_command
from rfsearch.orchestration.disk import with_way_on
from rfsearch.orchestration.searcher import ContestSearcher
from rfsearch.orchestration.trainable import BLIND, FAULT
from rfsearch.orchestration.watchdog import LAST_WORDS
from rfsearch.planning.contest import Arm, Contest
from rfsearch.planning.forecast import Forecast
from rfsearch.strategies.guard import Guarded
from tests.disks import fill, small_disk
from tests.toys import helen_space

LEFT = RayActorError(error_msg="The actor died because its node has died. Node Id: 66da")
CUT_OFF = ActorUnavailableError("the connection is reset", b"0" * 16)


@pytest.fixture
def records() -> list:
    return []


@pytest.fixture
def searcher_of(tmp_path, records):
    """A searcher of one arm with a budget, whose steps to a rung cost 26 FLOP and 0.4 epochs at most."""

    def made(limit: float = 1000.0) -> ContestSearcher:
        space = helen_space()
        strategy = Guarded("exhaustive", plugins.load("strategies", "exhaustive")(space, 0))
        full = Forecast(Cost(100.0, 1.0, 1.0), Cost(1.0, 0.1, 0.1), Cost(25.0, 0.3, 0.3), peak_bytes=1, rf_px=50)
        arm = Arm(strategy, 0, Budget(f"{limit}flop", "flop", limit))
        contest = Contest([arm], Journal(tmp_path), read_history(tmp_path), lambda _: full, space.reference_candidate)
        return ContestSearcher(contest, lambda: 1, records.append, tmp_path, "flop")

    return made


def dies(searcher: ContestSearcher, name: str, error: BaseException | None = None, begun: bool = True) -> dict:
    """Hand out a trial as one of Tune's, whose worker dies, and return its configuration."""
    given = searcher.suggest(name)
    if begun:
        searcher.began(name)
    searcher.note_death(name, error)
    searcher.on_trial_complete(name, error=True)
    assert searcher.fault is None
    return given


@pytest.mark.parametrize(("limit", "charged"), [(1000.0, 2 * 26.0), (40.0, 40.0)])
def test_what_two_dead_workers_did_is_charged_up_to_the_limit(searcher_of, records, limit, charged):
    searcher = searcher_of(limit)
    first, second = (dies(searcher, name) for name in ("tune-1", "tune-2"))
    assert first["trial"] == second["trial"]
    assert (first["lost"]["tries"], second["lost"]["tries"]) == (0, 1)
    (record,) = records
    assert record.status == "failed"
    assert record.cost.flop == pytest.approx(charged)
    assert record.cost.epochs == pytest.approx(2 * 0.4)
    if limit > charged:
        assert searcher.suggest("tune-3")["trial"] != first["trial"]


def test_the_cause_is_that_of_the_last_death(searcher_of, records, tmp_path):
    searcher = searcher_of()
    given = dies(searcher, "tune-1")
    words = tmp_path / "checkpoints" / given["trial"] / LAST_WORDS
    words.parent.mkdir(parents=True)
    words.write_text("Fatal Python error: Bus error\n")
    dies(searcher, "tune-2")
    assert records[0].cause == "its worker process died, and died again when retried: it crashed: Bus error"


@pytest.mark.parametrize("error", [LEFT, CUT_OFF])
def test_a_trial_is_not_blamed_for_machines_that_leave(searcher_of, records, error):
    searcher = searcher_of()
    tried = [dies(searcher, f"tune-{number}", error)["trial"] for number in range(5)]
    dies(searcher, "tune-5")
    assert len({*tried}) == 1
    (record,) = records  # six deaths are enough, whatever they are of
    assert record.cost.flop == pytest.approx(6 * 26.0)


def test_a_worker_that_was_dead_before_it_began_has_cost_nothing(searcher_of, records):
    searcher = searcher_of()
    given = [dies(searcher, f"tune-{number}", begun=False) for number in range(3)]
    assert {trial["lost"]["tries"] for trial in given} == {0}
    given.append(dies(searcher, "tune-3"))
    assert not records
    given.append(dies(searcher, "tune-4"))
    assert len({trial["trial"] for trial in given}) == 1
    assert records[0].cost.flop == pytest.approx(2 * 26.0)


def test_a_trial_is_not_blamed_for_a_full_disk_of_rays(searcher_of, records, tmp_path, monkeypatch):
    searcher = searcher_of()
    with small_disk(tmp_path / "ray", "4m") as disk:
        monkeypatch.setattr("rfsearch.orchestration.searcher.session_folder", lambda: disk)
        fill(disk)
        for name in ("tune-1", "tune-2"):
            searcher.suggest(name)
            searcher.began(name)
            searcher.note_death(name, None)
            searcher.on_trial_complete(name, error=True)
    assert not records
    assert isinstance(searcher.fault, RunDirectoryError)
    assert f"Ray's folder: {disk}/.probe: cannot be written: No space left on device." in str(searcher.fault)
    assert str(searcher.fault).endswith(f"rfsearch resume {tmp_path}")


def test_the_cause_of_a_worker_that_was_stopped_is_its_silence(searcher_of, records):
    searcher = searcher_of()
    for name in ("tune-1", "tune-2"):
        searcher.suggest(name)
        searcher.began(name)
        searcher.note_silence(name, 450.0)
        searcher.note_death(name, RayActorError(error_msg="it was killed by `ray.kill`"))
        searcher.on_trial_complete(name, error=True)
    assert records[0].cause.endswith(
        "it was stopped, or stuck in a call of the system, and was ended after 7 min 30 s without a validation"
    )
    assert records[0].cost.flop == pytest.approx(2 * 26.0)


def at_rungs(given: dict, *flop: float) -> dict:
    """What a worker reports of a trial that has cost this much at each of its rungs."""
    rungs = [Rung(number, 0.5, {}, Cost(cost, 0.1, 0.1)) for number, cost in enumerate(flop, start=1)]
    record = Record(
        trial=given["trial"],
        strategy=given["strategy"],
        seed=given["seed"],
        status="pruned",
        candidate=given["candidate"],
        rf_px=50,
        rf_init_px=50,
        cost=rungs[-1].cost,
        val=0.5,
        rungs=tuple(rungs),
    )
    return {"record": json.dumps(record.to_json())}


def dead_behind_a_rung(searcher):
    """Let the first worker die once it has reported a rung; returns what it was given."""
    given = searcher.suggest("tune-1")
    searcher.began("tune-1")
    searcher.judge("tune-1", at_rungs(given, 25.0))
    searcher.note_death("tune-1", None)
    searcher.on_trial_complete("tune-1", error=True)
    return given


def test_a_trial_that_begins_again_and_is_pruned_is_charged_once(searcher_of, records, tmp_path):
    searcher = searcher_of()
    dead_behind_a_rung(searcher)
    again = searcher.suggest("tune-2")
    assert again["lost"]["tries"] == 1
    searcher.began("tune-2")
    anew = at_rungs(again, 25.0 + 26.0)  # with a damaged checkpoint: its worker has counted what was lost
    searcher.judge("tune-2", anew)
    searcher.on_trial_complete("tune-2", anew)
    (record,) = read_history(tmp_path).records.values()
    assert record.cost.flop == pytest.approx(51.0)


def test_a_rung_that_is_reported_again_does_not_forget_what_was_lost_after_it(searcher_of, records, tmp_path):
    searcher = searcher_of()
    given = dead_behind_a_rung(searcher)
    searcher.suggest("tune-2")
    searcher.began("tune-2")
    searcher.judge("tune-2", at_rungs(given, 25.0))
    searcher.on_trial_complete("tune-2", at_rungs(given, 25.0))
    (record,) = read_history(tmp_path).records.values()
    assert record.cost.flop == pytest.approx(25.0 + 26.0)


def test_a_trial_that_begins_again_and_again_fails(searcher_of, records):
    searcher = searcher_of()
    for number in range(4):
        name = f"tune-{number}"
        given = searcher.suggest(name)
        if not given["trial"].endswith("000"):
            break
        searcher.began(name)
        for rung in (1, 2):
            searcher.judge(name, at_rungs(given, *(25.0 * (number + 1) * one for one in range(1, rung + 1))))
        searcher.note_death(name, None)
        searcher.on_trial_complete(name, error=True)
    assert number == 2  # twice since it was as far as its second rung for the first time
    assert records[-1].status == "failed"


def test_what_keeps_a_machine_from_training_stops_the_run(searcher_of, tmp_path):
    for result, words in (
        ({FAULT: "progress.pt: cannot be written."}, "progress.pt: cannot be written. The run has stopped"),
        ({BLIND: "10.0.0.2"}, f"10.0.0.2 of the cluster cannot see {tmp_path}"),
    ):
        searcher = searcher_of()
        searcher.suggest("tune-1")
        searcher.on_trial_complete("tune-1", {**result, "done": True})
        assert words in str(searcher.fault)
        assert str(searcher.fault).endswith(f"rfsearch resume {tmp_path}")


def test_the_way_on_from_a_confirmation_is_that_of_its_run(tmp_path):
    write_whole(tmp_path / "run" / "manifest.json", "{}")
    write_whole(tmp_path / "confirmation" / "manifest.json", "{}")  # a run of that name
    assert resume_command(tmp_path / "run" / "confirmation") == f"rfsearch resume {tmp_path / 'run'}"
    assert resume_command(tmp_path / "confirmation") == f"rfsearch resume {tmp_path / 'confirmation'}"
    assert with_way_on("full.", tmp_path / "run" / "confirmation").endswith(f"rfsearch resume {tmp_path / 'run'}")
