"""A protocol from its first command to its tables, in trainings of a few steps."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pandas as pd
import pytest

from rfsearch.choices import Candidate
from rfsearch.ledger import read_run
from rfsearch.ledger.journal import LEDGER_FILE
from tests.toys import toy_file

BENCHMARKS = Path(__file__).parents[2] / "baselines" / "benchmarks"


@pytest.fixture(scope="module")
def benchmarks() -> Iterator[dict[str, ModuleType]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield {name: importlib.import_module(name) for name in ("train", "protocol", "retrained", "headline")}


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A protocol of a sweep, a search and a control."""
    space = toy_file(tmp_path, steps=4)
    path = tmp_path / "toys.toml"
    path.write_text(
        f"""\
seeds = 2
retrainings = 1

[datasets.toys]
title = "toys"
links = {{ "toys/images" = "images" }}

[datasets.toys.runs]
search = "--space {space} --budget 16x --strategies exhaustive,fractional"
"nothing to find" = "--space {space} --set dilations=[2] --set reference=2 --budget 4x --strategies fractional"
"""
    )
    return path


@pytest.mark.slow
@pytest.mark.usefixtures("trained_here")
def test_a_protocol_is_trained_taken_up_again_and_compared(
    benchmarks: dict[str, ModuleType], toy: Path, tmp_path: Path, call, monkeypatch
) -> None:
    work, out, data = tmp_path / "work", tmp_path / "tables", tmp_path / "data"
    commands = []

    def given(command: list[str], cwd: Path, check: bool) -> None:
        monkeypatch.chdir(cwd)
        commands.append(command[3:])  # behind python -c PROGRAM
        code, _, said = call(*command[3:])
        assert code == 0, said

    monkeypatch.setattr(benchmarks["train"], "subprocess", SimpleNamespace(run=given))
    monkeypatch.setattr(benchmarks["retrained"], "ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(1))
    (data / "images").mkdir(parents=True)
    out.mkdir()
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["train.py", str(toy), "--data", str(data), "--work", str(work)])
        benchmarks["train"].main()
        again = (work / "toys" / "retrained" / LEDGER_FILE).read_text()
    assert [command[0] for command in commands] == ["run", "run", "resume", "resume"]
    assert commands[1][-6:] == ["--strategies", "fractional", "--seeds", "2", "--out", "toys/nothing-to-find"]
    assert (work / "toys" / "images").resolve() == (data / "images").resolve()

    retrained = read_trained(benchmarks, work)
    assert len(again.splitlines()) == len(retrained) + 1  # the second time trained nothing
    assert {record.train_seed for record in retrained} == {1_000_000, 1_001_000}
    assert {record.steps for record in retrained} == {4}
    assert all(not Candidate.from_json(record.candidate).learned for record in retrained)

    monkeypatch.setattr(sys, "argv", ["headline.py", str(toy), "--work", str(work), "--out", str(out)])
    benchmarks["headline"].main()
    table = pd.read_csv(out / "toys.csv").set_index(["strategy", "start"])
    assert {"exhaustive", "fractional", "fractional, nothing to find", "plain training", "hand default"} == {
        *table.index.get_level_values("strategy")
    }
    assert (table.seeds == 2).all()
    assert table.retrained_score.notna().all()
    assert table.low.isna().all()  # two seeds get no interval
    trials = pd.read_csv(out / "toys-trials.csv")
    runs = [read_run(work / "toys" / name) for name in ("search", "nothing-to-find")]
    assert len(trials) == sum(len(run.records) for run in runs) + len(retrained)
    body = json.loads((out / "toys.json").read_text())
    assert body["datasets"]["toys"]["commands"][1].endswith("--out toys/nothing-to-find")
    assert body["not_run_yet"] == {}

    published, elsewhere = out / "toys-runs", tmp_path / "elsewhere"
    elsewhere.mkdir()
    again_there = ["headline.py", str(toy), "--work", str(published), "--out", str(elsewhere)]
    monkeypatch.setattr(sys, "argv", again_there)
    benchmarks["headline"].main()
    for name in ("toys.csv", "toys-trials.csv"):
        assert (elsewhere / name).read_text() == (out / name).read_text()
    monkeypatch.setattr(sys, "argv", ["train.py", str(toy), "--data", str(data), "--work", str(published)])
    benchmarks["train"].main()
    assert [command[0] for command in commands[4:]] == ["resume", "resume"]
    assert len(read_trained(benchmarks, published)) == len(retrained)
    monkeypatch.setattr(sys, "argv", ["headline.py", str(toy), "--work", str(work), "--out", str(out)])

    ledger = work / "toys" / "nothing-to-find" / LEDGER_FILE  # as it was before its end
    ledger.write_text("".join(line for line in ledger.open() if '"latency"' not in line[:30]))
    benchmarks["headline"].main()
    assert "fractional, nothing to find" not in set(pd.read_csv(out / "toys.csv").strategy)
    assert json.loads((out / "toys.json").read_text())["not_run_yet"] == {"toys": ["nothing to find"]}


def read_trained(benchmarks: dict[str, ModuleType], work: Path) -> list:
    return list(benchmarks["retrained"].trained_in(work / "toys" / "retrained").values())
