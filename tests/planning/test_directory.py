"""Runs that earlier versions began go on."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from rfsearch.ledger.manifest import MANIFEST_FILE
from rfsearch.planning.competition import contest_of
from rfsearch.planning.directory import reopen_run

LEDGER_TESTS = Path(__file__).parents[1] / "ledger"


@pytest.mark.parametrize("path", sorted(LEDGER_TESTS.glob("manifest_*.json")), ids=lambda path: path.stem)
def test_a_run_of_every_earlier_version_is_reopened(tmp_path, path):
    shutil.copy(path, tmp_path / MANIFEST_FILE)
    body = json.loads(path.read_text())
    plan = reopen_run(tmp_path, torch.device("cpu"))
    assert plan.budget.limit == body["budget"]["limit"]
    assert plan.space.recipe.border == "paper"
    assert plan.reference_flop == body["budget"]["reference_flop"]
    assert [(entrant.label, seed) for entrant, seed in plan.arms] == [("exhaustive", 0), ("inflation", 0)]
    assert plan.forecaster.flop_per_s == body["flop_per_s"]
    assert contest_of(plan, tmp_path).next().trial == "exhaustive-0-000"
