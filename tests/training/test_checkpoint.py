"""Checkpoints: a full disk is no fault of the trial, and a damaged one costs its trial a new beginning only."""

import pytest
import torch

from rfsearch.choices import Dilated
from rfsearch.errors import RunDirectoryError
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
    training(space, Dilated(2), tmp_path, "t").advance()
    path = tmp_path / "t" / "progress.pt"
    path.write_bytes(DAMAGES[kind](path.read_bytes()))
    work = training(space, Dilated(2), tmp_path, "t")
    records = [work.advance() for _ in range(3)]
    assert [record.status for record in records] == ["pruned", "pruned", "completed"]
    assert "began again" in records[-1].cause


def test_an_heir_of_a_damaged_checkpoint_says_whose(space, tmp_path):
    training(space, Dilated(2), tmp_path, "parent").advance()
    (tmp_path / "parent" / "progress.pt").write_bytes(b"")
    record = training(space, Dilated(1), tmp_path, "heir", "parent").advance()
    assert record.status == "failed"
    assert "goes on from parent, whose checkpoint is damaged" in record.cause
