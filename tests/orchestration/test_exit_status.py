"""How processes end that are others' children."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rfsearch.orchestration.exit_status import Ends

GRANDCHILD = "import subprocess, sys; p = subprocess.Popen(sys.argv[1:]); print(p.pid, flush=True); p.wait()"


def begun(*words: str) -> tuple[subprocess.Popen[str], int]:
    """Start a process whose child runs a command; returns it and the child's number."""
    parent = subprocess.Popen([sys.executable, "-c", GRANDCHILD, *words], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


@pytest.fixture(scope="module")
def told() -> None:
    """Skip where the system does not tell."""
    parent, pid = begun("sleep", "60")
    ends = Ends()
    ends.hold("a", pid)
    os.kill(pid, signal.SIGTERM)
    parent.wait()
    if not ends.release("a"):
        pytest.skip("Linux tells it from 6.15 on")


@pytest.mark.parametrize(
    ("words", "kill", "said"),
    [
        (("sleep", "60"), signal.SIGKILL, "it was ended by SIGKILL"),
        (("sleep", "60"), signal.SIGHUP, "it was ended by SIGHUP"),
        (("sh", "-c", "sleep 0.5; exit 7"), None, "it left with exit code 7"),
    ],
)
def test_a_signal_or_an_exit_code_is_said_of_anothers_child(told, words, kill, said):
    parent, pid = begun(*words)
    ends = Ends()
    ends.hold("a", pid)
    if kill:
        os.kill(pid, kill)
    assert ends.release("a", patience_s=20.0) == said
    parent.wait()


def test_nothing_is_said_of_what_runs_or_is_not_held():
    ends = Ends()
    ends.hold("a", os.getpid())
    assert ends.release("a", patience_s=0.0) == ""
    assert ends.release("a") == ""
    ends.hold("b", 2**22 + 1)
    assert ends.release("b") == ""


def test_no_descriptor_is_left_open():
    opened = Path("/proc/self/fd")
    if not opened.is_dir():
        pytest.skip("open files are not listed here")
    before = len(list(opened.iterdir()))
    ends = Ends()
    for _ in range(5):
        ends.hold("a", os.getpid())
    ends.release("a", patience_s=0.0)
    assert len(list(opened.iterdir())) == before
