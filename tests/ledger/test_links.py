"""What is written and deleted in a run directory lies in it: no link of it leads to files of somebody else's."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rfsearch.errors import RunDirectoryError
from rfsearch.export.portable import default_folder
from rfsearch.ledger import Journal, lock
from rfsearch.ledger.files import write_whole
from rfsearch.ledger.journal import LEDGER_FILE
from rfsearch.ledger.links import refuse_links
from rfsearch.ledger.lock import LOCK_FILE, hold, holder

OLD_RUN = Path(__file__).resolve().parents[1] / "old_runs" / "first"
DIARY = "one line\nand one without its end"


@pytest.fixture
def diary(tmp_path) -> Path:
    """A file of the user's, in a folder of its own."""
    file = tmp_path / "mine" / "diary"
    file.parent.mkdir()
    file.write_text(DIARY)
    return file


@pytest.fixture
def run_dir(tmp_path) -> Path:
    """A directory of somebody else's."""
    return Path(shutil.copytree(OLD_RUN, tmp_path / "run"))


def link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


FILES = [".lock", "ledger.jsonl", "manifest.json", "study.db", "confirmation/ledger.jsonl", "checkpoints/a/model.pt"]
FOLDERS = ["checkpoints", "checkpoints/a", "confirmation", "confirmation/checkpoints", "cache", "ray", "export"]


@pytest.mark.parametrize("name", FILES + FOLDERS)
def test_a_run_with_a_link_is_refused_before_anything_is_written(run_dir, diary, name):
    link(run_dir / name, diary if name in FILES else diary.parent)
    with pytest.raises(RunDirectoryError, match=f"{name}: a link to {diary.parent}.*the link"):
        hold(run_dir).__enter__()
    assert diary.read_text() == DIARY
    assert (run_dir / LOCK_FILE).is_symlink() == (name == LOCK_FILE)


@pytest.mark.parametrize("name", [".lock", "ledger.jsonl", "checkpoints"])
def test_resume_touches_nothing_that_a_link_leads_to(run_dir, diary, name, call):
    link(run_dir / name, diary.parent if name == "checkpoints" else diary)
    code, _, err = call("resume", run_dir, "--trust")
    assert code == 2
    assert f"{name}: a link to" in " ".join(err.split())
    assert diary.read_text() == DIARY


def test_the_directory_itself_may_be_reached_through_a_link(run_dir, tmp_path):
    link(tmp_path / "runs" / "mine", run_dir)
    with hold(tmp_path / "runs" / "mine"):
        assert (run_dir / LOCK_FILE).exists()


def test_links_of_trackers_that_stay_within_the_run_are_left_alone(run_dir):
    link(run_dir / "wandb" / "latest-run", Path("run-1"))
    link(run_dir / "checkpoints" / "a" / "last.ckpt", run_dir / "checkpoints" / "a" / "epoch-3.ckpt")
    with hold(run_dir):
        pass


def test_an_export_goes_where_no_link_leads_out(run_dir, diary):
    assert default_folder(run_dir) == run_dir / "export"
    link(run_dir / "export" / "model.pt", diary)
    with pytest.raises(RunDirectoryError, match=r"export/model\.pt: a link to"):
        default_folder(run_dir)


def test_no_file_is_written_through_a_link_that_nobody_has_looked_for(tmp_path, diary):
    for name in (LOCK_FILE, LEDGER_FILE, f"page.html.{os.getpid()}.part"):
        link(tmp_path / name, diary)
    with pytest.raises(OSError, match="symbolic link"):
        lock._acquire(tmp_path / LOCK_FILE)
    assert holder(tmp_path) is None
    with pytest.raises(RunDirectoryError, match="cannot be written"):
        Journal(tmp_path)
    with pytest.raises(RunDirectoryError, match="cannot be written"):
        write_whole(tmp_path / "page.html", "a page")
    assert diary.read_text() == DIARY


def test_links_of_weights_and_biases_to_its_own_logs_are_left_alone(run_dir, diary):
    logs = run_dir / "wandb" / "offline-run-20260101_000000-abc" / "logs"
    link(logs / "debug-core.log", diary)
    link(logs / "debug-internal.log", diary.parent / "deleted since")
    with hold(run_dir):
        pass


@pytest.mark.parametrize(
    "name", ["wandb/run-1/logs/folder", "wandb/logs", "wandb/run-1/files/a.log", "runs/logs/a.log"]
)
def test_other_links_beside_them_are_refused(run_dir, diary, name):
    link(run_dir / name, diary if name.endswith(".log") else diary.parent)
    with pytest.raises(RunDirectoryError, match=f"{name}: a link to"):
        hold(run_dir).__enter__()


def test_a_folder_that_cannot_be_listed_hides_no_link(run_dir, monkeypatch):
    (run_dir / "checkpoints" / "closed").mkdir(parents=True)
    listed = os.scandir

    def scandir(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)  # root may list every folder
    with pytest.raises(RunDirectoryError, match="checkpoints/closed: cannot be listed: Permission denied"):
        hold(run_dir).__enter__()


def test_folders_may_be_nested_deeper_than_python_goes(run_dir, monkeypatch):
    monkeypatch.chdir(run_dir)
    for _ in range(sys.getrecursionlimit() + 100):
        Path("d").mkdir()
        os.chdir("d")
    os.chdir(run_dir)
    refuse_links(run_dir)
    subprocess.run(["rm", "-r", run_dir / "d"], check=True)  # pytest's own way of removing it recurses


def test_a_pipe_in_the_place_of_the_lock_keeps_nobody_waiting(run_dir):
    os.mkfifo(run_dir / LOCK_FILE)
    asked = threading.Thread(target=holder, args=(run_dir,), daemon=True)
    asked.start()
    asked.join(10)
    assert not asked.is_alive()
