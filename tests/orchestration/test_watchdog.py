"""Workers that hang, crash or are ended: where they stood, why they ended, and what that is charged."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from ray.exceptions import OutOfMemoryError, RayActorError

import rfsearch
from rfsearch.ledger import read_run
from rfsearch.orchestration import memory_kills
from rfsearch.orchestration.remote_files import read_at
from rfsearch.orchestration.watchdog import LAST_WORDS, address_of, cause_of_death, patience, watched
from tests.disks import fill, small_disk
from tests.orchestration.runs import call as run
from tests.orchestration.runs import environment
from tests.toys import toy_file


def text_of(path: Path) -> str:
    """Return a file's text, as of a worker on this machine."""
    return read_at("", path)


SCRIPT = """
import ctypes, faulthandler, os, sys, time
from pathlib import Path
from rfsearch.orchestration.watchdog import watched

def sleeps():
    time.sleep(60)

def sleeps_with_the_interpreter():
    ctypes.PyDLL(None).sleep(60)

def crashes():
    ctypes.string_at(0)

def leaves():
    os._exit(3)

with watched(Path(sys.argv[2]), 1.0):
    globals()[sys.argv[1]]()
"""


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("sleeps", r"it hung, and was ended after 1\.00 s without a validation, in loop\.py, line \d+, in sleeps"),
        ("sleeps_with_the_interpreter", r"it hung, .*, in loop\.py, line \d+, in sleeps_with_the_interpreter"),
        ("crashes", r"it crashed: Segmentation fault, in loop\.py, line \d+, in crashes"),
        ("leaves", r"it left by os\._exit with code 3, in loop\.py, line \d+, in leaves"),
    ],
)
def test_a_process_that_hangs_or_crashes_ends_and_says_where_it_stood(tmp_path, does, said):
    script = tmp_path / "loop.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script, does, tmp_path / "trial"], env=environment(), capture_output=True, timeout=50
    )
    assert done.returncode != 0
    cause = cause_of_death(None, tmp_path / "trial", 1.0, text_of)
    assert re.fullmatch(said, cause), cause


def test_a_training_that_goes_on_leaves_no_words_and_is_not_ended(tmp_path):
    with watched(tmp_path / "trial", 60.0):
        assert (tmp_path / "trial" / LAST_WORDS).exists()
    assert not (tmp_path / "trial" / LAST_WORDS).exists()
    with pytest.raises(ValueError, match="its own"), watched(tmp_path / "trial", 60.0):
        raise ValueError("its own")
    assert not (tmp_path / "trial" / LAST_WORDS).exists()


def test_a_full_disk_is_no_fault_of_the_watch(tmp_path):
    with small_disk(tmp_path / "disk", "1m") as disk:
        (disk / "trial").mkdir()
        fill(disk)
        with watched(disk / "trial", 60.0):
            pass


def test_a_folder_that_cannot_be_written_is_no_fault_of_the_watch(tmp_path):
    (tmp_path / "file").write_text("")
    with watched(tmp_path / "file" / "trial", 60.0):
        pass


WORDS = """Timeout (0:00:01)!
Thread 0x01 (most recent call first):
  File "{package}/own_loop/loop_training.py", line 10 in go_on
  File "{package}/orchestration/trainable.py", line 90 in step

Thread 0x02 (most recent call first):
  File "{stdlib}/threading.py", line 327 in wait

Thread 0x03 (most recent call first):
  File "{site}/site-packages/torch/nn/modules/conv.py", line 5 in forward
  File "/home/rfsearch/net.py", line 12 in forward
  File "{package}/own_loop/loop_training.py", line 20 in _run
"""


def test_the_users_own_code_is_named_whatever_other_threads_do(tmp_path):
    package = Path(rfsearch.__file__).parent
    words = WORDS.format(package=package, stdlib=sysconfig.get_path("stdlib"), site=sys.prefix)
    (tmp_path / LAST_WORDS).write_text(words)
    assert cause_of_death(None, tmp_path, 1.0, text_of).endswith(", in net.py, line 12, in forward")


DIED = "The actor died.\n\tip: 10.0.0.7\nIts worker process has died. Worker exit type: SYSTEM_ERROR"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OutOfMemoryError("low"), "Ray ended it because its machine ran out of memory"),
        (RayActorError(error_msg="The actor died because its node has died."), "its machine left the cluster"),
        (None, "it was ended from outside, by a signal or for lack of memory, or left by os._exit"),
        (
            RayActorError(error_msg=f"{DIED} Worker exits with an exit code 1. The process receives a SIGTERM."),
            "it was ended by SIGTERM",
        ),
        (RayActorError(error_msg=f"{DIED} Worker exits with an exit code 7."), "it left with exit code 7"),
    ],
)
def test_what_is_known_of_an_end_is_said(tmp_path, error, said):
    assert cause_of_death(error, tmp_path, 1.0, text_of) == said


def test_the_system_is_believed_where_nothing_says_more(tmp_path):
    assert cause_of_death(None, tmp_path, 1.0, text_of, "it was ended by SIGKILL") == "it was ended by SIGKILL"
    (tmp_path / LAST_WORDS).write_text("Fatal Python error: Bus error\n")
    assert cause_of_death(None, tmp_path, 1.0, text_of, "it was ended by SIGBUS") == "it crashed: Bus error"


