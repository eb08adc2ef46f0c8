"""The examples run as they are, in small."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rfsearch import load_run
from rfsearch.data import rendered_faces
from tests.small_run import train_in_process

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_lightning_module_learns_its_field(tmp_path):
    pytest.importorskip("lightning")
    command = [sys.executable, ROOT / "examples" / "lightning_module.py", "--steps", "12"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    report, layer = done.stdout.splitlines()[-2:]
    assert report.startswith("After 12 steps. context: dilation ")
    assert report.endswith(" of 1, 2, 3, 4, 6, 8.")
    assert layer.startswith("Conv2d(48, 48, kernel_size=(3, 3)")


@pytest.fixture
def folder(tmp_path) -> Path:
    """Rendered faces as files, in the folders of the example."""
    for name, split in rendered_faces(16, 4, 4, (64, 64)).splits.items():
        for kind in ("images", "labels"):
            (tmp_path / name / kind).mkdir(parents=True)
        for number, (image, label) in enumerate(zip(split.images, split.targets, strict=True)):
            Image.fromarray(np.moveaxis(image, 0, 2)).save(tmp_path / name / "images" / f"{number}.jpg")
            Image.fromarray(label.astype(np.uint8)).save(tmp_path / name / "labels" / f"{number}.png")
    return tmp_path


@pytest.mark.slow
def test_a_loop_of_ones_own_is_searched_killed_and_searched_on(folder, tmp_path):
    """What is killed and gone on with ends as a search that nothing disturbed."""
    pytest.importorskip("timm")
    command = [
        sys.executable, ROOT / "examples" / "own_loop.py", "--data", folder, "--size", "64", "64", "--crop", "48",
        "--epochs", "2", "--budget", "3x", "--precision", "bf16", "--workers", "1", "--from-scratch",
        "--strategies", "exhaustive,inflation,fractional", "--out",
    ]  # fmt: skip
    killed = subprocess.Popen([*command, "run"], cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True)
    ledger = tmp_path / "run" / "ledger.jsonl"
    while killed.poll() is None and not (ledger.exists() and b'"finish"' in ledger.read_bytes()):
        time.sleep(0.1)
    assert killed.poll() is None
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    for run in ("run", "unbroken"):
        done = subprocess.run([*command, run], cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        assert "Use dilation" in done.stdout or "Keep the hand default" in done.stdout
    events = [json.loads(line) for line in ledger.read_text().splitlines()]
    started = [event["trial"] for event in events if event.get("event") == "start"]
    finished = [event["trial"] for event in events if event.get("event") == "finish"]
    assert len(set(finished)) == len(finished)
    assert set(finished) == set(started)
    went_on, unbroken = (load_run(tmp_path / run).trials.set_index("trial").sort_index() for run in ("run", "unbroken"))
    for column in ("candidate", "outcome", "train_seed", "status", "epochs", "val", "test"):
        assert went_on[column].equals(unbroken[column]), column


def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    """Its cells as they are, on fewer drawings and for a shorter time."""
    train_in_process(monkeypatch)
    monkeypatch.chdir(tmp_path)
    body = json.loads((ROOT / "examples" / "notebook.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in body["cells"] if cell["cell_type"] == "code"]
    small = {"rendered_faces(128, 32, 32,": "rendered_faces(8, 4, 4,", "epochs(12)": "epochs(2)", '"5x"': '"3x"'}
    names: dict[str, object] = {"__name__": "notebook"}
    for cell in cells:
        for said, less in small.items():
            cell = cell.replace(said, less)
        exec(compile(cell, "notebook.ipynb", "exec"), names)
    assert set(names["result"].trials.strategy) == {"exhaustive", "inflation", "fractional"}
    assert all(
        cell.get("outputs")
        for cell in body["cells"]
        if "result" in "".join(cell["source"]) and cell["cell_type"] == "code"
    )
