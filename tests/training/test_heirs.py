"""A training that goes on where another one was stopped: what it takes over, what is its own and what it costs."""

from pathlib import Path

import pytest
import torch

from rfsearch.choices import Choice, Dilated, Inflated, Moved, Searched
from rfsearch.ledger import Assignment, Record
from rfsearch.space import Space
from rfsearch.training import Order, Training
from rfsearch.training.loop import TrainingLoop
from tests.toys import toy_faces, toy_space

CPU = torch.device("cpu")
DATA = toy_faces()
LOOKS = (2, 4, 6)  # of 8 steps of 2 of 12 images


@pytest.fixture
def space(tmp_path):
    return toy_space(tmp_path)


def training(space: Space, choice: Choice, folder: Path, name: str, of: str = "", seed: int = 7) -> Training:
    assignment = Assignment(name, "s", 0, space.uniform(choice).to_json(), seed, 1e18, of)
    return Training(space, DATA, Order(assignment, "flop", CPU, folder / name))


def relay(space: Space, choice: Choice, folder: Path) -> list[Record]:
    """A training from look to look, each stretch a trial."""
    return [training(space, choice, folder, str(i), str(i - 1) if i else "").advance() for i in range(len(LOOKS) + 1)]


@pytest.mark.parametrize(
    "choice",
    [Dilated(2), Inflated(2, learned=True), Searched(1), pytest.param(Moved(1), marks=pytest.mark.slow)],
    ids=str,
)
def test_one_that_keeps_candidate_and_seed_ends_as_if_never_stopped(space, tmp_path, choice):
    whole = training(space, choice, tmp_path, "whole")
    while (expected := whole.advance()).status == "pruned":
        pass
    stretches = relay(space, choice, tmp_path)
    last = stretches[-1]
    assert [r.status for r in stretches] == ["pruned"] * 3 + ["completed"]
    assert (last.val, last.test, last.f, last.steps, last.rf_px) == (
        expected.val, expected.test, expected.f, expected.steps, expected.rf_px,
    )  # fmt: skip
    states = [torch.load(tmp_path / n / "model.pt", weights_only=True)["model"] for n in ("whole", "3")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    # Each is charged its own stretch: together what the whole has cost, and no look twice.
    assert sum(r.cost.flop for r in stretches) == expected.cost.flop
    assert sum(r.cost.epochs for r in stretches) == pytest.approx(expected.cost.epochs)
    assert [rung.step for r in stretches for rung in r.rungs] == [rung.step for rung in expected.rungs]
    assert {point for r in stretches for point in r.trace} == set(expected.trace)
    assert [r.heir_of for r in stretches] == ["", "0", "1", "2"]


def test_at_a_dilation_of_its_own_it_takes_over_weights_momentum_and_step(space, tmp_path):
    parent = training(space, Dilated(1), tmp_path, "parent").advance()
    kept = torch.load(tmp_path / "parent" / "progress.pt", weights_only=True)["learner"]
    record = training(space, Dilated(4), tmp_path, "heir", "parent", seed=8).advance()
    # The same by hand: the parent's tensors in a network of the heir's, and the next steps of the heir's own order.
    torch.manual_seed(8)
    loop = TrainingLoop(space, DATA, space.uniform(Dilated(4)), 8, CPU)
    with torch.no_grad():
        for name, tensor in loop.model.state_dict().items():
            if not name.endswith("searched_dilation"):
                tensor.copy_(kept["model"][name])
    loop.optimisation.optimizer.load_state_dict(kept["optimizer"])
    for step in (2, 3):
        loop.train_step(step)
    found = torch.load(tmp_path / "heir" / "progress.pt", weights_only=True)
    ours, theirs = loop.state(), found["learner"]
    assert all(torch.equal(ours["model"][key], theirs["model"][key]) for key in ours["model"])
    for number, state in ours["optimizer"]["state"].items():
        assert torch.equal(state["momentum_buffer"], theirs["optimizer"]["state"][number]["momentum_buffer"])
    assert theirs["model"]["conv6.searched_dilation"].tolist() == [4, 4]
    own = training(space, Dilated(4), tmp_path, "own").advance()
    assert (record.rf_px, record.rf_init_px) == (own.rf_px, own.rf_init_px) != (parent.rf_px, parent.rf_init_px)
    assert (record.steps, [rung.step for rung in record.rungs]) == (4, [4])
    assert record.cost.epochs == 2 * 2 / 12
    assert record.cost.flop == parent.cost.flop
    assert record.rungs[0].cost == record.cost


def test_a_site_of_several_convolutions_is_handed_on_too(tmp_path):
    space = toy_space(tmp_path).with_(sites=("features",))
    training(space, Dilated(1), tmp_path, "parent").advance()
    record = training(space, Dilated(2), tmp_path, "heir", "parent").advance()
    state = torch.load(tmp_path / "heir" / "progress.pt", weights_only=True)["learner"]["model"]
    dilations = {key: value.tolist() for key, value in state.items() if key.endswith("searched_dilation")}
    assert len(dilations) > 1
    assert all(axes == [2, 2] for axes in dilations.values())
    assert record.status == "pruned"


def test_interrupted_it_goes_on_from_its_own_look(space, tmp_path):
    training(space, Dilated(1), tmp_path, "parent").advance()
    work = training(space, Dilated(4), tmp_path, "heir", "parent")
    first, second = work.advance(), work.advance()
    # What was trained after the last look before the interruption is trained again.
    again = training(space, Dilated(4), tmp_path, "heir", "parent")
    assert again.advance().cost.flop == second.cost.flop
    third, expected = again.advance(), work.advance()
    assert third.status == expected.status == "completed"
    assert (third.val, third.cost.flop, third.cost.epochs) == (expected.val, expected.cost.flop, 6 * 2 / 12)
    assert first.steps == 4


def test_an_epoch_budget_counts_its_own_steps(space, tmp_path):
    training(space, Dilated(1), tmp_path, "parent").advance()
    assignment = Assignment("heir", "s", 0, space.uniform(Dilated(1)).to_json(), 7, 3 * 2 / 12, "parent")
    work = Training(space, DATA, Order(assignment, "epochs", CPU, tmp_path / "heir"))
    work.advance()
    record = work.advance()
    assert (record.status, record.steps) == ("cut", 5)


def test_without_its_parents_state_it_fails_in_words(space, tmp_path):
    record = training(space, Dilated(1), tmp_path, "heir", "parent").advance()
    assert record.status == "failed"
    assert record.cause.startswith("it goes on from parent, of which ")
    assert "parent/progress.pt is missing" in record.cause


@pytest.mark.parametrize("choice", [Inflated(2, 1.5), Inflated(2, learned=True), Searched(2)], ids=str)
def test_what_differs_in_more_than_dilations_is_no_heir(space, tmp_path, choice):
    training(space, Dilated(1), tmp_path, "parent").advance()
    record = training(space, choice, tmp_path, "heir", "parent").advance()
    assert record.status == "failed"
    assert record.cause.startswith(
        "an heir differs from its parent in dilations that no training moves, and in nothing"
    )


def test_of_a_learned_candidate_only_itself_goes_on(space, tmp_path):
    training(space, Inflated(1, learned=True), tmp_path, "parent").advance()
    record = training(space, Inflated(2, learned=True), tmp_path, "heir", "parent").advance()
    assert record.status == "failed"
    assert record.heir_of == "parent"
