"""What a user sees in the terminal: the plan's table, and a run while it goes on."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rfsearch.ledger import Record
from rfsearch.ledger.manifest import PlannedCandidate
from rfsearch.planning.contest import Arm, Contest
from rfsearch.report.rows import trial_line
from rfsearch.report.wording import field_px
from rfsearch.reproduce import Measured
from rfsearch.space import Candidate

_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def si(value: float, unit: str) -> str:
    """A figure with three digits and an SI prefix: 1.23 TFLOP."""
    for size, prefix in _PREFIXES:
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.3g} s"
    if seconds < 6000:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h"


def plan_table(rows: Iterable[PlannedCandidate], reference_flop: float) -> Table:
    """Show every candidate with its receptive field and what its full training should cost."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("candidate", overflow="fold")
    for name in ("RF (px)", "of image", "of objects", "training", "x", "time", "peak memory"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            _alike(row),
            field_px(row.rf_px, row.path_rf_px),
            f"{100 * row.share:.0f} %",
            "-" if row.objects is None else f"{100 * row.objects:.0f} %",
            si(row.flop, "FLOP"),
            f"{row.flop / reference_flop:.2f}",
            duration(row.seconds),
            si(row.peak_bytes, "B"),
        )
    return table


def _alike(row: PlannedCandidate) -> str:
    """A candidate, and the dilations of those whose receptive fields cannot be told apart from its own."""
    candidate = Candidate.from_json(row.candidate)
    others = [[str(choice.dilation) for _, choice in Candidate.from_json(text)] for text in row.alike]
    said = ", ".join("/".join(dict.fromkeys(dilations)) for dilations in others)
    return f"{candidate} (alike: d={said})" if said else str(candidate)


def side_by_side(rows: Sequence[Measured], metric: str) -> Table:
    """A published table's rows: every printed number beside the measured one. metric: what `score` measures here.

    Numbers of parallel paths, f1, f2 ..., share a cell.
    """
    titles = {"rf_px": "RF, px", "score": metric or "score", "f": "f", "gamma": "gamma"}
    found = {name.rstrip("0123456789") for row in rows for name in (*row.printed, *row.measured)}
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("row", overflow="fold")
    columns = [name for name in titles if name in found]
    for name in columns:
        table.add_column(f"{titles[name]}\nprinted", justify="right")
        table.add_column("\nmeasured", justify="right", min_width=8)
    for row in rows:
        cells = [_by_path(values, name) for name in columns for values in (row.printed, row.measured)]
        table.add_row(row.label, *cells)
        if row.why:
            table.add_row(f"  {row.why}", style="yellow")
    return table


def _by_path(values: Mapping[str, float], name: str) -> str:
    shown = [value for key, value in sorted(values.items()) if key.rstrip("0123456789") == name]
    return " | ".join(f"{value:.3g}" for value in shown) or "-"


class Board:
    """The live display of a run: per arm its budget, its trials and its best; below, what is in training.

    On a terminal it redraws itself; elsewhere each finished trial is one line. Use as a context.
    """

    def __init__(self, console: Console, title: str, metric: str, contest: Contest) -> None:
        self._console, self._title, self._metric, self._contest = console, title, metric, contest
        self._looks: dict[str, Record] = {}
        self._began = time.monotonic()
        self._live = Live(get_renderable=self._draw, console=console, refresh_per_second=2, transient=True)

    def __enter__(self) -> Board:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def watch(self, record: Record, contest: Contest) -> None:
        """Take in a look at a training, or a finished trial."""
        if record.trial in contest.running:
            self._looks[record.trial] = record
            return
        self._looks.pop(record.trial, None)
        self._console.print(self._line(record, contest), highlight=False, soft_wrap=True)

    def _line(self, record: Record, contest: Contest) -> Text:
        line = trial_line(record, self._metric)
        if record.status == "failed":
            return Text(line, style="red")
        arm = next(a for a in contest.arms if (a.name, a.seed) == (record.strategy, record.seed))
        leads = contest.best is not None and contest.best.trial == record.trial
        return Text(f"{line}; arm {self._share(arm):.0f} % spent", style="bold" if leads else "")

    @staticmethod
    def _share(arm: Arm) -> float:
        return 100 * arm.budget.spent(arm.spent) / arm.budget.limit

    def _draw(self) -> RenderableType:
        header = Text(f"{self._title}   {duration(time.monotonic() - self._began)}", style="bold")
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("arm", overflow="fold")
        for name in ("spent", "trials", "best", "RF, px"):
            table.add_column(name, justify="right", no_wrap=True)
        for arm in self._contest.arms:
            best = arm.best
            table.add_row(
                arm.label,
                f"{self._share(arm):.0f} % of {arm.budget.text}",
                f"{len(arm.handed_out) - len(arm.running)}",
                f"{best.val:.4f}" if best and best.val is not None else "-",
                field_px(best.rf_px, best.path_rf_px) if best else "-",
            )
        # Lines of their own: beside the arms, 80 columns would cut them off.
        training = [Text(self._progress(name, a.candidate)) for name, a in list(self._contest.running.items())]
        incumbent = Text("No trial has finished yet.")
        if best := self._contest.best:
            field = field_px(best.rf_px, best.path_rf_px)
            said = f"Best so far: {Candidate.from_json(best.candidate)}, RF {field} px ({best.trial})"
            incumbent = Text(said, style="green")
        return Group(header, table, Text(f"best: {self._metric}", style="dim"), *training, incumbent)

    def _progress(self, trial: str, candidate: str) -> str:
        look = self._looks.get(trial)
        said = f"In training: {trial} {Candidate.from_json(candidate)}"
        return f"{said} (step {look.steps}, {look.val:.3f})" if look and look.val is not None else said
