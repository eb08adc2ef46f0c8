"""A population: what a member takes over from another one, and a run that costs what it was to cost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from rfsearch_peers import pbt

from rfsearch.errors import RequestError
from rfsearch.ledger import read_run
from rfsearch.report import write
from rfsearch.run import Request, trained
from rfsearch.space import Candidate
from tests.toys import toy_faces, toy_file, toy_space

ROOT = Path(__file__).resolve().parents[2]


def member(number: int, dilation: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> pbt._Training:
    monkeypatch.setattr(pbt._Training, "trial_id", f"run_{number:05d}")
    made = pbt._Training.__new__(pbt._Training)
    made.setup({"conv6": dilation, "member": 9}, toy_space(folder), toy_faces(), str(folder), seed=0)
    return made


def test_a_member_takes_over_weights_and_momentum_at_a_dilation_of_its_own(tmp_path, monkeypatch) -> None:
    donor = member(1, 1, tmp_path, monkeypatch)
    first = donor.step()
    donor.save_checkpoint(str(tmp_path))
    taker = member(2, 4, tmp_path, monkeypatch)
    before = taker._learner.model.conv6.weight.detach().clone()
    taker.load_checkpoint(str(tmp_path))
    given, taken = donor._learner.state(), taker._learner.state()
    for name, value in given["model"].items():
        assert torch.equal(value, taken["model"][name]) != name.endswith("searched_dilation"), name
    for number, state in given["optimizer"]["state"].items():
        assert torch.equal(state["momentum_buffer"], taken["optimizer"]["state"][number]["momentum_buffer"])
    assert not torch.equal(before, taker._learner.model.conv6.weight)
    assert taker._learner.model.conv6.dilation == (4, 4)
    second = taker.step()
    assert (first["steps"], second["steps"]) == (2, 4)
    assert second["dilations"] == {"conv6": 4}
    assert second["cost"]["epochs"] == first["cost"]["epochs"] == 2 * 2 / 12  # its own two steps of two images


def test_a_population_is_trained_charged_and_reported(tmp_path) -> None:
    space, out = toy_file(tmp_path, budget="8x", steps=8), tmp_path / "run"
    command = [sys.executable, "-m", "rfsearch_peers.pbt", "--space", space, "--out", out, "--rounds", "4"]
    path = os.pathsep.join([str(ROOT / "baselines" / "peers"), str(ROOT)])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    told = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=env, timeout=300, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert "found in training" in told.stdout
    run = read_run(out)
    budget = run.manifest["budget"]["limit"]
    assert run.unfinished == 0
    assert len(run.records) >= 4
    assert [r.val for r in run.records] == sorted(r.val for r in run.records)  # an answer once all is spent
    in_order = sorted(run.records, key=lambda record: record.trial)
    starts = [choice.dilation for r in in_order for _, choice in Candidate.from_json(r.candidate)]
    assert starts[0] == 1
    assert set(starts) == {1, 2, 4}
    assert sum(r.cost.flop for r in run.records) <= budget
    for record in run.records:
        assert record.status == "completed"
        assert record.cost.flop == record.forecast.flop
        assert record.steps == 8
        ((_, final),) = Candidate.from_json(record.candidate).found(record.f)
        assert trained(out, record.trial).conv6.dilation == (final.dilation,) * 2
    write(out)
    assert set(pd.read_csv(out / "anytime.csv").strategy) == {"pbt"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": "2x"}, "room for 4 members at least, .* has room for 1"),
        ({"sites": ("features",)}, "single convolutions. Got the container or span 'features'"),
        ({"paths": 2}, "one path a site. Got the form 'bi'"),
    ],
)
def test_what_cannot_be_is_one_message(tmp_path, monkeypatch, changes, message) -> None:
    monkeypatch.setattr(pbt, "Engine", _NoEngine)
    space = toy_file(tmp_path)
    space.write_text(space.read_text() + "\n[paths.bi]\nmanual = [1, 2]\n")
    with pytest.raises(RequestError, match=message):
        pbt.search(Request(str(space), **changes), tmp_path / "run", 0)
    assert not (tmp_path / "run").exists()


class _NoEngine:
    resources = (1, 0)
    workers = 1

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> _NoEngine:
        return self

    def __exit__(self, *_: object) -> None:
        pass
