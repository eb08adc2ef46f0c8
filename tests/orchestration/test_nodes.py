"""Machines of a cluster: their room for trials, who comes and goes, and who does not see the run directory."""

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.exceptions import RayError

from rfsearch.errors import RequestError
from rfsearch.orchestration import Engine, Resources, nodes
from rfsearch.orchestration.nodes import Machine, Roster, check_seen
from tests.calls import wrong
from tests.orchestration.runs import node_without, unshared, wait
from tests.toys import toy_file


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
    with node_without(folder, cluster.address):
        ray.init(address=cluster.address, log_to_driver=False)
        wait(lambda: len(ray.nodes()) == 2, 60)
        check_seen(shared)
        with pytest.raises(RequestError, match=f"of the cluster cannot see {folder}"):
            check_seen(folder)
        assert not list(folder.iterdir())
        ray.shutdown()
        space = toy_file(shared, budget="60x", steps=2)
        words = ["run", "--space", space, "--strategies", "exhaustive", "--address", cluster.address]
        wrong(call(*words, "--out", folder / "run"), "cannot see", "--out must be a folder that all machines share")
        assert not (folder / "run").exists()


def test_a_single_machine_is_not_asked(cluster, tmp_path):
    ray.init(address=cluster.address, log_to_driver=False)
    check_seen(tmp_path / "not there")


THREE = {"a": Machine("10.0.0.1", 4, 0), "b": Machine("10.0.0.2", 3, 2), "head": Machine("10.0.0.9", 0, 0)}


@pytest.mark.parametrize(
    ("cpus", "gpus", "room"), [(1, 0, [4, 3, 0]), (2, 0, [2, 1, 0]), (1, 0.5, [0, 3, 0]), (0.5, 0.3, [0, 6, 0])]
)
def test_a_trial_runs_on_one_machine(monkeypatch, cpus, gpus, room):
    monkeypatch.setattr(nodes, "machines", lambda: THREE)
    assert [machine.room(cpus, gpus) for machine in THREE.values()] == room
    assert Roster(cpus, gpus, print).room == sum(room)


def test_machines_that_leave_and_join_are_named(monkeypatch):
    there, said = dict(THREE), []
    monkeypatch.setattr(nodes, "machines", lambda: dict(there))
    monkeypatch.setattr(nodes, "_LOOK_AGAIN_S", 0.0)
    roster = Roster(2, 0, said.append)
    del there["a"]
    roster.look()
    roster.look()
    del there["head"], there["b"]  # nobody misses a head that trains nothing
    roster.look()
    assert roster.room == 0
    there["c"] = Machine("10.0.0.3", 8, 0)
    roster.look()
    assert roster.room == 4
    assert said == [
        "10.0.0.1 left the cluster: trials that ran there go on elsewhere, from their last rung.",
        "10.0.0.2 left the cluster: trials that ran there wait for a machine. None is left that has room for one; "
        "Ctrl-C ends the run, which can be resumed.",
        "10.0.0.3 joined the cluster: 4 at a time now.",
    ]


def test_a_head_that_does_not_answer_changes_nothing(monkeypatch):
    monkeypatch.setattr(nodes, "machines", lambda: THREE)
    monkeypatch.setattr(nodes, "_LOOK_AGAIN_S", 0.0)
    roster = Roster(1, 0, pytest.fail)

    def away():
        raise RayError("unavailable")

    monkeypatch.setattr(nodes, "machines", away)
    roster.look()
    assert roster.room == 7


def test_a_trial_that_fits_on_no_machine_is_refused(cluster):
    cluster.add_node(num_cpus=2)
    with Engine(cluster.address, Resources(cpus=3)) as engine, pytest.raises(RequestError) as refused:
        _ = engine.resources
    assert "a trial asks for 3 CPUs, but 2 are available on one machine" in str(refused.value)
