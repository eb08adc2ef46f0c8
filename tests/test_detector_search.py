"""torchvision's four detectors from the plan to the exported file, as a user calls them."""

import json

import pandas as pd
import pytest

from rfsearch.backbones.torchvision_detectors import DETECTORS

SMALL = [
    "--set", "data.rendered=[6,4,2]", "--set", "image_size=[96,96]", "--set", "recipe.steps=2",
    "--set", "recipe.warmup=0", "--set", "recipe.batch_size=2", "--set", "recipe.eval_batch_size=2",
    "--set", "task.proposals=0", "--set", "dilations=[1,2]", "--set", "recipe.rungs=2", "--set", "recipe.lr=0.0001",
    "--strategies", "exhaustive", "--budget", "9x",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_a_detector_is_planned_searched_resumed_and_exported(name, call, trained_here, tmp_path):
    words = ["--space", "objects", "--backbone", f"torchvision:{name}", *SMALL]
    code, out, err = call("plan", *words, "--json")
    assert code == 0, err
    planned = json.loads(out)
    assert planned["candidates"]
    code, out, err = call("run", *words, "--out", tmp_path / "run")
    assert code == 0, out + err
    trials = pd.read_csv(tmp_path / "run" / "trials.csv")
    assert "failed" not in set(trials.status), trials.cause
    forecast = {row["candidate"]: row["flop"] for row in planned["candidates"]}
    full = trials[(trials.status == "completed") & trials.candidate.isin(forecast)]
    assert len(full)
    assert ((full.train_flop / full.candidate.map(forecast)).between(0.5, 1.5)).all()
    assert "Nothing was left to train" in " ".join("".join(call("resume", tmp_path / "run")[1:]).split())
    code, out, err = call("export", tmp_path / "run", "--out", tmp_path / "export", "--json")
    assert code == 0, out + err
    files = {path.suffix for path in (tmp_path / "export").iterdir()}
    assert {".onnx", ".pt2", ".json"} <= files
