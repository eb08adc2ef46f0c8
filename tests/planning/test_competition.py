"""An engine of a few lines holds a whole contest: what `Engine` asks of one is enough."""

from rfsearch.ledger import Request, read_run
from rfsearch.planning.competition import compete, contest_of
from rfsearch.planning.directory import start_run
from rfsearch.replay import OneAtATime
from tests.planned import planned
from tests.toys import toy_file


def test_an_engine_that_does_what_its_contract_asks_holds_a_contest_to_its_end(tmp_path):
    request = Request(space=str(toy_file(tmp_path, budget="3x", steps=4)), strategies=("exhaustive", "optuna"))
    plan, run_dir = planned(request, tmp_path), tmp_path / "run"
    run_dir.mkdir()
    start_run(plan, run_dir, "rfsearch run", 1, "cpu")
    contest, seen, checks = contest_of(plan, run_dir), [], []
    compete(plan, contest, run_dir, OneAtATime(), lambda record, _: seen.append(record), lambda: checks.append(1))
    assert contest.done
    records = read_run(run_dir).records
    assert {record.strategy for record in records} == {"exhaustive", "optuna"}
    assert [record.trial for record in seen if record.status != "pruned"] == [
        record.trial for record in records if record.status != "pruned"
    ]
    assert len(checks) == len(seen) > len(records)
    leaders = {arm.best.trial for arm in contest.arms if arm.best}
    assert {folder.name for folder in (run_dir / "checkpoints").iterdir()} == leaders
