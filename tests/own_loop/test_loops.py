"""Loops of every kind that people write, and candidates of every kind, train, resume and are kept alike."""

import time
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import rfsearch
from rfsearch.choices import Candidate, Dilated, Inflated, Moved, Sampled, Searched, SitePath
from rfsearch.errors import RequestError
from tests.own_loop import loops
from tests.own_loop.trials import completed, interrupted, kept_score, plan, training
from tests.small_run import train_in_process

optimizers = pytest.importorskip("timm.optim")

SIDE_BY_SIDE = Candidate({"2": (SitePath(Dilated(2)), SitePath(Inflated(4, learned=True)))})
BLOCK = Sampled(1, gamma=2.0, s=3, learned=True)
KINDS = [Dilated(4), Inflated(4, learned=True), Moved(2), Searched(2)]


def train(
    trial,
    optimizer_of: Callable = lambda groups: torch.optim.SGD(groups, momentum=0.9),
    memory_format: torch.memory_format = torch.contiguous_format,
) -> None:
    model = trial.prepare(loops.make_model()).to(memory_format=memory_format)
    optimizer = optimizer_of(trial.parameter_groups(model, lr=3e-3, weight_decay=0.01))
    score = loops.scorer(model)
    trial.attach(model, optimizer, look=score)
    for _ in trial.epochs(4):
        for x, y in loops.loader(24):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x.to(memory_format=memory_format)), y).backward()
            optimizer.step()
        with trial.evaluating():
            trial.report(val=score())
    trial.finish(val=score())


OPTIMIZERS = {
    "SGD": lambda groups: torch.optim.SGD(groups, momentum=0.9),
    "Lion": optimizers.Lion,
    "Lookahead": lambda groups: optimizers.Lookahead(torch.optim.AdamW(groups), k=3),
}


@pytest.mark.parametrize(
    ("optimizer", "choice"),
    [
        ("SGD", BLOCK),
        ("SGD", SIDE_BY_SIDE),
        *((optimizer, choice) for optimizer in ("Lion", "Lookahead") for choice in (Dilated(4), Moved(2), Searched(2))),
    ],
    ids=str,
)
def test_it_resumes_and_its_weights_are_kept(optimizer, choice, tmp_path):
    found = plan(lambda trial: train(trial, OPTIMIZERS[optimizer]))
    unbroken = completed(training(found, choice, tmp_path / "unbroken"))
    resumed = interrupted(found, choice, tmp_path / "broken", reports=2)
    assert (resumed.val, resumed.outcome, resumed.trace) == (unbroken.val, unbroken.outcome, unbroken.trace)
    assert [rung.val for rung in resumed.rungs] == [rung.val for rung in unbroken.rungs]
    assert kept_score(found, tmp_path / "broken") == pytest.approx(unbroken.val, rel=1e-5)
    candidate = choice if isinstance(choice, Candidate) else Candidate({"2": choice})
    if candidate.learned or candidate.searched:
        assert unbroken.outcome != candidate.to_json()


@pytest.mark.parametrize("choice", KINDS, ids=str)
def test_channels_last_changes_nothing_but_the_memory(choice, tmp_path):
    records = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        found = plan(lambda trial, memory_format=memory_format: train(trial, memory_format=memory_format))
        records.append(completed(training(found, choice, tmp_path / str(memory_format))))
    plain, last = records
    # Later on a learned f takes rounding to other values, as it also does on another number of cores.
    assert last.rungs[0].val == pytest.approx(plain.rungs[0].val, rel=1e-4)
    assert [value for *_, value in last.trace[:2]] == pytest.approx([value for *_, value in plain.trace[:2]], rel=1e-3)
    if not Candidate({"2": choice}).learned:
        assert last.val == pytest.approx(plain.val, rel=1e-4)
        assert last.cost.flop == pytest.approx(plain.cost.flop, rel=1e-3)


