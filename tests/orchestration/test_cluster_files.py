"""The files for clusters: of the form that their readers take, with commands that the command line takes."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from rfsearch.cli.app import app
from rfsearch.ledger import read_run
from tests.orchestration.runs import environment
from tests.toys import toy_file

FILES = Path(__file__).parents[2] / "examples" / "cluster"
STUBS = {
    "scontrol": "#!/bin/sh\nprintf 'first\\nsecond\\n'\n",
    "srun": '#!/bin/sh\nwhile [ "${1#--}" != "$1" ]; do shift; done\n'
    '[ "$1" = hostname ] && { echo "::1 127.0.0.1"; exit; }\nexec "$@"\n',
    "rfsearch": f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c 'from rfsearch.cli import main; main()' \"$@\"\n",
}


def takes(line: str) -> None:
    program, name, *words = shlex.split(line)
    assert program == "rfsearch"
    group = typer.main.get_command(app)
    group.commands[name].make_context(name, words, parent=typer.Context(group))


def test_the_job_of_kuberay_is_one():
    job = yaml.safe_load((FILES / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    takes(job["spec"]["entrypoint"])
    groups = job["spec"]["rayClusterSpec"]
    for pod in (groups["headGroupSpec"], *groups["workerGroupSpecs"]):
        spec = pod["template"]["spec"]
        (container,) = spec["containers"]
        assert container["resources"]["limits"] == container["resources"]["requests"]  # else pods are evicted
        assert {mount["name"] for mount in container["volumeMounts"]} == {one["name"] for one in spec["volumes"]}
        assert container["volumeMounts"][0]["mountPath"] == "/shared"
    assert isinstance(groups["headGroupSpec"]["rayStartParams"]["num-cpus"], str)


def test_rays_launcher_takes_its_file():
    text = (FILES / "launcher.yaml").read_text()
    config = yaml.safe_load(text)
    validate_config(prepare_config(config))
    kinds = config["available_node_types"].values()
    assert sum(kind["min_workers"] for kind in kinds if kind["resources"]["CPU"] and "min_workers" in kind) >= 1
    takes(next(line for line in text.splitlines() if "ray exec" in line).split("'")[1])


def test_the_image_installs_this_package():
    text = (FILES / "Dockerfile").read_text()
    assert "COPY . /opt/rfsearch" in text
    assert "pip install --no-cache-dir /opt/rfsearch" in text


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_script_of_slurm_searches_on_two_nodes_and_leaves_none_behind(tmp_path):
    """Slurm itself is stood in for: both nodes are this machine."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name, text in STUBS.items():
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(0o755)
    path = os.pathsep.join([str(bin_), str(Path(sys.executable).parent), os.environ["PATH"]])
    slurm = {"SLURM_JOB_NODELIST": "two", "SLURM_CPUS_PER_TASK": "1", "PORT": "6399", "PATH": path}
    inherited = {key: value for key, value in environment().items() if key != "RAY_OVERRIDE_RESOURCES"}
    words = [
        "run",
        "--space",
        toy_file(tmp_path, budget="4x", steps=4),
        "--strategies",
        "exhaustive",
        "--gpus-per-trial",
        "0",
    ]
    done = subprocess.run(
        ["bash", FILES / "slurm.sh", *map(str, words), "--out", str(tmp_path / "run")],
        env={**inherited, **slurm}, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    run = read_run(tmp_path / "run")
    assert run.manifest.workers == 2
    assert {record.status for record in run.records} <= {"completed", "cut"}
    left = subprocess.run(["pgrep", "-f", "ray start.*6399"], capture_output=True, text=True).stdout.split()
    for process in left:
        os.kill(int(process), signal.SIGKILL)
    assert not left
