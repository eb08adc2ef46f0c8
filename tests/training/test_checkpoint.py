"""Checkpoints: a full disk is no fault of the trial, and a damaged one costs its trial a new beginning only."""

from argparse import Namespace

import numpy as np
import pytest
import torch

from rfsearch.choices import Dilated
from rfsearch.errors import RunDirectoryError, TrialError
from rfsearch.training import checkpoint
from tests.disks import files_at_most
from tests.toys import toy_space
from tests.training.test_heirs import training

CPU = torch.device("cpu")
SMALL = 4096  # bytes, far less than a checkpoint of the toy network
DAMAGES = {
    "empty": lambda whole: b"",
    "short": lambda whole: whole[: len(whole) // 2],
    "without its end": lambda whole: whole[:-1],
    "zeros": lambda whole: bytes(len(whole)),
    "text": lambda whole: b"not a checkpoint",
}


@pytest.fixture
def space(tmp_path):
    return toy_space(tmp_path, steps=3, rungs=2)


def damage_progress(folder, kind):
    path = folder / "progress.pt"
    path.write_bytes(DAMAGES[kind](path.read_bytes()))


@pytest.mark.parametrize("size", [1, 1000, 300_000])
def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(tmp_path, size):
    path = tmp_path / "progress.pt"
    checkpoint.save({"step": 1}, path)
    with (
        files_at_most(size),
        pytest.raises(RunDirectoryError, match=r"progress\.pt: cannot be .*: File too large"),
    ):
        checkpoint.save({"step": 2, "weights": torch.zeros(100_000)}, path)
    assert checkpoint.load(path, CPU) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["progress.pt"]


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_none(tmp_path, damage):
    path = tmp_path / "model.pt"
    checkpoint.save({"weights": torch.zeros(100)}, path)
    path.write_bytes(damage(path.read_bytes()))
    assert checkpoint.load(path, CPU) is None


def test_values_of_numpy_are_read_back_and_what_is_not_is_named(tmp_path):
    path = tmp_path / "progress.pt"
    saved = {"lr": np.float64(0.1), "classes": np.array([1, 2]), "on": np.bool_(True), "name": np.str_("a")}
    checkpoint.save(saved, path)
    state = checkpoint.load(path, CPU)
    assert list(state.pop("classes")) == list(saved.pop("classes"))
    assert state == saved
    for value, named in ((Namespace(lr=1), r"argparse\.Namespace"), (np.array([None]), "ObjectDType")):
        checkpoint.save({"value": value}, path)
        with pytest.raises(TrialError, match=rf"progress\.pt also holds \S*{named}, which is not read back"):
            checkpoint.load(path, CPU)


def test_a_full_disk_ends_no_trial_for_good(space, tmp_path):
    """Neither at a look nor at the end: the training goes on from its last look once there is room."""
    work = training(space, Dilated(2), tmp_path, "t")
    with files_at_most(SMALL), pytest.raises(RunDirectoryError, match=r"progress\.pt: cannot be written"):
        work.advance()
    work = training(space, Dilated(2), tmp_path, "t")
    assert [work.advance().status for _ in range(2)] == ["pruned"] * 2
    with files_at_most(SMALL), pytest.raises(RunDirectoryError, match="cannot be written"):
        work.advance()
    again = training(space, Dilated(2), tmp_path, "t")
    assert [record.steps for record in (again.advance(), again.advance())] == [2, 3]
    assert checkpoint.load(tmp_path / "t" / "model.pt", CPU) is not None


@pytest.mark.parametrize("kind", ["empty", "short"])
def test_a_trial_with_a_damaged_checkpoint_begins_again_and_says_so(space, tmp_path, kind):
    lost = training(space, Dilated(2), tmp_path, "t").advance()
    damage_progress(tmp_path / "t", kind)
    work = training(space, Dilated(2), tmp_path, "t")
    records = [work.advance() for _ in range(3)]
    assert [record.status for record in records] == ["pruned", "pruned", "completed"]
    assert records[-1].cause == "its checkpoint was damaged, so it began again; what it had cost before is charged"
    whole = training(space, Dilated(2), tmp_path, "whole")
    undisturbed = [whole.advance() for _ in range(3)]
    for record, same in zip(records, undisturbed, strict=True):
        assert (record.val, record.steps) == (same.val, same.steps)
        assert record.cost.flop == pytest.approx(same.cost.flop + lost.cost.flop, rel=1e-12)
        assert record.cost.epochs == pytest.approx(same.cost.epochs + lost.cost.epochs)
        assert record.cost.device_s > lost.cost.device_s
    assert [rung.cost.flop for rung in records[-1].rungs] == [record.cost.flop for record in records[:-1]]
    assert sorted(file.name for file in (tmp_path / "t").iterdir()) == ["examples.npz", "model.pt"]


def test_what_a_trial_cost_before_two_damages_is_charged_once(space, tmp_path):
    lost = 0.0
    for _ in range(2):
        lost = training(space, Dilated(2), tmp_path, "t").advance().cost.flop
        damage_progress(tmp_path / "t", "short")
    first = training(space, Dilated(2), tmp_path, "whole").advance().cost.flop
    assert lost == pytest.approx(2 * first)
    assert training(space, Dilated(2), tmp_path, "t").advance().cost.flop == pytest.approx(3 * first)


@pytest.mark.parametrize("text", [None, "", "[]", '{"flop": 1, "weight": 2}', '{"flop": "1"}', '{"flop": -1}'])
def test_where_nobody_noted_what_it_had_cost_the_record_says_so(space, tmp_path, text):
    lost = training(space, Dilated(2), tmp_path, "t").advance()
    damage_progress(tmp_path / "t", "short")
    noted = tmp_path / "t" / "charged.json"
    noted.unlink() if text is None else noted.write_text(text)
    record = training(space, Dilated(2), tmp_path, "t").advance()
    assert record.cause.endswith("what it had cost before is not known")
    assert record.cost.flop == lost.cost.flop


def test_an_heir_of_a_damaged_checkpoint_says_whose(space, tmp_path):
    training(space, Dilated(2), tmp_path, "parent").advance()
    (tmp_path / "parent" / "progress.pt").write_bytes(b"")
    record = training(space, Dilated(1), tmp_path, "heir", "parent").advance()
    assert record.status == "failed"
    assert "goes on from parent, whose checkpoint is damaged" in record.cause
