"""The rows of a run's tables: what each shows and in which order, for terminal, CSV files and page alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rfsearch.choices import Candidate, path_names
from rfsearch.direction import Direction
from rfsearch.ledger import Cost, Record, incumbent
from rfsearch.ledger.record import TRIAL_COLUMNS, Status, parsed
from rfsearch.numbers import MISSING, duration, field_px, finite, multiple, parallel, plain, prefixed, score
from rfsearch.report.view import ArmRecords, RunView, factors, has_start, setting_of

STATUSES: tuple[Status, ...] = ("completed", "pruned", "cut", "failed")
ANYTIME_COLUMNS = ("strategy", "seed", "spent_flop", "spent_device_s", "spent_epochs", "incumbent", "val", "test")

_MOST_SCORES = 12  # that get a column each

Cell = tuple[str, float | None]
"""A table cell: how it reads, and what it is sorted by."""


@dataclass(frozen=True)
class Column:
    """Describe one column of the trials.

    Attributes:
        heading: Its heading.
        cell: What it shows of a record.

    Example:
        >>> Column("seed", lambda record: (str(record.seed), record.seed)).heading
        'seed'
    """

    heading: str
    cell: Callable[[Record], Cell]


@dataclass(frozen=True)
class TrialRow:
    """Hold one trial as a table shows it; `trial_groups` makes them.

    Attributes:
        record: The trial.
        setting: Its candidate in words.
        cells: One per column of `trial_columns`.
        leads: Whether it is the best training of what is recommended.
    """

    record: Record
    setting: str
    cells: tuple[Cell, ...]
    leads: bool


@dataclass(frozen=True)
class ArmRow:
    """Say what one arm did and spent, and why it ended.

    Attributes:
        arm: Its records and incumbent.
        spent: In the budget's currency.
        limit: Its budget in that currency; None where the run does not say.
        ended: Why it ended with budget left; empty where it did not, or where nobody noted it.

    Example:
        >>> row = ArmRow(ArmRecords("random", 0, (), "maximize"), spent=3.0, limit=4.0, ended="")
        >>> row.share, row.statuses
        (0.75, 'none yet')
    """

    arm: ArmRecords
    spent: float
    limit: float | None
    ended: str

    @property
    def share(self) -> float | None:
        """The share of its budget that is spent."""
        return self.spent / self.limit if self.limit else None

    @property
    def statuses(self) -> str:
        """How its trials ended, in words: 3 completed, 1 failed."""
        counts = Counter(record.status for record in self.arm.records)
        return ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status]) or "none yet"


def trials_table(records: Iterable[Record]) -> pd.DataFrame:
    """Return trials.csv: one row per trial, in the contract's columns.

    `f`, `gamma` and `dilation` are plain numbers where every candidate has one site with one path.
    """
    records = tuple(records)
    known = [candidate for record in records if (candidate := parsed(record.candidate))]
    one_path = all(len(tuple(candidate)) == 1 for candidate in known)
    return pd.DataFrame([record.row(one_path) for record in records], columns=list(TRIAL_COLUMNS))


def anytime_table(records: Iterable[Record], direction: Direction) -> pd.DataFrame:
    """Return anytime.csv: after each record, what its arm had spent and which trial it would have answered with.

    The incumbent is chosen on validation; `test` is that trial's test score.
    """
    spent: dict[tuple[str, int], Cost] = {}
    best: dict[tuple[str, int], Record | None] = {}
    rows = []
    for record in records:
        arm = (record.strategy, record.seed)
        spent[arm] = spent.get(arm, Cost()) + record.cost
        best[arm] = leader = incumbent((best.get(arm), record), direction)
        row = (*arm, spent[arm].flop, spent[arm].device_s, spent[arm].epochs)
        rows.append((*row, leader.trial, leader.val, leader.test) if leader else (*row, "", None, None))
    return pd.DataFrame(rows, columns=list(ANYTIME_COLUMNS))


def trial_groups(view: RunView) -> list[tuple[str, list[TrialRow]]]:
    """Return the trials of each strategy that has any, by initial receptive field and dilation, then by seed."""
    columns = trial_columns(view)
    groups = []
    for strategy in view.strategies:
        records = sorted((r for r in view.records if r.strategy == strategy), key=_by_start)
        if records:
            groups.append((strategy, [_trial_row(record, columns, view) for record in records]))
    return groups


def trial_columns(view: RunView) -> list[Column]:
    """Return the columns of the trials that this run has something to show in."""
    classes, unit = view.facts.classes, view.facts.reference_flop
    columns = [
        Column("initial dilation", _dilation_cell),
        Column("initial RF, px", lambda r: _field_cell(r.rf_init_px) if has_start(r) else (MISSING, None)),
        Column("f, γ" if view.samples else "f", _factor_cell),
    ]
    if view.guides:
        columns.append(Column("guided by", _label_cell))
    columns += [
        Column("new RF, px", lambda r: (field_px(r.rf_px, r.path_rf_px), r.rf_px)),
        Column("val", lambda r: _score_cell(r.val)),
    ]
    if view.split == "test":
        columns.append(Column("test", lambda r: _score_cell(r.test)))
    columns.append(Column("cost", lambda r: _cost_cell(r.cost.flop, unit)))
    columns.append(Column("device time", lambda r: (duration(r.cost.device_s), finite(r.cost.device_s))))
    # Of many classes these are the columns that a narrow page scrolls to.
    return [*columns, *(_score_column(name, classes) for name in extra_scores(view) if not hidden_scores(view))]


def arm_rows(view: RunView) -> list[ArmRow]:
    """Return the arms by strategy, in the order in which the run names them, then by seed."""
    order = {strategy: i for i, strategy in enumerate(view.strategies)}
    facts = view.facts
    return [
        ArmRow(
            arm,
            float(getattr(arm.spent, facts.currency)),
            facts.limit,
            view.run.ends.get((arm.strategy, arm.seed), ""),
        )
        for arm in sorted(view.arms, key=lambda arm: (order[arm.strategy], arm.seed))
    ]


def trial_line(record: Record, metric: str) -> str:
    """Return a finished trial as one line of a terminal.

    Args:
        record: The trial.
        metric: Name of its validation score.
    """
    candidate = Candidate.from_json(record.candidate)
    line = f"{record.status:<9} {record.trial:<18} {candidate}"
    if candidate.learned and (ended := _learned(record)):
        line += f" -> {', '.join(ended)}"
    elif record.outcome != record.candidate and record.ended:  # the nearest one of a replay
        line += f" -> {record.ended}"
    if record.status == "failed":
        return f"{line}: {record.cause}"
    line += f" on from {record.heir_of}" if record.heir_of else ""
    line += f", RF {field_px(record.rf_px, record.path_rf_px)} px"
    return line if record.val is None else f"{line}, {metric} {score(record.val)}"


def _learned(record: Record) -> list[str]:
    """Return what training moved, by path: the dilations that it found, then f and gamma."""
    numbers = {name: choice.numbers for name, choice in record.found.items()}
    moved = {name: path.choice.moves for name, path in parsed(record.candidate) or () if name in numbers}
    ended = [f"{path} d={plain(numbers[path]['dilation'])}" for path, name in moved.items() if name == "dilation"]
    for letter, values in (("f", record.f), ("gamma", record.gamma)):
        ended += [f"{path} {letter}={value:.3f}" for path, value in values.items()]
    return ended


def _trial_row(record: Record, columns: Sequence[Column], view: RunView) -> TrialRow:
    cells = tuple(column.cell(record) for column in columns)
    return TrialRow(record, setting_of(record.candidate, record), cells, record is view.recommended)


def _by_start(record: Record) -> tuple[Any, ...]:
    return (record.rf_init_px, _dilation_cell(record)[1] or 0.0, record.rf_px, record.seed, record.train_seed)


def _field_cell(px: int) -> Cell:
    return field_px(px), px


def _score_cell(value: float | None) -> Cell:
    return score(value), finite(value)


def _cost_cell(flop: float, unit: float | None) -> Cell:
    return (multiple(flop / unit) if unit else prefixed(flop, "FLOP")), finite(flop)


def _score_column(name: str, classes: Sequence[str]) -> Column:
    return Column(score_heading(name, classes), lambda record: _score_cell(record.scores.get(name)))


def extra_scores(view: RunView) -> tuple[str, ...]:
    """Return the scores that get columns of their own: all but the one that is shown as val and test."""
    names = dict.fromkeys(name for r in view.records for name in r.scores)
    return tuple(name for name in names if name != view.facts.metric)


def hidden_scores(view: RunView) -> int:
    """Return how many scores there are beside the main one, where they are too many for columns of their own."""
    count = len(extra_scores(view))
    return count if count > _MOST_SCORES else 0


def score_heading(name: str, classes: Sequence[str]) -> str:
    """Return a score's name for a table's head: a class by its name rather than its id, with gaps to break lines at."""
    stem, _, last = name.rpartition("_")
    if stem and last.isdecimal() and int(last) < len(classes):
        name = f"{stem} {classes[int(last)]}"
    return name.replace("_", " ")


def _dilation_cell(record: Record) -> Cell:
    known = parsed(record.candidate)
    if known is None:
        return record.candidate, None
    final = dict(record.ended or known)
    words = {}
    for site, paths in known.sites:
        names = path_names(site, len(paths))
        words[site] = [
            path.choice.cell(final.get(name, path).choice, plain) for name, path in zip(names, paths, strict=True)
        ]
    by_site = {site: parallel(texts) for site, texts in words.items()}
    mean = sum(path.choice.numbers.get("dilation", 0.0) for _, path in known) / len(dict(known))
    if len(set(by_site.values())) == 1:
        return next(iter(by_site.values())), mean
    return ", ".join(f"{site} {text}" for site, text in by_site.items()), mean


def _factor_cell(record: Record) -> Cell:
    known = parsed(record.candidate)
    ended = factors(record)
    strides: Mapping[str, float] = {
        path: value for path, gamma in record.gamma.items() if (value := finite(gamma)) is not None
    }
    if known is None or not (ended or strides):
        return "1", 1.0
    words = {
        path: f"γ {plain(strides[path])}" if path in strides else f"{ended[path]:.3f}" if path in ended else "1"
        for path, _ in known
    }
    values = [strides.get(path, ended.get(path, 1.0)) for path, _ in known]
    mean = sum(values) / len(values)
    if len(known.sites) == 1:
        return parallel(words.values()), mean
    return ", ".join(f"{path} {words[path]}" for path in words if path in ended or path in strides), mean


def _label_cell(record: Record) -> Cell:
    sets = [", ".join(path.labels) or MISSING for _, path in parsed(record.candidate) or ()]
    return (parallel(sets) if any(text != MISSING for text in sets) else MISSING), None
