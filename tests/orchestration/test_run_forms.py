"""Whole runs over parallel paths and LS-DFN: equal budgets, and interrupted runs that end as if uninterrupted."""

import signal
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from rfsearch.data import Split
from rfsearch.data.batches import normalised_images
from rfsearch.errors import RunDirectoryError
from rfsearch.ledger import read_run
from rfsearch.networks import trained
from rfsearch.tasks.colours import coloured
from tests.orchestration.runs import SAME, call, command, environment, wait_for_events
from tests.small_run import run_in_process
from tests.toys import toy_file

FORMS = ["--strategies", "inflation@bi,exhaustive@tri,optuna@lsdfn,lsdfn"]


def forms_file(folder: Path) -> Path:
    """A toy space whose maps of 12 x 12 px hold its parallel paths and its sample strides."""
    path = toy_file(folder, budget="4x", steps=16)
    text = path.read_text().replace("reference = 1", "reference = 1\nsampling = { gammas = [1.0, 2.0], features = 8 }")
    path.write_text(
        text
        + """
[paths.bi]
manual = [1, 4]
labels = [["left eye", "right eye"], []]

[paths.tri]
manual = [1, 2, 4]
"""
    )
    return path


@pytest.fixture(scope="module")
def forms(tmp_path_factory) -> Path:
    """An uninterrupted run over parallel paths and LS-DFN."""
    root = tmp_path_factory.mktemp("forms")
    run_in_process("run", "--space", forms_file(root), *FORMS, "--out", root / "run")
    return root / "run"


@pytest.mark.slow
def test_paths_and_blocks_interrupted_and_resumed_end_as_if_uninterrupted(forms, tmp_path):
    run_dir = tmp_path / "run"
    child = subprocess.Popen(
        command("run", "--space", forms_file(tmp_path), *FORMS, "--out", run_dir),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(),
    )  # fmt: skip
    try:
        wait_for_events(run_dir, 4, child)
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=60)
    finally:
        child.kill()
    assert call("resume", run_dir).returncode == 0
    expected = pd.read_csv(forms / "trials.csv")[[*SAME, "f", "gamma", "rf_px"]]
    assert pd.read_csv(run_dir / "trials.csv")[[*SAME, "f", "gamma", "rf_px"]].equals(expected)


def test_arms_of_every_form_spend_the_same_budget(forms):
    limit = read_run(forms).manifest.budget.limit
    spent = pd.read_csv(forms / "trials.csv").groupby("strategy").train_flop.sum()
    assert set(spent.index) == {"inflation@bi", "exhaustive@tri", "optuna@lsdfn", "lsdfn"}
    assert ((spent / limit - 1).abs() < 0.1).all()


def test_the_page_describes_every_path(forms):
    page = (forms / "report.html").read_text()
    guided = next(r for r in read_run(forms).records if r.strategy == "inflation@bi" and r.status == "completed")
    assert "left eye, right eye | \u2013" in page
    assert " | ".join(f"{px:,}" for px in guided.path_rf_px.values()) in page
    assert " | ".join(f"{f:.3f}" for f in guided.f.values()) in page


def test_every_leader_is_loaded_as_it_was_trained(forms):
    """The network of a run predicts what its trial had predicted, whatever its form."""
    leaders = sorted((forms / "checkpoints").iterdir())
    assert len(leaders) == 4
    for leader in leaders:
        held = np.load(leader / "examples.npz")
        images = np.ascontiguousarray(held["images"].transpose(0, 3, 1, 2))
        shown = Split(images, held["truths"], tuple(map(str, range(len(images)))))
        images = normalised_images(shown)
        with torch.no_grad():
            predicted = trained(forms, leader.name)(images).argmax(1)
        alike = coloured(predicted.numpy().astype(np.uint8)) == held["predictions"]
        assert alike.all(axis=-1).mean() > 0.999
    with pytest.raises(RunDirectoryError, match="no checkpoint of trial 'lsdfn-0-99' is kept. Did you mean 'lsdfn-0"):
        trained(forms, "lsdfn-0-99")
