"""The contest: arms with equal budgets, what each has spent, and which trial is handed out next.

It knows strategies, budgets and the ledger, but no engine: whatever runs the trials asks `next`, shows `progress`,
and hands in `finish`. Everything it decides follows from the ledger, so a resumed run goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from rfsearch.choices import Candidate
from rfsearch.direction import Direction
from rfsearch.errors import RfsearchError, StrategyError, UntrustedError
from rfsearch.ledger import Assignment, Budget, Cost, History, Journal, Record, incumbent
from rfsearch.planning.forecast import Forecast
from rfsearch.strategies import Exhausted, Heir
from rfsearch.strategies.guard import Guarded

# Beyond what a score takes at least, a trial is not worth starting with less than this share of a full training left.
_SMALLEST_START = 0.02
_NO_STEP = "that is less than its next candidate needs to begin, its scoring included"
_TOO_LITTLE = "that is less than the shortest training worth starting costs, its scoring included"
# Failed trials cost next to nothing, so a model that always fails would otherwise be tried for ever.
_MOST_FAILURES_IN_A_ROW = 5


@dataclass
class Arm:
    """Give one strategy one seed and one budget, and count what it has done.

    Attributes:
        strategy: What suggests the arm's candidates.
        seed: The strategy's seed.
        budget: What the arm may spend.
        handed_out: Trials by name.
        spent: What they have cost.
        running: Trials that have not come back, by name.
        tries: Trials by candidate, in the order they were handed out.
        best: The arm's incumbent, if any trial was scored.
        excess: The most that a full training has cost over its forecast, as a ratio of at least 1: what it learns, such
            as an inflation factor, can make it dearer.
        failures_in_a_row: Number of trials that failed since one did not.
        exhausted: Why no other trial is started; empty while one may be.
    """

    strategy: Guarded
    seed: int
    budget: Budget
    handed_out: dict[str, Assignment] = field(default_factory=dict)
    spent: Cost = field(default_factory=Cost)
    running: dict[str, Assignment] = field(default_factory=dict)
    tries: dict[str, list[Assignment]] = field(default_factory=dict)
    best: Record | None = None
    excess: float = 1.0
    failures_in_a_row: int = 0
    exhausted: str = ""

    @property
    def name(self) -> str:
        """The name of its strategy."""
        return self.strategy.name

    @property
    def label(self) -> str:
        """The arm's name in a run."""
        return f"{self.name}/{self.seed}"

    def train_seed(self, candidate: str, heir_of: str) -> int:
        """Return the training seed of the next trial.

        The same candidate gets the same one in every arm of one seed, and a fresh one when repeated. But the first heir
        that keeps its parent's candidate keeps its seed, and with it the order of its images: it goes on as if it had
        never stopped.

        Args:
            candidate: The trial's, as JSON.
            heir_of: Its parent trial, empty where it has none.
        """
        tried = self.tries.get(candidate, ())
        parent = self.handed_out.get(heir_of)
        if parent is not None and parent.candidate == candidate and all(other.heir_of != heir_of for other in tried):
            return parent.train_seed
        return self.seed * 1000 + len(tried)


