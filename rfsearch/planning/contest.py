"""The contest: arms with equal budgets, what each has spent, and which trial is handed out next.

It knows strategies, budgets and the ledger, but no engine: whatever runs the trials asks `next`, shows `progress`,
and hands in `finish`. Everything it decides follows from the ledger, so a resumed run goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from rfsearch.errors import RfsearchError
from rfsearch.ledger import Assignment, Budget, Cost, History, Journal, Record, incumbent
from rfsearch.space import Candidate
from rfsearch.strategies import Exhausted, Heir, Strategy, guard

# Beyond what a score takes at least, a trial is not worth starting with less than this share of a full training left.
_SMALLEST_START = 0.02
_TOO_LITTLE = "that is less than the shortest training worth starting costs, its scoring included"
# Failed trials cost next to nothing, so a model that always fails would otherwise be tried for ever.
_MOST_FAILURES_IN_A_ROW = 5


@dataclass(frozen=True)
class Forecast:
    """What one full training of a candidate should cost, its peak memory (bytes), and its receptive field (px).

    least: what the shortest training costs that still gives a score: one step, and scoring the outcome.
    stretch: what it costs at most from one look to the next. path_rf_px: of each path, where paths are parallel.
    seen: a fingerprint of what every unit reads of the image, equal for candidates whose receptive fields cannot be
    told apart. step: what its first step costs.
    """

    cost: Cost
    least: Cost
    stretch: Cost
    peak_bytes: int
    rf_px: int
    path_rf_px: Mapping[str, int] = field(default_factory=dict)
    seen: str = ""
    step: Cost = field(default_factory=Cost)


@dataclass
class Arm:
    """One strategy with one seed and one budget. handed_out: its trials by name; running: those not yet back.

    tries: its trials by candidate, in the order they were handed out.
    """

    name: str
    seed: int
    strategy: Strategy
    budget: Budget
    handed_out: dict[str, Assignment] = field(default_factory=dict)
    spent: Cost = field(default_factory=Cost)
    running: dict[str, Assignment] = field(default_factory=dict)
    tries: dict[str, list[Assignment]] = field(default_factory=dict)
    best: Record | None = None
    failures_in_a_row: int = 0
    exhausted: str = ""

    @property
    def label(self) -> str:
        return f"{self.name}/{self.seed}"

    def train_seed(self, candidate: str, heir_of: str) -> int:
        """Of the next trial. The same candidate gets the same one in every arm of one seed, and a fresh one when
        repeated; but the first heir that keeps its parent's candidate keeps its seed, and with it the order of its
        images: it goes on as if it had never stopped."""
        tried = self.tries.get(candidate, ())
        parent = self.handed_out.get(heir_of)
        if parent is not None and parent.candidate == candidate and all(other.heir_of != heir_of for other in tried):
            return parent.train_seed
        return self.seed * 1000 + len(tried)


def full_trainings(budget: Budget, one: Cost, spent: Cost) -> int:
    """How many trainings that cost `one` a budget has room for once `spent` is gone."""
    return max(0, int((budget.limit - budget.spent(spent)) / budget.spent(one)))


class Contest:
    """Arms in their order, the first with something left to hand out goes first.

    forecast: of a candidate's full training: what trials that run at the same time reserve, and below what an arm
    starts no more. One that cannot be had is taken to be the reference's. reference: the space's hand default.
    """

    def __init__(
        self,
        arms: Sequence[Arm],
        journal: Journal,
        history: History,
        forecast: Callable[[Candidate], Forecast],
        reference: Candidate,
    ) -> None:
        self.arms = list(arms)
        self.best: Record | None = None
        self._journal = journal
        self._given_forecast = forecast
        self._reference = forecast(reference)
        self._by_label = {arm.label: arm for arm in arms}
        for arm in arms:
            guard.allotted(arm.name, arm.strategy, partial(full_trainings, arm.budget, self._reference.cost))
        for assignment in history.assignments.values():
            self._count_start(assignment)
        for record in history.records.values():
            self._count_finish(record)
        self._again = history.unfinished
        self._ended = {f"{strategy}/{seed}" for strategy, seed in history.ends}
        for arm in self.arms:
            # The ledger does not tell of a strategy that had nothing left to try.
            if arm.handed_out and not arm.running and not self._over(arm):
                self._suggested(arm)
            if arm.handed_out:
                self._note_end(arm)

    def next(self) -> Assignment | None:
        """The next trial to train, or None when none can be handed out now (ask `done` whether ever)."""
        if self._again:
            return self._again.pop(0)
        for arm in self.arms:
            assignment = self._start(arm)
            if assignment is not None:
                self._journal.start(assignment)
                self._count_start(assignment)
                return assignment
            self._note_end(arm)
        return None

    @property
    def done(self) -> bool:
        """Whether every trial handed out has come back and no arm can start another."""
        return (
            not self._again and not any(arm.running for arm in self.arms) and all(self._over(arm) for arm in self.arms)
        )

    def keep(self, provisional: Record) -> bool:
        """Whether a training in progress goes on. provisional: its record, were it stopped here."""
        arm = self._arm(provisional)
        candidate = Candidate.from_json(provisional.candidate)
        return not guard.prunes(arm.name, arm.strategy, candidate, provisional.rungs)

    def finish(self, record: Record) -> Record:
        """Enter a trial's record into the ledger; returns it as entered."""
        expected = self._forecast(Candidate.from_json(record.candidate))
        # A full training is what is forecast, and no heir is one.
        cost = None if record.heir_of else expected.cost
        record = replace(record, forecast=cost, forecast_peak_bytes=expected.peak_bytes)
        self._journal.finish(record)
        self._count_finish(record)
        self._note_end(self._arm(record))
        return record

    @property
    def running(self) -> dict[str, Assignment]:
        """Trials handed out and not yet back, by name."""
        return {name: assignment for arm in self.arms for name, assignment in arm.running.items()}

    @property
    def parents(self) -> set[str]:
        """Trials that others in training go on from, or others to come may: what they left is still needed."""
        found = {assignment.heir_of for assignment in self.running.values() if assignment.heir_of}
        for arm in self.arms:
            # What is reserved for trials in training may yet become free for heirs.
            if arm.running or not self._over(arm):
                found.update(guard.awaited(arm.name, arm.strategy))
        return found

    def _start(self, arm: Arm) -> Assignment | None:
        if self._over(arm):
            return None
        left = self._left(arm)
        if arm.running and left < self._reserve(arm, self._reference):
            return None  # it would be cut; what is in training may yet be pruned and leave it more
        suggested = self._suggested(arm)
        if suggested is None:
            return None
        candidate, heir_of = (suggested.candidate, suggested.of) if isinstance(suggested, Heir) else (suggested, "")
        text = candidate.to_json()
        return Assignment(
            trial=f"{arm.name}-{arm.seed}-{len(arm.handed_out):03d}",
            strategy=arm.name,
            seed=arm.seed,
            candidate=text,
            train_seed=arm.train_seed(text, heir_of),
            limit=left,
            heir_of=heir_of,
        )

    @staticmethod
    def _suggested(arm: Arm) -> Candidate | Heir | None:
        """What an arm's strategy tries next; None while that depends on what is in training, or where it is at its end,
        which is noted."""
        pending = [Candidate.from_json(a.candidate) for a in arm.running.values()]
        suggested = guard.suggested(arm.name, arm.strategy, pending)
        if not isinstance(suggested, Exhausted):
            return suggested
        if not pending:
            arm.exhausted = suggested.why
        return None

    def _left(self, arm: Arm) -> float:
        """What is neither spent nor reserved for trials in training."""
        reserved = sum(
            min(self._reserve(arm, self._forecast(Candidate.from_json(a.candidate))), a.limit)
            for a in arm.running.values()
        )
        return arm.budget.limit - arm.budget.spent(arm.spent) - reserved

    @staticmethod
    def _reserve(arm: Arm, forecast: Forecast) -> float:
        """What a trial of an arm may take: a full training, or to its next look, or its end, where that is all."""
        relayed = guard.relays(arm.name, arm.strategy)
        return arm.budget.spent(forecast.stretch + forecast.least if relayed else forecast.cost)

    def _over(self, arm: Arm) -> bool:
        """Whether an arm starts no other trial with what is neither spent nor reserved."""
        return bool(arm.exhausted) or self._left(arm) <= self._least(arm)

    def _note_end(self, arm: Arm) -> None:
        """Enter into the ledger, once, why an arm has ended with budget left."""
        if arm.running or arm.label in self._ended or not self._over(arm):
            return
        self._ended.add(arm.label)
        if arm.budget.spent(arm.spent) < arm.budget.limit:
            self._journal.end(arm.name, arm.seed, arm.exhausted or _TOO_LITTLE)

    def _least(self, arm: Arm) -> float:
        spent = arm.budget.spent
        least = spent(self._reference.least) + _SMALLEST_START * spent(self._reference.cost)
        return min(least, arm.budget.limit / 2)

    def _forecast(self, candidate: Candidate) -> Forecast:
        try:
            return self._given_forecast(candidate)
        except RfsearchError:  # its trial will fail too, and say why
            return self._reference

    def stretch(self, assignment: Assignment) -> Cost:
        """What a trial should cost at most from one look to the next, or to its end."""
        forecast = self._forecast(Candidate.from_json(assignment.candidate))
        return forecast.stretch + forecast.least

    def first_step(self, assignment: Assignment) -> Cost:
        """What the first step of a trial should cost."""
        return self._forecast(Candidate.from_json(assignment.candidate)).step

    def _count_start(self, assignment: Assignment) -> None:
        arm = self._arm(assignment)
        arm.handed_out[assignment.trial] = assignment
        arm.tries.setdefault(assignment.candidate, []).append(assignment)
        arm.running[assignment.trial] = assignment

    def _count_finish(self, record: Record) -> None:
        arm = self._arm(record)
        arm.running.pop(record.trial, None)
        arm.spent = arm.spent + record.cost
        guard.observed(arm.name, arm.strategy, record)
        arm.failures_in_a_row = arm.failures_in_a_row + 1 if record.status == "failed" else 0
        if arm.failures_in_a_row >= _MOST_FAILURES_IN_A_ROW:
            arm.exhausted = f"its last {arm.failures_in_a_row} trials failed, the last one with: {record.cause}"
        arm.best = incumbent((arm.best, record))
        self.best = incumbent((self.best, record))

    def _arm(self, of: Assignment | Record) -> Arm:
        return self._by_label[f"{of.strategy}/{of.seed}"]
