"""Starting Ray and joining a cluster: what keeps Ray from it is one message within seconds."""

import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from rfsearch import cli, interrupt
from rfsearch.errors import RequestError
from rfsearch.ledger import read_run
from rfsearch.orchestration import Engine, Resources, session
from tests.orchestration.runs import command, environment, wait_for_events
from tests.toys import toy_file

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def silent():
    """The address of a server that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "cluster at 127.0.0.1:1 cannot be joined: .*refused"),
        ("[::1]:1", "cannot be joined"),
        ("no-such-host.invalid:6379", "cannot be joined"),
        pytest.param("10.255.255.1:6379", "cannot be joined", marks=pytest.mark.slow),
        ("ray://127.0.0.1:10001", "Ray Client cannot run a search.*--address auto"),
        ("nonsense", "HOST:PORT of a Ray cluster's head, or auto. Got 'nonsense'"),
        ("a:b:c", "Got 'a:b:c'"),
        ("http://127.0.0.1:8265", "Got 'http"),
        ("127.0.0.1:0", "Got '127.0.0.1:0'"),
        ("127.0.0.1:99999", "Got '127.0.0.1:99999'"),
        (" ", "Got ' '"),
    ],
)
def test_a_wrong_address_is_reported_in_one_message_within_seconds(address, message):
    began = time.monotonic()
    with pytest.raises(RequestError, match=message), Engine(address, Resources()):
        pass
    assert time.monotonic() - began < 30
    assert not ray.is_initialized()


def test_a_silent_server_is_reported_within_seconds(silent):
    began = time.monotonic()
    with pytest.raises(RequestError, match="something listens there but does not answer"):
        session.join(silent)
    assert time.monotonic() - began < 10


def test_a_silent_server_ends_the_command_with_one_message(call, silent, tmp_path):
    options = ["--strategies", "random", "--out", tmp_path / "run", "--address", silent]
    code, _, err = call("run", "--space", toy_file(tmp_path), *options)
    assert code == 2, err
    assert f"the Ray cluster at {silent} cannot be joined: something listens there but does not answer" in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (
            "raise ConnectionError('Could not find any running Ray instance.')",
            "Could not find any running Ray instance",
        ),
        ("import time; time.sleep(100)", "no Ray cluster answered within 2 s"),
    ],
)
def test_a_cluster_that_ray_cannot_join_is_reported_in_one_message(monkeypatch, code, why):
    monkeypatch.setattr(session, "_JOIN", code)
    monkeypatch.setattr(session, "_JOIN_S", 2.0)
    with pytest.raises(RequestError, match=f"the Ray cluster at auto cannot be joined: .*{why}"):
        session.join("auto")


ANOTHER_VERSION = """
from ray._private.utils import check_version_info

check_version_info({"ray_version": "2.40.0", "python_version": "3.10.4"}, "10.0.0.7:38211")
"""


def test_a_cluster_of_another_version_is_told_by_both_versions(monkeypatch):
    monkeypatch.setattr(session, "_JOIN", ANOTHER_VERSION)
    monkeypatch.setattr(session, "_check_listening", lambda address: None)
    with pytest.raises(RequestError) as told:
        session.join("10.0.0.1:6379")
    here = f"Ray {ray.__version__} on Python {platform.python_version()}"
    assert f"cannot be joined: it runs Ray 2.40.0 on Python 3.10.4, and this is {here}. All" in str(told.value)


def test_a_cluster_is_joined_and_left(monkeypatch):
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        with Engine(cluster.address, Resources()) as engine:
            assert engine.workers == 1
            assert signal.getsignal(signal.SIGTERM) is interrupt.on_signal
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
        monkeypatch.setattr(session, "_JOIN", "raise SystemExit('RPC error: InvalidAuthToken: token is missing')")
        with pytest.raises(RequestError, match="requires a token.*RAY_AUTH_MODE=token.*RAY_AUTH_TOKEN"):
            session.join(cluster.address)
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_a_slow_start_of_ray_is_reported_in_one_message(monkeypatch):
    def slow(**_):
        raise Exception("The current node timed out during startup. This could happen because ...")

    monkeypatch.setattr(ray, "init", slow)
    with pytest.raises(RequestError, match="Ray cannot start .* timed out during startup.* Free some, and try again"):
        session.start("unused")


def test_ray_is_started_again_where_its_first_start_was_too_slow(monkeypatch):
    starts = []

    def slow_at_first(**options):
        starts.append(options["address"])
        if len(starts) == 1:
            raise Exception("The current node timed out during startup. This could happen because ...")

    monkeypatch.setattr(ray, "init", slow_at_first)
    session.start("unused")
    assert starts == ["local", "local"]


STARTED = """
import signal
from rfsearch.orchestration import Engine, Resources

before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
with Engine(None, Resources()) as engine:
    assert engine.workers >= 1
assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
print("given back")
"""


LOOKED_INTO = """
import os, stat
from pathlib import Path
from rfsearch.orchestration import Engine, Resources

