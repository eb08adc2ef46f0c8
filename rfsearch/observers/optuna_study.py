"""Keep every arm as an Optuna study in `study.db`, for Optuna's own tools such as optuna-dashboard.

A trial has what its candidate gives each path as parameters, over the range that the space leaves, its validations as
intermediate values by training step, and the rest of its record as attributes. Trials that were pruned or cut short are
PRUNED, failed ones FAIL. It is a copy: the ledger is what a run goes on from.
"""

from __future__ import annotations

import warnings
from datetime import datetime, timedelta

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from rfsearch.ledger.record import Record
from rfsearch.observers.base import Observer, Watched, about, outcome, parameters

FILE = "study.db"
_REAL = " (real)"
_STATES = {
    "completed": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "cut": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


class OptunaStudies(Observer):
    """Add every trial that has come back to the study of its arm, those of earlier processes first."""

    def __init__(self, watched: Watched) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        file = (watched.directory / FILE).resolve()
        self._storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
        self._studies: dict[tuple[str, int], optuna.Study] = {}
        known = set()
        for strategy, seed in watched.arms:
            study = optuna.create_study(
                storage=self._storage,
                study_name=f"{strategy}/{seed}",
                direction=watched.direction,
                load_if_exists=True,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names([watched.metric])
            self._studies[strategy, seed] = study
            known |= {trial.user_attrs.get("trial") for trial in study.get_trials(deepcopy=False)}
        self._ranges = watched.ranges
        for record in watched.finished:
            if record.trial not in known:
                self.finished(record)

    def finished(self, record: Record) -> None:
        asked = _numbers(record.candidate)
        state = _STATES[record.status]
        if state is TrialState.COMPLETE and not record.scored:
            state = TrialState.FAIL
        trial = create_trial(
            state=state,
            value=record.val if state is TrialState.COMPLETE else None,
            params=asked,
            distributions={name: self._distribution(name, value) for name, value in asked.items()},
            intermediate_values={rung.step: rung.val for rung in record.rungs},
            user_attrs={**outcome(record), **about(record)},
        )
        trial.datetime_complete = datetime.now()
        trial.datetime_start = trial.datetime_complete - timedelta(seconds=record.cost.device_s)
        self._studies[record.strategy, record.seed].add_trial(trial)

    def close(self) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()

    def _distribution(self, name: str, value: float) -> BaseDistribution:
        """Return the range of a parameter; Optuna compares trials whose ranges are the same."""
        low, high = self._ranges.get(name.removesuffix(_REAL).rpartition(".")[2], (value, value))
        low, high = min(low, value), max(high, value)
        if isinstance(value, int):
            return IntDistribution(int(low), int(high))
        return FloatDistribution(low, high, log=low > 0)


def _numbers(candidate: str) -> dict[str, float]:
    """Return the numbers of a candidate by name; a real dilation has another name than a whole one, as another type."""
    found = {name: value for name, value in parameters(candidate).items() if not isinstance(value, str)}
    real = {name: isinstance(value, float) and name.endswith(".dilation") for name, value in found.items()}
    return {f"{name}{_REAL}" if real[name] else name: value for name, value in found.items()}
