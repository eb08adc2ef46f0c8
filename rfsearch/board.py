"""A run in progress, in the terminal: what each arm has spent and found, what is in training, and how long it lasts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rfsearch.choices import Candidate
from rfsearch.ledger import Record, incumbent
from rfsearch.numbers import MISSING, amount, counted, duration, field_px, percent, score
from rfsearch.planning.contest import Arm, Contest
from rfsearch.report.rows import trial_line

_BESIDE_ARMS = 8  # lines around the rows of arms: title, pace, headings, the metric's name, failures, best, two trials
_FEW_ROWS = 3


@dataclass(frozen=True)
class _Row:
    """Hold the arms that share a row of the table."""

    label: str
    arms: Sequence[Arm]


class Board:
    """Show a run while it goes on: for each arm its budget, its trials and its best, and below what is in training.

    On a terminal it redraws itself, and where the arms would not fit it shows one row a strategy. Elsewhere each
    finished trial is one line.

    Example::

        with Board(Console(), "helen", "mean IoU", contest) as board:
            board.watch(record, contest)
    """

    def __init__(
        self,
        console: Console,
        title: str,
        metric: str,
        contest: Contest,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare the display; entering its context starts it.

        Args:
            console: Where to write.
            title: Name of the run.
            metric: Name of the validation score.
            contest: The arms and what is in training, read anew each time.
            clock: Seconds since any moment.
        """
        self._console, self._title, self._metric, self._contest = console, title, metric, contest
        self._looks: dict[str, Record] = {}
        self._failures: list[Record] = []
        self._clock, self._began = clock, clock()
        self._spent_before = sum(_spent(arm) for arm in contest.arms)
        self._live = Live(get_renderable=self._draw, console=console, refresh_per_second=2, transient=True)

    def __enter__(self) -> Board:
        """Start redrawing, where there is a terminal."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop redrawing, and clear what was drawn."""
        if self._console.is_terminal:
            self._live.stop()

    def watch(self, record: Record, contest: Contest) -> None:
        """Take in a validation of a trial in training, or print a finished trial.

        Args:
            record: The trial.
            contest: The contest that it belongs to.
        """
        if record.trial in contest.running:
            self._looks[record.trial] = record
            return
        self._looks.pop(record.trial, None)
        if record.status == "failed":
            self._failures.append(record)
        self._console.print(self._line(record, contest), highlight=False, soft_wrap=True)

    def _line(self, record: Record, contest: Contest) -> Text:
        line = trial_line(record, self._metric)
        if record.status == "failed":
            return Text(line, style="red")
        arm = next(a for a in contest.arms if (a.name, a.seed) == (record.strategy, record.seed))
        leads = contest.best is not None and contest.best.trial == record.trial
        return Text(f"{line}; arm {_share([arm])} spent", style="bold" if leads else "")

    def _draw(self) -> RenderableType:
        contest = self._contest
        header = Text(f"{self._title}   {duration(self._clock() - self._began)}", style="bold")
        parts: list[RenderableType] = [header, Text(self._pace(), style="dim"), self._table()]
        parts.append(Text(f"best: {self._metric}", style="dim"))
        # Lines of their own: beside the arms, 80 columns would cut them off.
        running = list(contest.running.items())
        room = max(2, self._console.height - _BESIDE_ARMS - len(self._rows()))
        parts += [Text(self._progress(name, given.candidate)) for name, given in running[:room]]
        if len(running) > room:
            parts.append(Text(f"and {counted(len(running) - room, 'other')} in training", style="dim"))
        if self._failures:
            last = self._failures[-1]
            said = f"{counted(len(self._failures), 'trial')} failed, the last one ({last.trial}): {last.cause}"
            parts.append(Text(said, style="red"))
        parts.append(self._incumbent())
        return Group(*parts)

    def _incumbent(self) -> Text:
        best = self._contest.best
        if best is None:
            return Text("No trial has finished yet.")
        found = Candidate.from_json(best.outcome or best.candidate)
        field = field_px(best.rf_px, best.path_rf_px)
        return Text(f"Best so far: {score(best.val)} with {found}, RF {field} px ({best.trial})", style="green")

    def _pace(self) -> str:
        """Say how much of all budgets is spent, at which rate, and when it should be at its end."""
        arms = self._contest.arms
        budget = arms[0].budget
        in_training = sum(budget.spent(look.cost) for look in list(self._looks.values()))
        spent = sum(_spent(arm) for arm in arms)
        left = sum(arm.budget.limit - _spent(arm) for arm in arms if not self._contest.ended(arm)) - in_training
        said = f"{percent((spent + in_training) / sum(arm.budget.limit for arm in arms))} of all budgets spent"
        elapsed, here = self._clock() - self._began, spent + in_training - self._spent_before
        if here <= 0 or elapsed <= 0:
            return said
        rate = here / elapsed
        if budget.currency != "device_s":
            said += f", {amount(60 * rate, budget.currency)} a minute"
        return said if left <= 0 else f"{said}, about {duration(left / rate)} left"

    def _rows(self) -> Sequence[_Row]:
        """Return a row for every arm, or for every strategy where those would be more than the terminal is high."""
        arms = self._contest.arms
        if len(arms) <= max(_FEW_ROWS, self._console.height - _BESIDE_ARMS):
            return [_Row(arm.label, [arm]) for arm in arms]
        by_strategy: dict[str, list[Arm]] = {}
        for arm in arms:
            by_strategy.setdefault(arm.name, []).append(arm)
        return [_Row(f"{name}, {counted(len(its), 'seed')}", its) for name, its in by_strategy.items()]

    def _table(self) -> Table:
        rows = self._rows()
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("arm", overflow="fold")
        for name in ("spent", "trials", "best", "RF, px"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in rows:
            best = incumbent((arm.best for arm in row.arms), self._contest.direction)
            table.add_row(
                row.label,
                f"{_share(row.arms)} of {row.arms[0].budget.text}",
                f"{sum(len(arm.handed_out) - len(arm.running) for arm in row.arms)}",
                score(best.val) if best else MISSING,
                field_px(best.rf_px) if best else "-",  # paths stand in the last line: 80 columns have no room
            )
        return table

    def _progress(self, trial: str, candidate: str) -> str:
        look = self._looks.get(trial)
        said = f"In training: {trial} {Candidate.from_json(candidate)}"
        return f"{said} (step {look.steps:,}, {score(look.val)})" if look and look.val is not None else said


def _spent(arm: Arm) -> float:
    return arm.budget.spent(arm.spent)


def _share(arms: Sequence[Arm]) -> str:
    share = sum(map(_spent, arms)) / sum(arm.budget.limit for arm in arms)
    return percent(share, 2 if share < 1 else 3)  # 103 % are not 100 %