def test_the_machine_of_a_worker_is_the_one_that_ray_names():
    assert address_of(RayActorError(error_msg=DIED)) == "10.0.0.7"
    assert address_of(RayActorError(error_msg="gone")) == address_of(None) == ""


def test_a_child_that_leaves_is_not_taken_for_the_worker(tmp_path):
    with watched(tmp_path / "trial", 60.0):
        if (child := os.fork()) == 0:
            os._exit(5)
        os.waitpid(child, 0)
        assert "Exit code" not in (tmp_path / "trial" / LAST_WORDS).read_text()
    assert os._exit.__module__ in ("posix", "nt")


@pytest.mark.parametrize(
    ("groups", "counted"),
    [
        ("0::/user.slice\n", "user.slice/memory.events"),
        ("0::/of/the/host\n", "memory.events"),
        ("4:cpu,memory:/docker/1\n0::/\n", "memory/docker/1/memory.oom_control"),
    ],
)
def test_lack_of_memory_is_that_of_the_workers_own_group(tmp_path, monkeypatch, groups, counted):
    text = {Path("/proc/self/cgroup"): groups, tmp_path / counted: "low 0\noom_kill 2\n",
            memory_kills._MACHINE: "oom_kill 7\n"}  # fmt: skip
    monkeypatch.setattr(memory_kills, "_GROUPS", tmp_path)
    monkeypatch.setattr(memory_kills, "_read", lambda path: text.get(path, ""))
    note = memory_kills.note_of_kills()
    (tmp_path / LAST_WORDS).write_text(note)
    text[memory_kills._MACHINE] = "oom_kill 8\n"  # of another one
    assert not memory_kills.killed_since(note, lambda path: text[path])
    text[tmp_path / counted] = "low 0\noom_kill 3\n"
    text[tmp_path / LAST_WORDS] = note
    cause = cause_of_death(None, tmp_path, 1.0, lambda path: text[path])
    assert cause == "the system ended it because its machine ran out of memory"


def test_where_no_group_counts_the_machine_does(monkeypatch):
    text = {memory_kills._MACHINE: "pgfault 1\noom_kill 7\n"}
    monkeypatch.setattr(memory_kills, "_read", lambda path: text.get(path, ""))
    assert memory_kills.killed_since(memory_kills.note_of_kills(), lambda path: "oom_kill 8\n")
    text.clear()
    assert memory_kills.note_of_kills() == ""
    assert not memory_kills.killed_since("", lambda path: "oom_kill 8\n")


def test_patience_is_long_and_grows_with_the_forecast():
    assert patience(0.0) == patience(5.0) == 600.0
    assert patience(100.0) == 2000.0


@pytest.mark.parametrize("text", ["7x", "soon", "-3min", "40epoch"])
def test_a_timeout_that_is_no_time_is_one_message(call, tmp_path, text):
    code, _, err = call("plan", "--space", toy_file(tmp_path), "--trial-timeout", text)
    assert code == 2
    assert f"--trial-timeout is a time, as 30min (also s, h). Got {text!r}." in err


@pytest.mark.slow
def test_a_trial_that_hangs_fails_charged_at_most_its_limit_and_the_arm_goes_on(tmp_path):
    path = toy_file(tmp_path, "tests.toys:hanging_net", budget="60s", steps=4)
    path.write_text(path.read_text().replace("[1, 2, 4]", "[2, 4]").replace("reference = 1", "reference = 2"))
    done = run(
        "run", "--space", path, "--strategies", "exhaustive", "--trial-timeout", "15s", "--out", tmp_path / "run"
    )
    assert done.returncode == 0, done.stderr
    records = read_run(tmp_path / "run").records
    hung = next(record for record in records if record.status == "failed")
    assert hung.cause.startswith(
        "its worker process died, and died again when retried: it hung, and was ended after 15.0 s"
    )
    assert hung.cause.endswith("in _hang")
    assert 25 < hung.cost.device_s <= 60
    assert any(record.status == "completed" for record in records)


@pytest.mark.slow
def test_a_trial_whose_workers_are_killed_twice_names_the_signal(tmp_path):
    path = toy_file(tmp_path, "tests.toys:killed_net", budget="6s", steps=4)
    path.write_text(path.read_text().replace("[1, 2, 4]", "[2, 4]").replace("reference = 1", "reference = 2"))
    done = run("run", "--space", path, "--strategies", "exhaustive", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    (killed,) = {record.cause for record in read_run(tmp_path / "run").records if record.status == "failed"}
    assert killed.endswith("it was ended by SIGKILL" if linux() >= (6, 15) else "or left by os._exit")


def linux() -> tuple[int, int]:
    """Return the version of Linux."""
    first, second = re.findall(r"\d+", os.uname().release)[:2]
    return int(first), int(second)


def test_last_words_are_written_through_no_link(tmp_path):
    (tmp_path / "diary").write_text("precious")
    (tmp_path / "trial").mkdir()
    (tmp_path / "trial" / LAST_WORDS).symlink_to(tmp_path / "diary")
    with watched(tmp_path / "trial", 60.0):
        pass
    assert (tmp_path / "diary").read_text() == "precious"