class Contest:
    """Hand out trials to arms in their order: the first with something left to try goes first.

    Args:
        arms: In that order.
        journal: Where trials and records are entered.
        history: What the ledger holds already.
        forecast: Estimated cost of fully training a candidate. It is reserved while the trial runs, times what earlier
            trainings of the arm cost over theirs, and an arm with less than this left starts no new trial beside it. If
            it cannot be computed, the reference's forecast is used.
        reference: The space's reference candidate.
        direction: Whether a higher or a lower score is the better one.
        default: The hand default, which is shown beside what leads. None: the reference.

    Example:
        while (assignment := contest.next()) is not None:
            contest.finish(train(assignment))
    """

    def __init__(
        self,
        arms: Sequence[Arm],
        journal: Journal,
        history: History,
        forecast: Callable[[Candidate], Forecast],
        reference: Candidate,
        direction: Direction = "maximize",
        default: Candidate | None = None,
    ) -> None:
        """Replay what the ledger holds."""
        self.arms = list(arms)
        self.direction = direction
        self.best: Record | None = None
        self._default = (default or reference).to_json()
        self._best_default: Record | None = None
        self._journal = journal
        self._given_forecast = forecast
        self._reference = forecast(reference)
        self._by_label = {arm.label: arm for arm in arms}
        for arm in arms:
            arm.strategy.allot(partial(arm.budget.room, self._reference.cost))
        for assignment in history.assignments.values():
            self._count_start(assignment)
        for record in history.records.values():
            self._count_finish(record)
        self._unfinished = history.unfinished
        self._ended = {f"{strategy}/{seed}" for strategy, seed in history.ends}
        for arm in self.arms:
            # The ledger does not tell of a strategy that had nothing left to try.
            if arm.handed_out and not arm.running and not self._over(arm):
                self._suggest(arm)
            if arm.handed_out:
                self._note_end(arm)

    def next(self) -> Assignment | None:
        """Return the next trial to train, or None when none can be handed out now (ask `done` whether ever)."""
        if self._unfinished:
            return self._unfinished.pop(0)
        for arm in sorted(self.arms, key=self._share):
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
            not self._unfinished
            and not any(arm.running for arm in self.arms)
            and all(self._over(arm) for arm in self.arms)
        )

    def keep(self, provisional: Record) -> bool:
        """Return whether a training in progress goes on.

        Args:
            provisional: Its record, were it stopped here.
        """
        arm = self._arm(provisional)
        candidate = Candidate.from_json(provisional.candidate)
        return not arm.strategy.prunes(candidate, provisional.rungs)

    def finish(self, record: Record) -> Record:
        """Enter a trial's record into the ledger, and return it as entered."""
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
        """Trials whose checkpoints are needed: others in training go on from them, or others to come may."""
        needed = {assignment.heir_of for assignment in self.running.values() if assignment.heir_of}
        for arm in self.arms:
            # What is reserved for trials in training may yet become free for heirs.
            if arm.running or not self._over(arm):
                needed.update(arm.strategy.awaited)
        return needed

    @property
    def shown(self) -> set[str]:
        """Trials whose checkpoints a report shows: each arm's leader, and the best training of the hand default."""
        leaders = (*(arm.best for arm in self.arms), self._best_default)
        return {record.trial for record in leaders if record}

    def _start(self, arm: Arm) -> Assignment | None:
        if self._over(arm):
            return None
        left = self._left(arm)
        if arm.running and left < self._reserve(arm, self._reference):
            return None  # it would be cut; what is in training may yet be pruned and leave it more
        suggested = self._suggest(arm)
        if suggested is None:
            return None
        candidate, heir_of = (suggested.candidate, suggested.of) if isinstance(suggested, Heir) else (suggested, "")
        if heir_of and heir_of not in arm.handed_out:
            raise StrategyError(f"strategy {arm.name}: an heir goes on from a trial of its own arm. Got {heir_of!r}.")
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

    def _suggest(self, arm: Arm) -> Candidate | Heir | None:
        """Return what an arm's strategy tries next; None while that depends on what is in training, or at its end.

        What could not even begin to train with what is left ends the arm too. The end is kept in the arm.
        """
        pending = [Candidate.from_json(a.candidate) for a in arm.running.values()]
        suggested = arm.strategy.suggest(pending)
        if isinstance(suggested, Exhausted):
            end = suggested.why
        else:
            candidate = suggested.candidate if isinstance(suggested, Heir) else suggested
            if self._left(arm) >= arm.budget.spent(self._forecast(candidate).entry):
                return suggested
            end = _NO_STEP
        if not pending:  # else what is in training may yet leave it more
            arm.exhausted = end
        return None

    def _left(self, arm: Arm) -> float:
        """Return what is neither spent nor reserved for trials in training."""
        reserved = sum(
            min(self._reserve(arm, self._forecast(Candidate.from_json(a.candidate))), a.limit)
            for a in arm.running.values()
        )
        return arm.budget.limit - arm.budget.spent(arm.spent) - reserved

    def _share(self, arm: Arm) -> float:
        """Return which share of its budget an arm has spent or reserved: it is the turn of that with the least."""
        return 1.0 - self._left(arm) / arm.budget.limit

    @staticmethod
    def _reserve(arm: Arm, forecast: Forecast) -> float:
        """Return what a trial of an arm may take: a full training, or what comes before its next rung or its end."""
        expected = forecast.stretch + forecast.least if arm.strategy.relays else forecast.cost
        return arm.excess * arm.budget.spent(expected)

    def ended(self, arm: Arm) -> bool:
        """Return whether nothing of an arm is in training, and nothing more will be."""
        return not arm.running and self._over(arm)

    def _over(self, arm: Arm) -> bool:
        """Return whether an arm starts no other trial with what is neither spent nor reserved."""
        return bool(arm.exhausted) or self._left(arm) <= self._least(arm)

    def _note_end(self, arm: Arm) -> None:
        """Enter into the ledger, once, why an arm has ended with budget left."""
        if arm.label in self._ended or not self.ended(arm):
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
        except UntrustedError:  # handed out, it would run on a worker
            raise
        except RfsearchError:  # its trial will fail too, and say why
            return self._reference

    def stretch(self, assignment: Assignment) -> Cost:
        """Return what a trial should cost at most from one rung to the next, or to its end."""
        forecast = self._forecast(Candidate.from_json(assignment.candidate))
        return forecast.stretch + forecast.least

    def first_step(self, assignment: Assignment) -> Cost:
        """Return what the first step of a trial should cost."""
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
        if record.status == "completed" and record.forecast is not None:
            expected = arm.budget.spent(record.forecast)
            arm.excess = max(arm.excess, arm.budget.spent(record.cost) / expected if expected else 1.0)
        arm.strategy.observe(record)
        arm.failures_in_a_row = arm.failures_in_a_row + 1 if record.status == "failed" else 0
        if arm.failures_in_a_row >= _MOST_FAILURES_IN_A_ROW:
            arm.exhausted = f"its last {arm.failures_in_a_row} trials failed, the last one with: {record.cause}"
        arm.best = incumbent((arm.best, record), self.direction)
        self.best = incumbent((self.best, record), self.direction)
        if record.candidate == self._default and not record.heir_of:
            self._best_default = incumbent((self._best_default, record), self.direction)

    def _arm(self, trial: Assignment | Record) -> Arm:
        return self._by_label[f"{trial.strategy}/{trial.seed}"]
