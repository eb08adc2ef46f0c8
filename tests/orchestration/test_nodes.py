"""A machine of a cluster that does not see the run directory is named before anything is trained."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from rfsearch.errors import RequestError
from rfsearch.orchestration.nodes import check_seen
from tests.calls import wrong
from tests.orchestration.runs import environment
from tests.toys import toy_file

# A node whose file system has an empty folder in the place of the run's.
BLIND = (
    "mount -t tmpfs none {folder} && exec {ray} start --address={address} --num-cpus=1 --block --disable-usage-stats"
)


def unshared() -> bool:
    return shutil.which("unshare") is not None and not subprocess.run(["unshare", "-m", "true"], check=False).returncode


@pytest.fixture
def cluster():
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.mark.slow
@pytest.mark.skipif(not unshared(), reason="mount namespaces are not allowed here")
def test_a_node_with_a_disk_of_its_own_is_named(cluster, tmp_path, call):
    shared, folder = tmp_path / "shared", tmp_path / "own"
    for path in (shared, folder):
        path.mkdir()
    executable = Path(sys.executable).with_name("ray")
    script = BLIND.format(folder=folder, ray=executable, address=cluster.address)
    node = subprocess.Popen(
        ["unshare", "-m", "bash", "-c", script], env={**os.environ, **environment()}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        give_up = time.monotonic() + 60
        while len(ray.nodes()) < 2 and time.monotonic() < give_up:
            time.sleep(0.2)
        check_seen(shared)
        with pytest.raises(RequestError, match=f"of the cluster cannot see {folder}"):
            check_seen(folder)
        assert not list(folder.iterdir())
        ray.shutdown()
        space = toy_file(shared, budget="60x", steps=2)
        words = ["run", "--space", space, "--strategies", "exhaustive", "--address", cluster.address]
        wrong(call(*words, "--out", folder / "run"), "cannot see", "--out must be a folder that all machines share")
        assert not (folder / "run").exists()
    finally:
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()


def test_a_single_machine_is_not_asked(cluster, tmp_path):
    ray.init(address=cluster.address, log_to_driver=False)
    check_seen(tmp_path / "not there")
