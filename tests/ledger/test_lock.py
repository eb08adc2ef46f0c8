"""One process at a time works in a run directory, and its lock ends with it."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rfsearch.errors import RunDirectoryError
from rfsearch.ledger import lock
from rfsearch.ledger.lock import LOCK_FILE, hold, holder
from rfsearch.ledger.run_directory import create, make_unused

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import subprocess, sys, time
from pathlib import Path
from rfsearch.ledger.lock import hold
with hold(Path(sys.argv[1])):
    child = subprocess.Popen(["sleep", "60"], close_fds=False) if sys.argv[2:] else None
    print(child.pid if child else 0, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(request):
    """Start another process that works in a directory: (the process, the child that it has started)."""
    started: list[subprocess.Popen[str]] = []
    children: list[int] = []

    def start(run_dir: Path, *words: str) -> tuple[subprocess.Popen[str], int]:
        command = [sys.executable, "-c", HOLD, str(run_dir), *words]
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        started.append(child)
        assert child.stdout
        children.append(int(child.stdout.readline()))
        return child, children[-1]

    yield start
    for pid in filter(None, children):  # first: a child holds its parent's pipe open
        os.kill(pid, signal.SIGKILL)
    for process in started:
        process.kill()
        process.communicate()


def test_a_second_process_is_told_who_works_there(tmp_path, other, monkeypatch):
    monkeypatch.setattr(lock, "_PATIENCE_S", 0.2)
    process, _ = other(tmp_path)
    with pytest.raises(RunDirectoryError, match=rf"in use by process {process.pid} on \S+, since \d{{4}}-"):
        hold(tmp_path).__enter__()
    found = holder(tmp_path)
    assert found is not None
    assert found.pid == process.pid
    with pytest.raises(RunDirectoryError, match=f"in use by process {process.pid}"):
        create(tmp_path)


def test_a_killed_process_leaves_no_lock_even_while_what_it_has_started_lives_on(tmp_path, other, monkeypatch):
    process, child = other(tmp_path, "with a child")
    process.kill()
    process.wait()
    os.kill(child, 0)  # the child is alive
    assert (tmp_path / LOCK_FILE).exists()
    assert holder(tmp_path) is None
    monkeypatch.setattr(lock, "_PATIENCE_S", 0.0)
    with hold(tmp_path):
        pass


def test_a_lock_that_is_let_go_within_a_moment_is_waited_for(tmp_path, other):
    process, _ = other(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: (time.sleep(0.5), process.kill()))
        with hold(tmp_path):
            assert process.wait() == -signal.SIGKILL


def test_a_lock_leaves_nothing_behind_and_is_not_ones_own_rival(tmp_path):
    with hold(tmp_path):
        assert holder(tmp_path) is None
        create(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_made_again_by_another_process_keeps_that_process_lock(tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    with hold(run_dir):
        (run_dir / LOCK_FILE).unlink()
        (run_dir / LOCK_FILE).write_text("of another process")
    assert (run_dir / LOCK_FILE).read_text() == "of another process"


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with pytest.raises(RunDirectoryError, match=r"takes no lock \(Function not implemented\).*on another one"):
        hold(tmp_path).__enter__()
    assert holder(tmp_path) is None


def test_default_names_never_collide(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: make_unused(tmp_path / "runs" / "toy-1"), range(8)))
    assert {path.name for path in made} == {"toy-1", *(f"toy-1-{number}" for number in range(2, 9))}
