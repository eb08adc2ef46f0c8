"""One thread a test process, and faces drawn once a process: the tensors here are far too small to share out."""

import atexit
import functools
import os
import shutil
import sys
import tempfile

import pytest
from xdist.scheduler import LoadScopeScheduling

os.environ.setdefault("OMP_NUM_THREADS", "1")
if "PYTEST_XDIST_WORKER" not in os.environ:  # what is remembered of runs is not to be remembered of tests
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="rfsearch-state-")
    atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)


# Two clusters at once overload two cores: Ray gives its processes 30 s to start.
LONG = ("tests/training/", "tests/test_", "tests/cli/", "tests/own_loop/", "tests/layers/")
STARTS_RAY = ("tests/orchestration/", "tests/test_plugin_example.py", "tests/test_sources.py")


class ByFile(LoadScopeScheduling):
    """Share tests out a file at a time, those that start Ray all to one process."""

    def _split_scope(self, nodeid: str) -> str:
        return "ray" if nodeid.startswith(STARTS_RAY) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config, log):
    """Share tests out so."""
    return ByFile(config, log)


def pytest_collection_modifyitems(items):
    """Begin with the tests that start Ray, and go on with what takes long: so both processes end at one time."""
    items.sort(key=lambda item: (not item.nodeid.startswith(STARTS_RAY), not item.nodeid.startswith(LONG)))


@pytest.fixture(autouse=True, scope="session")
def faces_are_drawn_once():
    """Keep the images that runs draw: equal layouts draw equal faces, and 896 of them take seconds."""
    from rfsearch.data import RenderedFaces

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RenderedFaces, "make", functools.lru_cache(maxsize=2)(RenderedFaces.make))
        yield


@pytest.fixture
def trained_here(monkeypatch):
    """Let the command line train in this process and not start Ray."""
    from tests.small_run import train_in_process

    train_in_process(monkeypatch)


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Call the command line in this process: (exit code, standard output, standard error)."""
    from rfsearch import cli

    def called(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rfsearch", *map(str, words)])
        with pytest.raises(SystemExit) as leave:
            cli.main()
        told = capsys.readouterr()
        code = leave.value.code
        return (code if isinstance(code, int) else 0 if code is None else 1), told.out, told.err

    monkeypatch.chdir(tmp_path)
    return called
