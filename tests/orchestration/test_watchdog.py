"""Workers that hang, crash or are ended: where they stood, why they ended, and what that is charged."""

import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from ray.exceptions import OutOfMemoryError, RayActorError

import rfsearch
from rfsearch.ledger import read_run
from rfsearch.orchestration.watchdog import LAST_WORDS, cause_of_death, patience, watched
from tests.orchestration.runs import call as run
from tests.orchestration.runs import environment
from tests.toys import toy_file

SCRIPT = """
import ctypes, faulthandler, sys, time
from pathlib import Path
from rfsearch.orchestration.watchdog import watched

def sleeps():
    time.sleep(60)

def sleeps_with_the_interpreter():
    ctypes.PyDLL(None).sleep(60)

def crashes():
    ctypes.string_at(0)

with watched(Path(sys.argv[2]), 1.0):
    globals()[sys.argv[1]]()
"""


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("sleeps", r"it hung, and was ended after 1\.00 s without a validation, in loop\.py, line \d+, in sleeps"),
        ("sleeps_with_the_interpreter", r"it hung, .*, in loop\.py, line \d+, in sleeps_with_the_interpreter"),
        ("crashes", r"it crashed: Segmentation fault, in loop\.py, line \d+, in crashes"),
    ],
)
def test_a_process_that_hangs_or_crashes_ends_and_says_where_it_stood(tmp_path, does, said):
    script = tmp_path / "loop.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script, does, tmp_path / "trial"], env=environment(), capture_output=True, timeout=50
    )
    assert done.returncode != 0
    cause = cause_of_death(None, tmp_path / "trial", 1.0, killed_for_memory=False)
    assert re.fullmatch(said, cause), cause


def test_a_training_that_goes_on_leaves_no_words_and_is_not_ended(tmp_path):
    with watched(tmp_path / "trial", 60.0):
        assert (tmp_path / "trial" / LAST_WORDS).exists()
    assert not (tmp_path / "trial" / LAST_WORDS).exists()
    with pytest.raises(ValueError, match="its own"), watched(tmp_path / "trial", 60.0):
        raise ValueError("its own")
    assert not (tmp_path / "trial" / LAST_WORDS).exists()


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
    assert cause_of_death(None, tmp_path, 1.0, False).endswith(", in net.py, line 12, in forward")


@pytest.mark.parametrize(
    ("error", "killed", "said"),
    [
        (OutOfMemoryError("low"), False, "Ray ended it because its machine ran out of memory"),
        (None, True, "the system ended it because its machine ran out of memory"),
        (RayActorError(error_msg="The actor died because its node has died."), False, "its machine left the cluster"),
        (None, False, "it was ended from outside, by a signal or for lack of memory, or left by os._exit"),
    ],
)
def test_what_is_known_of_an_end_is_said(tmp_path, error, killed, said):
    assert cause_of_death(error, tmp_path, 1.0, killed) == said


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
