"""A trial that several processes train together: the same arithmetic, everything charged, nothing lost."""

import os
import re
import signal
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import rfsearch
from rfsearch.choices import Candidate, Inflated
from rfsearch.errors import LostProcessError, RequestError, SpaceError
from rfsearch.ledger import Assignment, Request
from rfsearch.own_loop.loop_trainings import LoopTrainings
from rfsearch.own_loop.planning import OwnCode, own_space
from rfsearch.planning.request import check_request_in_general
from rfsearch.space import Length
from rfsearch.training import Order
from tests.own_loop import loops

CPU = torch.device("cpu")
EPOCHS, IMAGES, BATCH = 3, 32, 8


def train(trial, noise: float = 0.0, fault=None) -> None:
    """A usual loop, in any number of processes that share a batch: each takes every other image."""
    model = trial.prepare(loops.make_model())
    together = trial.world_size > 1
    trained = DistributedDataParallel(model) if together else model
    optimizer = torch.optim.SGD(trial.parameter_groups(trained, lr=0.02, momentum=0.9))
    data = TensorDataset(*loops.images(IMAGES, 0))
    sampler = DistributedSampler(data, shuffle=False) if together else None
    batches = DataLoader(data, BATCH // trial.world_size, sampler=sampler)
    score = loops.scorer(model)
    trial.attach(trained, optimizer)
    torch.manual_seed(trial.seed + trial.rank)
    for epoch in trial.epochs(EPOCHS):
        for x, y in batches:
            optimizer.zero_grad()
            nn.functional.mse_loss(trained(x + noise * torch.rand_like(x)), y).backward()
            optimizer.step()
        if fault and trial.rank == 1 and epoch == 1:
            fault()
        with trial.evaluating():
            trial.report(val=score() if trial.rank == 0 else 0.0)
    trial.finish(val=score() if trial.rank == 0 else 0.0)


def noisy(trial) -> None:
    train(trial, noise=0.1)


def raises(trial) -> None:
    def fault():
        raise ValueError("a bad image")

    train(trial, fault=fault)


def as_under_torchrun(trial) -> None:
    torch.distributed.init_process_group("gloo", rank=int(os.environ["RANK"]), world_size=int(os.environ["WORLD_SIZE"]))
    train(trial)
    torch.distributed.destroy_process_group()


def dies(trial) -> None:
    train(trial, fault=lambda: os.kill(os.getpid(), signal.SIGKILL))


def dies_once(trial) -> None:
    def fault():
        if not (mark := Path(os.environ["RFSEARCH_TEST_MARK"])).exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    train(trial, fault=fault)


def leaves_early(trial) -> None:
    if trial.rank:
        epochs = trial.epochs
        trial.epochs = lambda count: islice(epochs(count), 1)
    train(trial)


def begin(folder: Path, processes: int, function=train):
    request = Request(space="", sites=("2",), dilations=(1, 2, 4), input_shape=loops.INPUT, direction="maximize")
    length = Length(epochs=EPOCHS, steps=IMAGES // BATCH, train_flop=1, score_flop=0, end_flop=0, epoch_s=1, end_s=0)
    space = own_space(OwnCode.of(function, loops.make_model), request).with_(length=length)
    order = Assignment("t", "s", 0, Candidate({"2": Inflated(2, learned=True)}).to_json(), 0, 1e30)
    return LoopTrainings(space, function, processes).begin(Order(order, "flop", CPU, folder / "t"))


def finished(work):
    try:
        while (record := work.advance()).status == "pruned":
            pass
    finally:
        work.close()
    return record


def test_two_processes_do_what_one_does_with_their_images_together(tmp_path):
    one, two = finished(begin(tmp_path / "one", 1)), finished(begin(tmp_path / "two", 2))
    assert (one.status, two.status) == ("completed", "completed"), two.cause
    assert two.val == pytest.approx(one.val, rel=1e-4)
    assert [rung.f["2"] for rung in two.rungs] == pytest.approx([rung.f["2"] for rung in one.rungs], rel=1e-4)
    assert two.rungs[0].f["2"] != 1  # it learns
    assert (two.steps, two.rf_px, two.infer_mac) == (one.steps, one.rf_px, one.infer_mac)
    # Every image is charged once, the optimiser in each process, and evaluations where they ran.
    assert 1 < two.cost.flop / one.cost.flop < 1.02


@pytest.mark.slow
def test_killed_it_goes_on_as_an_unbroken_one(tmp_path):
    unbroken = finished(begin(tmp_path / "unbroken", 2, noisy))
    killed = begin(tmp_path / "killed", 2, noisy)
    assert [killed.advance().status for _ in range(2)] == ["pruned", "pruned"]
    killed.close()
    resumed = finished(begin(tmp_path / "killed", 2, noisy))
    assert resumed.val == unbroken.val
    assert resumed.rungs[-1].f == unbroken.rungs[-1].f
    assert resumed.cost.flop == pytest.approx(unbroken.cost.flop, rel=5e-3)  # the network is weighed once more
    assert finished(begin(tmp_path / "alone", 1, noisy)).val != pytest.approx(unbroken.val, rel=1e-4)  # noise matters


@pytest.mark.slow
def test_what_fails_in_another_process_fails_the_trial_with_its_cause_and_its_cost(tmp_path):
    record = finished(begin(tmp_path, 2, raises))
    assert record.status == "failed"
    assert re.search(r"in process 1 of 2: ValueError: a bad image \(test_group.py, line \d+, in fault\)", record.cause)
    assert record.cost.flop > record.rungs[0].cost.flop > 0


@pytest.mark.slow
def test_a_process_that_is_killed_is_told_from_a_training_that_fails(tmp_path):
    work = begin(tmp_path, 2, dies)
    assert work.advance().status == "pruned"
    with pytest.raises(LostProcessError, match="process 1 of the 2 that train it was ended by SIGKILL"):
        work.advance()
    work.close()


@pytest.mark.slow
def test_a_loop_may_make_and_destroy_its_process_group_as_under_torchrun(tmp_path):
    record = finished(begin(tmp_path, 2, as_under_torchrun))
    assert record.status == "completed", record.cause


@pytest.mark.slow
def test_processes_that_part_are_told_so(tmp_path):
    record = finished(begin(tmp_path, 2, leaves_early))
    assert record.status == "failed"
    assert "have parted" in record.cause


@pytest.mark.slow
def test_a_search_through_ray_survives_a_killed_process(tmp_path, monkeypatch):
    monkeypatch.setenv("RFSEARCH_TEST_MARK", str(tmp_path / "mark"))
    search = {"model": loops.make_model, "input_shape": loops.INPUT, "sites": ["2"], "dilations": [1, 4]}
    search |= {"strategies": ["exhaustive"], "budget": "4x", "processes_per_trial": 2}
    whole = rfsearch.search(train, out=tmp_path / "whole", **search)
    killed = rfsearch.search(dies_once, out=tmp_path / "killed", **search)
    assert (tmp_path / "mark").exists()
    assert killed.trials.val.tolist()[:2] == whole.trials.val.tolist()[:2]
    assert killed.trials.train_flop[0] > whole.trials.train_flop[0]  # what was lost is charged
    assert killed.trials.train_flop[1] == whole.trials.train_flop[1]
    with pytest.raises(RequestError, match=r"fails in its first epoch: in process 1 of 2: ValueError: no images"):
        rfsearch.search(no_images, out=tmp_path / "failing", **search)


def no_images(trial) -> None:
    if trial.rank:
        raise ValueError("no images")
    train(trial)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"processes_per_trial": 0}, "at least 1. Got 0"),
        ({"processes_per_trial": 2.5}, "whole number"),
        ({"processes_per_trial": 2, "gpus_per_trial": 1}, r"Got 1 with --gpus-per-trial. Nearest: 2"),
        ({"processes_per_trial": 2, "train": None, "space": "helen"}, "built-in trainings have one process"),
    ],
)
def test_processes_that_cannot_be_are_refused(changes, match):
    request = replace(Request(space="", train="search.py:train"), **changes)
    with pytest.raises(SpaceError, match=match):
        check_request_in_general(request)
    check_request_in_general(replace(request, processes_per_trial=1, gpus_per_trial=None))
