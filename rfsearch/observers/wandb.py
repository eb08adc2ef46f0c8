"""Log to Weights & Biases: a run of its own for every trial, in one group for the search.

Without a login, or with `WANDB_MODE=offline`, runs are kept under `wandb/` of the run's directory, and
`wandb sync` sends them later.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import wandb

from rfsearch.ledger.record import Record
from rfsearch.observers.base import Observer, Watched, about, curve, outcome, parameters

_PROJECT = "rfsearch"


class WeightsAndBiases(Observer):
    """Log candidates as configuration, curves at rungs over the training step, the page as an artifact."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._group = watched.directory.resolve().name
        known = os.environ.get("WANDB_MODE") or os.environ.get("WANDB_API_KEY") or wandb.api.api_key
        self._mode: Any = None if known else "offline"
        self._runs: dict[str, Any] = {}

    def rung(self, record: Record) -> None:
        self._run(record).log(curve(record.rungs[-1]), step=record.rungs[-1].step)

    def finished(self, record: Record) -> None:
        run = self._run(record)
        run.summary.update({**outcome(record), **about(record)})
        del self._runs[record.trial]
        run.finish(exit_code=1 if record.status == "failed" else 0)

    def ended(self, page: Path) -> None:
        run = self._begin("report", {}, "report")
        artifact = wandb.Artifact(f"{self._group}-report", type="report")
        artifact.add_file(str(page))
        run.log_artifact(artifact)
        run.finish()

    def close(self) -> None:
        for run in self._runs.values():
            run.finish(exit_code=1)

    def _run(self, record: Record) -> Any:
        if record.trial not in self._runs:
            asked = {**parameters(record.candidate), "strategy": record.strategy, "seed": record.seed}
            self._runs[record.trial] = self._begin(record.trial, asked, record.strategy)
        return self._runs[record.trial]

    def _begin(self, name: str, config: dict[str, Any], kind: str) -> Any:
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            group=self._group,
            name=name,
            job_type=kind,
            config={**self._watched.settings, **config},
            dir=str(self._watched.directory),
            mode=self._mode,
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )
