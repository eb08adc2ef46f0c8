"""One thread a test process, and faces drawn once a process: the tensors here are far too small to share out."""

import functools
import os
import sys

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True, scope="session")
def faces_are_drawn_once():
    """Keep the images that runs draw: equal layouts draw equal faces, and 896 of them take seconds."""
    from rfsearch.data import RenderedFaces

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RenderedFaces, "make", functools.lru_cache(maxsize=2)(RenderedFaces.make))
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests in one process, and all that start Ray in one: two clusters overload two cores.

    Those go first, since they take the longest.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    items.sort(key=lambda item: item.get_closest_marker("xdist_group").args != ("ray",))


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
