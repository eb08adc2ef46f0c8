"""A plugin package, really installed: its names are listed, its own checks pass, a search with it can be planned."""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.orchestration.runs import environment as variables

pytest.importorskip("setuptools", reason="builds the plugin")

# Commands in one process, since each takes seconds to start, and trained here, as Ray would.
COMMANDS = """
import json, sys
from tests.small_run import run_in_process
print(json.dumps([run_in_process(*words) for words in json.loads(sys.argv[1])]))
"""
MAIN = ("-c", "from rfsearch.cli import main; main()")
SOURCE = Path(__file__).parent / "plugin_example"
OF_THE_PLUGIN = {
    ("backbone", "two-stage"),
    ("strategy", "halving"),
    ("task", "focal-segmentation"),
    ("task", "depth"),
    ("layout", "npz"),
    ("layout", "faces-in-relief"),
    ("space", "corners"),
    ("space", "relief"),
    ("figure", "cost-by-status"),
    ("kind of choice", "kernel"),
}


LARGEST = """
from rfsearch.strategies import Exhausted

class Largest:
    def __init__(self, space, seed):
        self._candidate, self._tried = space.uniform(space.choices[-1]), 0

    def suggest(self, pending):
        return Exhausted("one is enough") if self._tried or pending else self._candidate

    def observe(self, record):
        self._tried += 1
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """A fresh virtual environment, with the plugin in it and the running interpreter's packages behind it."""
    root = tmp_path_factory.mktemp("plugin")
    # Built from a copy: a build leaves its folders beside the source.
    shutil.copytree(SOURCE, root / "source", ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    told(sys.executable, "-m", "venv", "--without-pip", str(root / "env"), at=root)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    own = Path(sysconfig.get_path("purelib", vars={"base": str(root / "env")}))
    assert own.parts[-2:] == (version, "site-packages") or os.name == "nt"
    # Through addsitedir rather than by path alone, so that what is installed there as editable is found too.
    behind = sysconfig.get_path("purelib")
    (own / "behind.pth").write_text(f"import site; site.addsitedir({behind!r})\n")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    python(root, "-m", "pip", "install", *options, str(root / "source"))
    return root


def python(root: Path, *arguments: str) -> str:
    """What the environment's interpreter prints."""
    return told(interpreter(root), *arguments, at=root)


def interpreter(root: Path) -> str:
    folder = "Scripts" if os.name == "nt" else "bin"
    return str(root / "env" / folder / "python")


def without_path() -> dict[str, str]:
    """Variables in which only what is installed is found, not the checkout, and runs have one worker."""
    return {name: value for name, value in variables().items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def told(*command: str, at: Path, **more: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=at, env=without_path() | more)
    assert done.returncode == 0, f"{command} gave {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def rfsearch(root: Path, *arguments: str) -> Any:
    """What the command prints, read from JSON."""
    return json.loads(python(root, *MAIN, *arguments, "--json"))


def commands(root: Path, *several: tuple[str, ...]) -> list[str]:
    """What each of several commands prints."""
    words = json.dumps(several)
    checkout = str(SOURCE.parents[1])
    printed = told(interpreter(root), "-c", COMMANDS, words, at=root, PYTHONPATH=checkout)
    answer: list[str] = json.loads(printed.splitlines()[-1])
    return answer


def test_its_names_are_listed_beside_those_that_ship(environment):
    found = {(row["kind"], row["name"]) for row in rfsearch(environment, "list")}
    assert found >= OF_THE_PLUGIN
    assert found >= {("backbone", "wei-small"), ("strategy", "random"), ("task", "segmentation"), ("space", "helen")}
    assert found >= {("layout", name) for name in ("folder", "helen", "voc", "rendered-faces")}
    assert ("figure", "pareto") in found


def test_a_search_of_its_space_with_its_strategy_can_be_planned(environment):
    planned = rfsearch(environment, "plan", "--space", "corners", "--strategies", "halving")
    assert planned["arms"] == 1
    assert planned["reference_flop"] > 0
    assert "Backbone two-stage: trains from scratch." in planned["notices"]


def test_its_strategy_task_layout_kind_of_choice_and_figure_serve_one_run(environment):
    """Killed, resumed, reported and exported. Of depths the least error leads, and the page shows them."""
    draw = np.random.default_rng(0)
    data, out = environment / "arrays", environment / "run"
    data.mkdir()
    for title, count in (("train", 8), ("val", 2), ("test", 2)):
        images = draw.integers(0, 256, (count, 64, 64, 3), np.uint8)
        np.savez(data / f"{title}.npz", images=images, depths=images[..., 0] / 255)
    (environment / "largest.py").write_text(LARGEST)  # keeps the checkpoint of a kernel, as each arm does of its best
    strategies = ("--strategies", "halving,exhaustive,random,optuna,inflation,largest.py:Largest")
    request = ("--space", "relief", "--data", str(data), *strategies)
    planned = rfsearch(environment, "plan", *request)
    assert planned["data"].startswith("arrays: 64 x 64 px (W x H), train 8, val 2, test 2")
    kill_after_one_trial(environment, *MAIN, "run", *request, "--out", "run", "--gpus-per-trial", "0")
    said, reported = commands(environment, ("resume", "run"), ("report", "run", "--json"))
    assert "kernel 7" in said

    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["resolved_space"]["data"]["layout"] == "npz"
    assert manifest["resolved_space"]["task"]["name"] == "depth"
    trials = pd.read_csv(out / "trials.csv")
    scored = trials[trials.status.isin(["completed", "cut"])]
    assert set(scored.strategy) == {"halving", "exhaustive", "random", "optuna", "inflation", "Largest"}
    assert (scored.val > 0).all()
    tried = {name: set(arm.candidate) for name, arm in trials.groupby("strategy")}  # `optuna` prunes some
    sized = {f'{{"6": {{"kind": "kernel", "size": {size}}}}}' for size in (5, 7)}
    assert tried["exhaustive"] == {*sized, *(f'{{"6": {{"dilation": {dilation}}}}}' for dilation in (1, 2, 4))}
    assert tried["random"] & sized
    assert tried["optuna"] & sized

    verdict = json.loads(reported)
    assert verdict["verdict"]["best"]["trial"] == scored.loc[scored.val.idxmin()].trial
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "The figure is the mean absolute error of the depth." in page
    assert all(text in page for text in ("mae_pooled, lower is better", "</i>near</li>", "</i>far</li>", "kernel 5"))
    headings = [page.index(f"<h2>{h}</h2>") for h in ("Score against cost", "Where the time went", "How to repeat it")]
    assert headings == sorted(headings)
    assert '<figure class="plot" id="figure-cost-by-status">' in page
    assert '{"name":"cost-by-status","data":[{"name":"completed"' in page
    anytime = pd.read_csv(out / "anytime.csv").dropna(subset="val")
    assert all((arm.val.diff().dropna() <= 0).all() for _, arm in anytime.groupby(["strategy", "seed"]))

    learned = scored.loc[scored[scored.strategy == "inflation"].val.idxmin()].trial
    options = ("--integer", "--finetune", "2", "--formats", "program")
    exported, printed = commands(
        environment,
        ("export", "run", "--trial", learned, *options, "--json"),
        ("export", "run", "--trial", "Largest-0-000", "--formats", "none"),
    )
    exported = json.loads(exported)
    assert exported["primary"] == "mae_pooled"
    assert exported["direction"] == "minimize"
    tried_ways = exported["scores"][1:]
    assert [row["val"] for row in exported["scores"] if row["chosen"]] == [min(row["val"] for row in tried_ways)]

    assert "make_backbone('two-stage', 1)" in printed
    assert "logit" not in printed
    patch = json.loads((out / "export" / "patch.json").read_text())
    assert patch["sites"] == {"6": {"kind": "kernel", "size": 7}}
    load = "import rfsearch; print(rfsearch.trained('run', 'Largest-0-000')[6].kernel_size)"
    assert python(environment, "-c", load).strip() == "(7, 7)"


def kill_after_one_trial(root: Path, *arguments: str) -> None:
    """Run rfsearch with --out run until its ledger holds a record, then end it by SIGKILL."""
    ledger = root / "run" / "ledger.jsonl"
    with (root / "killed.txt").open("w") as output:
        killed = subprocess.Popen(
            [interpreter(root), *arguments],
            cwd=root, env=without_path(), stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    while killed.poll() is None and not (ledger.exists() and b'"finish"' in ledger.read_bytes()):
        time.sleep(0.05)
    assert killed.poll() is None, (root / "killed.txt").read_text()
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()


@pytest.mark.slow
def test_guiding_paths_by_classes_that_a_task_has_none_of_is_one_message(environment):
    guided = '[paths.bi]\nmanual = [1, 2]\nlabels = [["nose"], []]\n\n[presets.mini]'
    text = (SOURCE / "rfsearch_example" / "relief.toml").read_text()
    (environment / "guided.toml").write_text(text.replace("[presets.mini]", guided, 1))
    request = ("plan", "--space", "guided.toml", "--paths", "2", "--strategies", "inflation")
    command = [interpreter(environment), *MAIN, *request]
    done = subprocess.run(command, capture_output=True, text=True, cwd=environment, env=without_path())
    assert done.returncode == 2
    assert "guided by the label 'nose'" in " ".join(done.stderr.split())
    assert not any(text in done.stderr for text in ("Traceback", "Passed over"))


@pytest.mark.slow
def test_its_own_tests_pass(environment):
    said = python(environment, "-m", "pytest", "-q", "-p", "no:cacheprovider", "source/tests")
    assert "passed" in said
    assert "skipped" not in said


def test_without_it_none_of_its_names_is_there():
    from rfsearch import plugins

    groups = {kind: group for group, kind in plugins.KINDS.items()}
    assert not any(name in plugins.names(groups[kind]) for kind, name in OF_THE_PLUGIN)
