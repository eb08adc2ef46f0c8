"""What Tune's searcher hands back for trials whose workers died."""

import pytest

from rfsearch import plugins
from rfsearch.ledger import Budget, Cost, Journal, read_history
from rfsearch.orchestration.searcher import ContestSearcher
from rfsearch.orchestration.watchdog import LAST_WORDS
from rfsearch.planning.contest import Arm, Contest
from rfsearch.planning.forecast import Forecast
from rfsearch.strategies.guard import Guarded
from tests.toys import helen_space


def died_twice(folder, limit):
    """Return the record of a trial whose two workers died, one of them with last words."""
    space, records = helen_space(), []
    strategy = Guarded("exhaustive", plugins.load("strategies", "exhaustive")(space, 0))
    full = Forecast(Cost(100.0, 1.0, 1.0), Cost(1.0, 0.1, 0.1), Cost(25.0, 0.3, 0.3), peak_bytes=1, rf_px=50)
    arm = Arm(strategy, 0, Budget(f"{limit}flop", "flop", limit))
    contest = Contest([arm], Journal(folder), read_history(folder), lambda _: full, space.reference_candidate)
    searcher = ContestSearcher(contest, 1, records.append, folder, "flop")
    given = searcher.suggest("tune-1")
    searcher.began("tune-1")
    searcher.note_death("tune-1", None)
    searcher.miss("tune-1")
    words = folder / "checkpoints" / given["trial"] / LAST_WORDS
    words.parent.mkdir(parents=True)
    words.write_text("Fatal Python error: Bus error\n")
    searcher.note_death("tune-1", None)
    searcher.on_trial_complete("tune-1", error=True)
    assert searcher.fault is None
    return records[0]


@pytest.mark.parametrize(("limit", "charged"), [(1000.0, 2 * 26.0), (40.0, 40.0)])
def test_what_two_dead_workers_did_is_charged_up_to_the_limit(tmp_path, limit, charged):
    record = died_twice(tmp_path, limit)
    assert record.status == "failed"
    assert record.cost.flop == pytest.approx(charged)
    assert record.cost.epochs == pytest.approx(2 * 0.4)


def test_the_cause_is_that_of_the_last_death(tmp_path):
    cause = died_twice(tmp_path, 1000.0).cause
    assert cause == "its worker process died, and died again when retried: it crashed: Bus error"