def test_two_paths_are_searched(tmp_path, monkeypatch):
    train_in_process(monkeypatch)
    result = rfsearch.search(
        train,
        model=loops.make_model,
        input_shape=loops.INPUT,
        sites="2",
        dilations=[1, 2, 4],
        strategies=["random", "inflation"],
        paths=2,
        budget="4x",
        out=tmp_path / "run",
    )
    causes = set(result.trials.cause[result.trials.status == "failed"])
    assert causes <= {"its first epoch would cost more than what was left of the arm's budget."}
    assert set(result.trials.strategy) == {"random", "inflation"}
    model = rfsearch.apply(loops.make_model(), result.patch())
    state = torch.load(result.directory / "checkpoints" / result.best.trial / "model.pt", weights_only=True)
    model.load_state_dict(state["model"])
    assert loops.scorer(model)() == pytest.approx(result.best.val, rel=1e-5)
    wider = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in loops.make_model().parameters())
    assert wider >= 8 * 8 * 9  # the other path's weights


def test_a_model_that_is_compiled_before_prepare_is_one_message():
    def compiling(trial) -> None:
        trial.prepare(torch.compile(loops.make_model()))

    with pytest.raises(RequestError, match=r"compiled by torch\.compile, .* Pass the module before it is compiled"):
        plan(compiling)


def test_a_budget_of_seconds_is_kept(tmp_path, monkeypatch):
    train_in_process(monkeypatch)

    def waiting(trial) -> None:
        model = trial.prepare(loops.make_model())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        trial.attach(model, optimizer)
        for _ in trial.epochs(3):
            time.sleep(0.2)
            model(torch.ones(loops.INPUT)).square().mean().backward()
            optimizer.step()
        trial.finish(val=loops.scorer(model)())

    result = rfsearch.search(
        waiting,
        model=loops.make_model,
        input_shape=loops.INPUT,
        sites="2",
        dilations=[1, 2, 4, 6],
        strategies=["exhaustive", "random"],
        budget="1.6s",
        out=tmp_path / "run",
    )
    assert result.run.manifest.budget.of_an_arm.currency == "device_s"
    for _, trials in result.trials.groupby("strategy"):
        assert 0.4 < trials.device_s.sum() < 2.0
        assert (trials.device_s >= 0.2 * trials.epochs).all()
        assert len(trials) < 4


class Photographs(Dataset):
    """Images of many sizes."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, number: int) -> torch.Tensor:
        draw = torch.Generator().manual_seed(number)
        height, width = torch.randint(16, 33, (2,), generator=draw).tolist()
        return torch.randn(1, height, width, generator=draw)


def padded(images: list[torch.Tensor]) -> torch.Tensor:
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    return torch.stack(
        [nn.functional.pad(image, (0, width - image.shape[2], 0, height - image.shape[1])) for image in images]
    )


@pytest.mark.parametrize("choice", KINDS, ids=str)
def test_maps_of_many_sizes_are_charged_by_their_sizes(choice, tmp_path):
    pixels: list[int] = []

    def varying(trial) -> None:
        pixels.clear()
        model = trial.prepare(loops.make_model())
        optimizer = torch.optim.SGD(trial.parameter_groups(model, lr=3e-3), momentum=0.9)
        trial.attach(model, optimizer, look=loops.scorer(model))
        for _ in trial.epochs(4):
            for x in DataLoader(Photographs(), 4, shuffle=True, collate_fn=padded):
                optimizer.zero_grad()
                model(x).sub(x).square().mean().backward()
                optimizer.step()
                pixels.append(x.numel())
            trial.report(val=loops.scorer(model)())
        trial.finish(val=loops.scorer(model)())

    found = plan(varying)
    record = completed(training(found, choice, tmp_path / "unbroken"))
    assert len(set(pixels)) > 10
    if choice == Dilated(4):
        macs = 8 * 9 + 8 * 8 * 9 + 8
        scored = (4 * 16 + 1) * 24 * 24 * 2 * macs
        # The weights' gradients cost as much as the forward pass, and so do the maps', but for the image's.
        trained = sum(pixels) * (3 * 2 * macs - 2 * 8 * 9)
        assert record.cost.flop == pytest.approx(trained + scored, rel=0.1)
    assert interrupted(found, choice, tmp_path / "broken", reports=2).val == record.val
