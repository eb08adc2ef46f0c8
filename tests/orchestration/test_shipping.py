"""A user's files reach machines that do not have them."""

import shutil
import subprocess
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from rfsearch import sources
from rfsearch.ledger import read_run
from rfsearch.orchestration.engine import _files_of
from tests.orchestration.runs import command, environment, node_without, unshared, wait
from tests.toys import toy_file

NET = """
from torch import nn
from .parts import head

def make(num_classes, in_channels=3):
    from package.late import stem
    return nn.Sequential(stem(in_channels), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), head(num_classes))
"""
FILES = {
    "package/__init__.py": "",
    "package/net.py": NET,
    "package/parts.py": "from torch import nn\n\ndef head(n): return nn.Conv2d(8, n, 1)\n",
    "package/late.py": "from torch import nn\n\ndef stem(n): return nn.Conv2d(n, 8, 3, 4, 1)\n",
}


@pytest.fixture
def package(tmp_path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "own" / "package"


@pytest.fixture(autouse=True)
def forgets(monkeypatch):
    monkeypatch.setattr(sources, "_sent", {})


def moved(package: Path, tmp_path: Path) -> dict[str, str]:
    """Pack a package, take it away, and unpack it somewhere else."""
    files = sources.pack(map(str, sources.list_imported_files(package / "net.py")))
    shutil.rmtree(package)
    return sources.unpack(files, tmp_path / "there")


def test_what_was_packed_is_imported_where_it_was_unpacked(package, tmp_path):
    moved(package, tmp_path)
    module = sources.import_source(str(package / "net.py"))
    assert module.__file__ == str(tmp_path / "there" / (package / "net.py").relative_to("/"))
    assert module.make(5)[-1].out_channels == 5


def test_other_processes_of_a_machine_are_told_where_it_lies(package, tmp_path):
    places = moved(package, tmp_path)
    assert places
    assert sources.sent() == places


def test_a_machine_that_has_the_same_files_uses_them(package, tmp_path):
    files = sources.pack([str(package / "net.py")])
    assert sources.unpack(files, tmp_path / "there") == {}
    assert not (tmp_path / "there").exists()
    (package / "net.py").write_text(NET + "\n")  # an older copy of a file, or a newer one
    assert sources.unpack(files, tmp_path / "there")


@pytest.mark.slow
@pytest.mark.skipif(not unshared(), reason="mount namespaces are not allowed here")
def test_a_machine_without_the_users_files_trains_with_them(package, tmp_path):
    (shared := tmp_path / "shared").mkdir()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        with node_without(package.parent, cluster.address):
            ray.init(address=cluster.address, log_to_driver=False)
            wait(lambda: ray.cluster_resources().get("CPU"), 60)
            ray.shutdown()
            words = [
                "run",
                "--space",
                toy_file(shared, budget="3x", steps=4),
                "--backbone",
                f"{package / 'net.py'}:make",
            ]
            words += [
                "--site",
                "2",
                "--strategies",
                "exhaustive",
                "--address",
                cluster.address,
                "--out",
                shared / "run",
            ]
            told = subprocess.run(command(*words), capture_output=True, text=True, env=environment(), timeout=300)
            assert told.returncode == 0, told.stderr
            assert {record.status for record in read_run(shared / "run").records} <= {"completed", "cut"}
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_a_confirmation_has_the_files_of_the_run_that_it_lies_in(tmp_path):
    """It has no manifest of its own."""
    run_dir = shutil.copytree(Path(__file__).parents[1] / "old_runs" / "first", tmp_path / "run")
    (run_dir / "confirmation").mkdir()
    assert _files_of(run_dir / "confirmation") == _files_of(run_dir)
