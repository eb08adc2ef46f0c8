"""A run's directory: one that nothing worth keeping came into does not stay, and its images may move."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rfsearch.errors import RequestError, RunDirectoryError, StrategyError
from rfsearch.ledger import Assignment, Request
from rfsearch.ledger.journal import Journal
from rfsearch.ledger.manifest import MANIFEST_FILE, read_manifest
from rfsearch.planning.directory import new_directory, note_data_at, reopen_run, start_run
from rfsearch.planning.plan import make_plan, read_data
from rfsearch.planning.request import check_request
from rfsearch.trust import is_trusted
from tests.data.test_folder_kinds import put
from tests.toys import toy_file


@pytest.mark.parametrize(
    ("error", "begun", "stays"),
    [(RequestError, False, False), (RequestError, True, True), (StrategyError, False, True)],
)
def test_a_request_that_only_workers_refuse_leaves_no_directory(error, begun, stays, tmp_path):
    run = tmp_path / "run"

    def fail() -> None:
        with new_directory(run):
            (run / MANIFEST_FILE).write_text("{}")
            journal = Journal(run)
            if begun:
                journal.start(Assignment("t", "s", 0, {}, 0, 1.0))
            raise error("it cannot be sent to workers")

    with pytest.raises(error):
        fail()
    assert run.exists() == stays


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A run that was begun with a folder of images."""
    space = toy_file(tmp_path, steps=4)
    text = space.read_text()
    space.write_text(text.replace('layout = "helen"\nrendered = [12, 6, 6]', 'layout = "folder"'))
    folder_of_images(tmp_path / "images")
    return begun_run(tmp_path / "run", Request(str(space), data=str(tmp_path / "images"), strategies=("exhaustive",)))


def folder_of_images(root: Path, seed: int = 0) -> None:
    for name in ("train0", "train1", "val0"):
        pixels = np.random.default_rng([seed, *name.encode()]).integers(0, 256, (48, 48, 3), np.uint8)
        put(root, name[:-1], name, pixels, np.arange(48 * 48).reshape(48, 48) % 11)


def begun_run(run: Path, request: Request) -> Path:
    checked = check_request(request)
    with new_directory(run):
        start_run(make_plan(checked, read_data(checked, run), torch.device("cpu")), run, "run", 1, "cpu")
    return run


def test_a_run_whose_images_have_moved_is_told_where_they_are(begun: Path, tmp_path: Path) -> None:
    folder_of_images(tmp_path / "others", seed=1)
    (tmp_path / "images").rename(tmp_path / "moved")
    with pytest.raises(RunDirectoryError, match="images were in .*images, which is not there.* --data"):
        reopen_run(begun, torch.device("cpu"))
    with pytest.raises(RunDirectoryError, match="others are not those that this run was begun with"):
        note_data_at(begun, str(tmp_path / "others"))
    assert is_trusted(begun)
    note_data_at(begun, str(tmp_path / "moved"))
    reopen_run(begun, torch.device("cpu"))
    assert read_manifest(begun).data.folder == str(tmp_path / "moved")
    assert is_trusted(begun)


def test_somebody_elses_run_stays_theirs_when_its_images_have_moved(begun: Path, tmp_path: Path) -> None:
    manifest = begun / MANIFEST_FILE
    manifest.write_text(manifest.read_text().replace('"command": "run"', '"command": "theirs"'))
    assert not is_trusted(begun)
    note_data_at(begun, str(tmp_path / "images"))
    assert not is_trusted(begun)


def test_a_run_without_a_folder_takes_none(tmp_path: Path) -> None:
    run = begun_run(tmp_path / "run", Request(str(toy_file(tmp_path, steps=4)), strategies=("exhaustive",)))
    with pytest.raises(RequestError, match="without a folder of images: leave out --data"):
        note_data_at(run, str(tmp_path))
