from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from rfsearch.ledger import Assignment, Journal, Record, Run, read_run
from tests.report.made_up import MakeDirectory, MakeRun, candidate, manifest


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Writes a run directory and reads it back. open_trials: handed out without a record."""

    def make(records: Iterable[Record], open_trials: int = 0, **changes: Any) -> Run:
        journal = Journal(tmp_path)
        for r in records:
            journal.start(Assignment(r.trial, r.strategy, r.seed, r.candidate, r.train_seed, 1e12))
            journal.finish(r)
        for i in range(open_trials):
            journal.start(Assignment(f"open-{i}", "exhaustive", 0, candidate(8), 0, 1e12))
        (tmp_path / "manifest.json").write_text(json.dumps(manifest(**changes)))
        return read_run(tmp_path)

    return make


@pytest.fixture
def directory(tmp_path: Path) -> MakeDirectory:
    """Writes a run directory of a name."""

    def make(name: str, *arms: list[Record], **changes: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        journal, records = Journal(folder), [r for one in arms for r in one]
        for r in records:
            journal.start(Assignment(r.trial, r.strategy, r.seed, r.candidate, r.train_seed, 1e12))
            journal.finish(r)
        labels = dict.fromkeys((r.strategy, r.seed) for r in records)
        named = [{"strategy": strategy, "seed": seed} for strategy, seed in labels]
        (folder / "manifest.json").write_text(json.dumps(manifest(arms=named, **changes)))
        return folder

    return make
