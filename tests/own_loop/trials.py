"""Single trials of a search in a user's own loop."""

from pathlib import Path

import torch

from rfsearch.choices import Candidate
from rfsearch.ledger import Assignment, Record, Request
from rfsearch.own_loop.loop_training import LoopTraining
from rfsearch.own_loop.planning import OwnCode, OwnPlan, make_own_plan
from rfsearch.surgery import install
from rfsearch.training import Order
from tests.own_loop import loops

CPU = torch.device("cpu")


def plan(train=loops.train, **changes) -> OwnPlan:
    code = OwnCode.of(train, changes.pop("model", loops.make_model))
    given = {"sites": ("2",), "dilations": (1, 2, 4, 6), "input_shape": loops.INPUT, "budget": "4x"} | changes
    request = Request(space="", **given)
    return make_own_plan(code, request, CPU)


def training(the_plan: OwnPlan, choice, folder: Path, limit: float = 1e30, currency: str = "flop") -> LoopTraining:
    candidate = choice if isinstance(choice, Candidate) else Candidate({"2": choice})
    order = Assignment("t", "s", 0, candidate.to_json(), 0, limit)
    step = the_plan.forecaster(candidate).step
    return the_plan.trainings.begin(Order(order, currency, CPU, folder / "t", step=step))


def finished(work: LoopTraining) -> Record:
    while (record := work.advance()).status == "pruned":
        pass
    work.close()
    return record


def completed(work: LoopTraining) -> Record:
    record = finished(work)
    assert record.status == "completed", record.cause
    return record


def interrupted(the_plan: OwnPlan, choice, folder: Path, reports: int) -> Record:
    """Return the record of a trial that is stopped behind a report and goes on in a training that begins anew."""
    broken = training(the_plan, choice, folder)
    for _ in range(reports):
        assert broken.advance().status == "pruned"
    broken.close()
    return completed(training(the_plan, choice, folder))


def kept_score(the_plan: OwnPlan, folder: Path) -> float:
    """Return the score that the weights which a trial kept have in a fresh model."""
    saved = torch.load(folder / "t" / "model.pt", weights_only=True)
    model = the_plan.make_network()
    install(model, Candidate.from_json(saved["candidate"]), the_plan.settings)
    model.load_state_dict(saved["model"])
    return loops.scorer(model)()
