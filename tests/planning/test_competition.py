"""An engine of a few lines holds a whole contest: what `Engine` asks of one is enough."""

import torch

from rfsearch.ledger import Request, read_run
from rfsearch.planning.competition import compete, contest_of
from rfsearch.planning.directory import start_run
from rfsearch.training import Order
from tests.planned import planned
from tests.toys import toy_file


class OneAtATime:
    """The example of `Engine`."""

    workers = 1

    def run(self, contest, trainings, run_dir, currency, watch, check):
        while (assignment := contest.next()) is not None:
            folder, step = run_dir / "checkpoints" / assignment.trial, contest.first_step(assignment)
            training = trainings.begin(Order(assignment, currency, torch.device("cpu"), folder, step=step))
            while (record := training.advance()).status == "pruned":
                check()
                watch(record)
                if not contest.keep(record):
                    break
            training.close()
            watch(contest.finish(record))


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
    assert len(checks) == len([record for record in seen if record.status == "pruned"]) > 0
    leaders = {arm.best.trial for arm in contest.arms if arm.best}
    assert {folder.name for folder in (run_dir / "checkpoints").iterdir()} == leaders