with Engine(None, Resources()):
    (own,) = Path(os.environ["RAY_TMPDIR"]).iterdir()
    print(oct(stat.S_IMODE(own.stat().st_mode)), len(list(own.glob("r/session_2*/logs/*"))) > 3)
print(own.exists())
"""


LISTENING = """
import os, psutil
from rfsearch.orchestration import Engine, Resources

with Engine(None, Resources()):
    mine = psutil.Process().children(recursive=True)
    found = [one for process in mine for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]
    print(len(found) > 3, {one.laddr.ip for one in found} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"})
    print(os.environ["RAY_AUTH_MODE"])
"""


@pytest.mark.slow
def test_a_session_of_this_machine_listens_to_it_alone_and_asks_for_a_token():
    env = {name: value for name, value in environment().items() if name != "RAY_AUTH_MODE"}
    told = subprocess.run([sys.executable, "-c", LISTENING], capture_output=True, text=True, env=env, timeout=120)
    assert told.stdout == "True True\ntoken\n", told.stderr


NAMELESS = """
import os, pwd

def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")

pwd.getpwuid = unknown
"""


@pytest.fixture
def nameless(tmp_path) -> dict[str, str]:
    """Variables of a process whose user has neither a name nor a home. Its Ray has one worker."""
    (tmp_path / "sitecustomize.py").write_text(NAMELESS)
    left_out = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME")
    env = {name: value for name, value in environment().items() if name not in left_out}
    return {**env, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}


@pytest.mark.slow
def test_ray_starts_without_a_name_and_in_a_long_temporary_folder_and_restores_signal_handlers(nameless, tmp_path):
    long = tmp_path / ("a" * 90)
    long.mkdir()
    env = {**nameless, "TMPDIR": str(long)}
    env.pop("RAY_TMPDIR", None)
    told = subprocess.run([sys.executable, "-c", STARTED], capture_output=True, text=True, env=env, timeout=120)
    assert told.stdout == "given back\n", told.stderr


@pytest.mark.slow
def test_rays_folder_is_its_users_alone_and_gone_afterwards():
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        env = {**environment(), "RAY_TMPDIR": short, "PYTHONPATH": str(ROOT)}
        told = subprocess.run([sys.executable, "-c", LOOKED_INTO], capture_output=True, text=True, env=env, timeout=120)
    assert told.stdout == "0o700 True\nFalse\n", told.stderr


def test_a_folder_too_long_for_the_sockets_of_ray_is_reported_in_one_message(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("a" * 90)))
    with pytest.raises(
        RequestError, match="whose path has at most 2[0-9] bytes. Got .*aaa. Set RAY_TMPDIR to a shorter"
    ):
        session.folder().__enter__()
    assert not ray.is_initialized()


@pytest.mark.slow
@pytest.mark.parametrize("process", ["raylet", "gcs_server"])
def test_a_run_whose_ray_has_died_ends_at_once_and_goes_on_when_resumed(process, tmp_path):
    space, run_dir = toy_file(tmp_path, budget="4x", steps=200), tmp_path / "run"
    words = ["run", "--space", space, "--strategies", "exhaustive", "--out", run_dir]
    with (tmp_path / "told").open("w") as told:  # a pipe would be held open by what is left of Ray
        child = subprocess.Popen(command(*words), env=environment(), stdout=told, stderr=told)
        wait_for_events(run_dir, 3, child)
        for one in psutil.Process(child.pid).children():
            if one.name() == process:
                one.kill()
        child.wait(90)
    told = (tmp_path / "told").read_text(errors="replace")
    assert child.returncode == 130, told
    assert f"Ray cannot go on: its process {process} has ended. Nothing is lost." in " ".join(told.split())
    again = subprocess.run(command("resume", run_dir), env=environment(), capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert {record.status for record in read_run(run_dir).records} <= {"completed", "cut"}


@pytest.mark.parametrize("arguments", [["--version"], ["plan", "--space", "hellen"]])
def test_the_command_restores_signal_handlers(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["rfsearch", *arguments])
    before = [signal.signal(number, handler) for number, handler in HANDLERS.items()]
    try:
        with pytest.raises(SystemExit):
            cli.main()
        assert {number: signal.getsignal(number) for number in HANDLERS} == HANDLERS
    finally:
        for number, handler in zip(HANDLERS, before, strict=True):
            signal.signal(number, handler)


def _handler(number, frame):
    """Somebody's own handler."""


HANDLERS = {signal.SIGINT: _handler, signal.SIGTERM: signal.SIG_IGN}


@pytest.mark.slow
def test_a_user_without_name_or_home_can_search(nameless, tmp_path):
    told = subprocess.run(
        command("run", "--space", toy_file(tmp_path, budget="2x"), "--strategies", "exhaustive", "--out", "run"),
        capture_output=True, text=True, env=nameless, timeout=200, cwd=tmp_path,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert not (tmp_path / "~").exists()
