"""Log to MLflow: a run for the search, and one under it for every trial.

Where to is MLflow's own setting, `MLFLOW_TRACKING_URI`; without it, `mlflow.db` in the run's directory.
"""

from __future__ import annotations

import os
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from rfsearch.ledger.record import Record
from rfsearch.observers.base import Observer, Watched, about, curve, outcome, parameters

_LONGEST = 5_000  # characters of a tag
_SEARCH = "rfsearch.directory"
_STATES = {"completed": "FINISHED", "failed": "FAILED"}


class Mlflow(Observer):
    """Log candidates as parameters, curves at rungs as metrics over the training step, the page as an artifact."""

    def __init__(self, watched: Watched) -> None:
        own = watched.directory.resolve()
        here = f"sqlite:///{own / 'mlflow.db'}"
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or here)
        known = self._client.get_experiment_by_name(watched.title)
        if known is None:
            place = None if os.environ.get("MLFLOW_TRACKING_URI") else (own / "mlartifacts").as_uri()
            self._experiment = self._client.create_experiment(watched.title, artifact_location=place)
        else:
            self._experiment = known.experiment_id
        found = self._client.search_runs([self._experiment], f"tags.`{_SEARCH}` = '{own.name}'")
        if found:
            self._search = found[0].info.run_id
        else:
            made = self._client.create_run(self._experiment, tags={_SEARCH: own.name}, run_name=own.name)
            self._search = made.info.run_id
            for name, value in watched.settings.items():
                self._client.log_param(self._search, name, value)
        self._runs: dict[str, str] = {}

    def rung(self, record: Record) -> None:
        self._log(self._run(record), curve(record.rungs[-1]), record.rungs[-1].step)

    def finished(self, record: Record) -> None:
        run = self._run(record)
        self._log(run, {f"end/{name}": value for name, value in outcome(record).items()}, record.steps)
        tags = [RunTag(name, said[:_LONGEST]) for name, said in about(record).items()]
        self._client.log_batch(run, tags=tags)
        self._client.set_terminated(run, _STATES.get(record.status, "KILLED"))

    def ended(self, page: Path) -> None:
        self._client.log_artifact(self._search, str(page))
        self._client.set_terminated(self._search)

    def _run(self, record: Record) -> str:
        if record.trial not in self._runs:
            tags = {"mlflow.parentRunId": self._search}
            made = self._client.create_run(self._experiment, tags=tags, run_name=record.trial)
            asked = [Param(name, str(value)) for name, value in parameters(record.candidate).items()]
            self._client.log_batch(made.info.run_id, params=asked)
            self._runs[record.trial] = made.info.run_id
        return self._runs[record.trial]

    def _log(self, run: str, values: dict[str, float], step: int) -> None:
        from time import time

        now = int(time() * 1000)
        self._client.log_batch(run, metrics=[Metric(name, value, now, step) for name, value in values.items()])
