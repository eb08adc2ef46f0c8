"""Machines of a cluster: their room for trials, who comes and goes, and who does not see the run directory."""

from types import SimpleNamespace

import pytest
import ray
from ray.autoscaler import sdk
from ray.cluster_utils import Cluster
from ray.exceptions import RayError

from rfsearch.conduct import start_engine
from rfsearch.errors import RequestError, RunDirectoryError
from rfsearch.ledger import Request
from rfsearch.orchestration import Engine, Resources, nodes, remote_files, trainable
from rfsearch.orchestration.nodes import Machine, Roster, check_seen, wait_for_first
from rfsearch.orchestration.remote_files import read_at
from rfsearch.orchestration.trainable import BLIND, CHECKPOINTS, FAULT, PATIENCE, TrialTraining
from rfsearch.orchestration.watchdog import LAST_WORDS
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
        check_seen(shared, 1, 0)
        with pytest.raises(RequestError, match=f"of the cluster cannot see {folder}"):
            check_seen(folder, 1, 0)
        assert not list(folder.iterdir())
        ray.shutdown()
        space = toy_file(shared, budget="60x", steps=2)
        words = ["run", "--space", space, "--strategies", "exhaustive", "--address", cluster.address]
        wrong(call(*words, "--out", folder / "run"), "cannot see", "--out must be a folder that all machines share")
        assert not (folder / "run").exists()


def test_a_single_machine_is_not_asked(cluster, tmp_path):
    ray.init(address=cluster.address, log_to_driver=False)
    check_seen(tmp_path / "not there", 1, 0)


def test_the_only_machine_with_cpus_is_asked_where_it_is_another_one(tmp_path, monkeypatch):
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        check_seen(tmp_path / "not there", 1, 0)  # nobody trains yet
        cluster.add_node(num_cpus=1)
        (worker,) = [machine for machine in nodes.machines().values() if machine.cpus]
        check_seen(tmp_path, 1, 0)
        monkeypatch.setattr(nodes, "_look", lambda node, mark: ray.put(False))
        with pytest.raises(RequestError, match=f"{worker.address} of the cluster cannot see {tmp_path}"):
            check_seen(tmp_path, 1, 0)
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_a_file_of_another_machine_is_read_there(cluster, tmp_path, monkeypatch):
    ray.init(address=cluster.address, log_to_driver=False)
    (tmp_path / "words.txt").write_text("of its end")
    (there,) = [machine.address for machine in nodes.machines().values()]
    monkeypatch.setattr(remote_files, "get_node_ip_address", lambda: "10.0.0.1")  # so that it is another one
    monkeypatch.setattr(remote_files, "_PATIENCE_S", 60.0)
    assert read_at(there, tmp_path / "words.txt") == "of its end"
    assert read_at(there, tmp_path / "none.txt") == ""
    assert read_at("10.0.0.2", tmp_path / "words.txt") == ""  # none of the cluster's


THREE = {"a": Machine("10.0.0.1", 4, 0), "b": Machine("10.0.0.2", 3, 2), "head": Machine("10.0.0.9", 0, 0)}


def test_memory_limits_how_many_trials_run_side_by_side(monkeypatch):
    machine = Machine("10.0.0.1", 8, 0, 20 * 2**30)
    assert [machine.room(1, 0, memory * 2**30) for memory in (0, 2, 8, 20, 21)] == [8, 8, 2, 1, 0]
    monkeypatch.setattr(nodes, "machines", lambda: {"a": machine, "b": machine})
    assert Roster(1, 0, print, memory=8 * 2**30).room == 4


def test_the_memory_that_is_asked_for_reaches_the_engine():
    engine = start_engine(Request("helen", memory_per_trial="1.5g"))
    assert isinstance(engine, Engine)
    assert engine._asked == Resources(memory=1.5 * 2**30)


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


def test_machines_that_join_are_asked_whether_they_see_the_run(monkeypatch, tmp_path):
    there, asked, said = {"head": THREE["head"]}, {}, []
    monkeypatch.setattr(nodes, "machines", lambda: dict(there))
    monkeypatch.setattr(nodes, "_LOOK_AGAIN_S", 0.0)
    monkeypatch.setattr(nodes, "_look", lambda node, path: asked.setdefault(node, f"answer of {node}"))
    answers = {"answer of b": True, "answer of a": False, "answer of c": RayError("it has left")}

    def got(answer):
        if isinstance(answers[answer], RayError):
            raise answers[answer]
        return answers[answer]

    monkeypatch.setattr(nodes.ray, "wait", lambda some, num_returns, timeout: (some, []))
    monkeypatch.setattr(nodes.ray, "get", got)
    roster = Roster(1, 0, said.append, run_dir=tmp_path)
    roster.look()
    assert not asked  # a head that trains nothing need not see it
    there |= {"b": THREE["b"], "c": Machine("10.0.0.3", 1, 0)}
    roster.look()
    assert set(asked) == {"b", "c"}
    there["a"] = THREE["a"]
    with pytest.raises(RunDirectoryError, match=f"10.0.0.1 of the cluster cannot see {tmp_path}, .* rfsearch resume"):
        roster.look()


