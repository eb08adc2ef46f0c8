"""Bayesian search with Optuna: a tree-structured Parzen estimator over the space's dimensions, with pruning.

Optuna's own ask and tell are used, on a study in which the observed records stand in their order, and behind them, each
time anew, what is pending. So a suggestion depends on seed and records alone, and a pruned, cut or failed trial is
reported as just that, never as a completed one.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from rfsearch.choices import Candidate
from rfsearch.direction import Direction
from rfsearch.ledger.record import Record, Rung
from rfsearch.space import SearchSpace
from rfsearch.strategies.base import Description
from rfsearch.strategies.encoding import Encoding, Ordered

# An arm is some eight trainings long: Optuna's default of ten random ones first would leave nothing to the model.
_STARTUP_TRIALS = 4
_STATES = {
    "completed": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "cut": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


class Bayesian:
    """Suggest by TPE over dilations as ordered integers and log f, or over log gamma; the hand default goes first.

    Where costs are objectives too, it is TPE's kind for several, which looks for the whole front; then nothing is
    pruned, since a low score may be worth its low cost.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        """Translate the space's dimensions into Optuna's distributions."""
        self._space, self._seed = space, seed
        self._encoding = Encoding(space)
        self._distributions: dict[str, BaseDistribution] = {
            name: IntDistribution(0, len(dimension.values) - 1)
            if isinstance(dimension, Ordered)
            else FloatDistribution(dimension.low, dimension.high, log=True)
            for name, dimension in self._encoding.dimensions.items()
        }
        self._observed = 0
        low: list[Direction] = ["minimize"] * len(space.costs)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(directions=[space.direction, *low])

    def describe(self) -> Description:
        """Return the hand default and what is drawn."""
        return Description((self._space.default_candidate,), self._encoding.ranges)

    def suggest(self, pending: Sequence[Candidate]) -> Candidate:
        """Return what Optuna asks for, given what finished and what is pending."""
        if not self._observed and not pending:
            return self._space.default_candidate
        self._study.sampler = self._sampler(len(pending))
        self._study.add_trials([self._trial(c, TrialState.RUNNING, (), None) for c in pending])
        asked = self._study.ask(self._distributions)
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._study.tell(trial.number, state=TrialState.FAIL)  # which the sampler does not look at
        return self._encoding.candidate(asked.params)

    def observe(self, record: Record) -> None:
        """Keep a finished trial as Optuna stores one."""
        candidate = Candidate.from_json(record.candidate)
        state = _STATES[record.status]
        values = self._values(record) if state is TrialState.COMPLETE else None
        if values is None and state is TrialState.COMPLETE:
            state = TrialState.FAIL  # what it costs is not known
        self._study.add_trial(self._trial(candidate, state, record.rungs, values))
        self._observed += 1

    def prune(self, candidate: Candidate, rungs: Sequence[Rung]) -> bool:
        """Apply Optuna's median rule: worse at this step than the median of the trials that finished."""
        if self._space.costs:
            return False
        pruner = optuna.pruners.MedianPruner(n_startup_trials=_STARTUP_TRIALS, n_warmup_steps=0)
        return bool(pruner.prune(self._study, self._trial(candidate, TrialState.RUNNING, rungs, None)))

    def _sampler(self, pending: int) -> optuna.samplers.TPESampler:
        """Make a sampler whose random numbers follow from how much is known, not from what was asked before."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(
                seed=self._seed * 100_003 + self._observed + pending,
                n_startup_trials=_STARTUP_TRIALS,
                multivariate=True,
                constant_liar=True,
            )

    def _values(self, record: Record) -> list[float] | None:
        """Return a record's objectives; None where one is not known."""
        found = [record.val, *(getattr(record, cost) for cost in self._space.costs)]
        return None if None in found else [float(value) for value in found]

    def _trial(
        self, candidate: Candidate, state: TrialState, rungs: Sequence[Rung], values: Sequence[float] | None
    ) -> FrozenTrial:
        return create_trial(
            state=state,
            values=values,
            params=self._encoding.parameters(candidate),
            distributions=self._distributions,
            intermediate_values={rung.step: rung.val for rung in rungs},
        )