def test_machines_without_room_for_a_trial_are_not_asked(monkeypatch, tmp_path):
    there, asked = {"gpu": Machine("10.0.0.1", 8, 1)}, []
    monkeypatch.setattr(nodes, "machines", lambda: dict(there))
    monkeypatch.setattr(nodes, "_LOOK_AGAIN_S", 0.0)
    monkeypatch.setattr(nodes, "_look", lambda node, path: asked.append(node) or node)
    monkeypatch.setattr(nodes.ray, "wait", lambda some, num_returns, timeout: (some, []))
    monkeypatch.setattr(nodes.ray, "get", lambda answer: answer == "gpu")
    monkeypatch.setattr(nodes.ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "another"))
    roster = Roster(1, 1, print, run_dir=tmp_path)
    there["cpu"] = Machine("10.0.0.2", 64, 0)
    roster.look()
    check_seen(tmp_path, 1, 1)
    assert asked == ["gpu"]


@pytest.fixture
def worker(tmp_path):
    """A worker with a trial of a run."""
    made = object.__new__(TrialTraining)
    made.setup(
        {"trial": "a-0-000", "strategy": "a", "seed": 0, "candidate": "{}", "train_seed": 0, "limit": 1.0, PATIENCE: 9},
        trainings=SimpleNamespace(begin=lambda order: pytest.fail("it began")),
        run_dir=str(tmp_path / "shared" / "run"),
    )
    return made


def test_a_worker_that_does_not_see_the_run_makes_no_directory_of_its_own(worker, tmp_path, monkeypatch):
    monkeypatch.setattr(trainable, "get_node_ip_address", lambda: "10.0.0.2")
    assert worker.step() == {BLIND: "10.0.0.2", "done": True}
    assert not (tmp_path / "shared").exists()


def test_waiting_for_storage_is_not_taken_for_a_training_that_hangs(worker, tmp_path):
    folder = tmp_path / "shared" / "run" / CHECKPOINTS / "a-0-000"

    def pull(name):
        assert not (folder / LAST_WORDS).exists()
        raise RunDirectoryError("it is away")

    worker._remote = SimpleNamespace(pull=pull)
    assert worker.step() == {FAULT: "it is away", "done": True}


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
    with Engine(cluster.address, Resources(memory=2**49)) as engine, pytest.raises(RequestError) as refused:
        _ = engine.resources
    assert "a trial asks for 512 TiB of memory, but " in str(refused.value)
    assert "--memory-per-trial" in str(refused.value)


@pytest.fixture
def asked_for(monkeypatch):
    """What the autoscaler is asked for; nobody is there yet."""
    there, asked = {"head": THREE["head"]}, []
    monkeypatch.setattr(nodes, "machines", lambda: dict(there))
    monkeypatch.setattr(nodes, "_POLL_S", 0.0)
    monkeypatch.setattr(sdk, "request_resources", lambda bundles: asked.append(bundles))
    return there, asked


def test_the_first_machine_of_a_cluster_is_asked_for_and_waited_for(asked_for):
    (there, asked), said = asked_for, []
    asked_before = []

    def say(sentence):
        asked_before.extend(asked)
        said.append(sentence)
        there["a"] = THREE["a"]

    wait_for_first(2, 1, say)
    assert said == ["No machine of the cluster has CPUs for trials yet. One is asked for; it has 10 min 00 s to join."]
    assert (asked_before, asked) == ([], [[{"CPU": 2, "GPU": 1}], []])
    wait_for_first(2, 1, pytest.fail)  # it is there


def test_a_cluster_where_no_machine_joins_is_one_message(asked_for):
    with pytest.raises(
        RequestError, match=r"no machine with CPUs for trials has joined .*within 0.0100 s.*min_workers"
    ):
        wait_for_first(1, 0, lambda sentence: None, patience_s=0.01)
    assert asked_for[1] == [[{"CPU": 1}], []]
