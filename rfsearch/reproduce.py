"""Run a published table again: its protocol, its rows, and the printed and the measured numbers side by side.

What of a protocol a preset does not follow is worked out by comparing the two. Only what no setting here does is
written down by hand, in the table's file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

from rfsearch.errors import SpaceError
from rfsearch.ledger import Record, Request, read_run
from rfsearch.numbers import number, percent
from rfsearch.planning.plan import Plan
from rfsearch.published import Printed, Protocol, PublishedTable, Row, candidate_of
from rfsearch.space import Space

_BUDGET_PER_ROW = 8  # trainings of the reference; no row of a table costs that much, so each is trained to its end
_PER_CENT = 100


@dataclass(frozen=True)
class Measured:
    """Compare the printed and the measured numbers of one row.

    Numbers of parallel paths are in columns of their own: f1, f2.

    Attributes:
        label: Name of the row.
        printed: The paper's numbers, by column.
        measured: Ours, by column.
        trainings: Over how many trainings they are averaged.
        why: Why the row was not measured.
        marks: What is printed beside a number or in its place, by column.
        suspect: Why a printed number cannot be right, by column.
        not_followed: What of the paper's protocol its training did not follow, one sentence each.

    Example:
        >>> [row.measured for row in measure_rows(table, rows, run_dir, the_plan, {})]
    """

    label: str
    printed: Mapping[str, Decimal]
    measured: Mapping[str, float]
    trainings: int = 0
    why: str = ""
    marks: Mapping[str, str] = field(default_factory=dict)
    suspect: Mapping[str, str] = field(default_factory=dict)
    not_followed: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return {**vars(self), "printed": {name: _as_json(value) for name, value in self.printed.items()}}


def requests(table: PublishedTable, base: Request, scale: str) -> dict[str, tuple[Request, list[Row]]]:
    """Return what to run, by the name of its folder, with the rows, or parts of them, that it trains.

    They share a request, and so a run, if they have one network and the same delay of f.

    Args:
        table: The table. Where none of its rows can be trained, there is nothing to run.
        base: Options that all requests share.
        scale: A key of the table's presets.

    Raises:
        SpaceError: The scale is unknown.
    """
    if table.run is None:
        return {}
    if scale not in table.run.presets:
        raise SpaceError(f"--scale is {' or '.join(table.run.presets)}. Got {scale!r}.")
    space = base.space or (table.run.space if base.data else table.run.fallback)
    found: dict[str, list[Row]] = {}
    for part in (part for row in table.rows if row.candidate for part in row.parts):
        found.setdefault(_folder(table, part, scale), []).append(part)
    preset = base.preset or table.run.presets[scale]
    return {
        folder: (
            replace(
                base,
                space=space,
                preset=preset,
                backbone=rows[0].backbone.get(scale, base.backbone),
                sites=tuple(dict.fromkeys(site for row in rows for site in row.candidate)),
                candidates=tuple(dict.fromkeys(candidate_of(row).to_json() for row in rows)),
                changes=base.changes + _delayed(table.protocol_of(rows[0])) + _untrained(rows[0], scale),
                budget=f"{_BUDGET_PER_ROW * len(rows)}x",
            ),
            rows,
        )
        for folder, rows in found.items()
    }


def _delayed(protocol: Protocol) -> tuple[str, ...]:
    """Return the change of a space that lets f wait as a protocol says."""
    return () if protocol.f_delay is None else (f"recipe.f_delay={protocol.f_delay}",)


def _untrained(row: Row, scale: str) -> tuple[str, ...]:
    """Return the change of a space that leaves out trained weights where a row has a network of its own.

    Those are weights of the space's network and fit no other.
    """
    return ("weights=none",) if scale in row.backbone else ()


def _folder(table: PublishedTable, row: Row, scale: str) -> str:
    """Name the folder of the run that trains a row."""
    network, waits = row.backbone.get(scale, "rows").rpartition(":")[2], table.protocol_of(row).f_delay_steps
    return network if waits == table.protocol.f_delay_steps else f"{network}-f-after-{waits}"


def departures(table: PublishedTable, row: Row, the_plan: Plan) -> list[str]:
    """List where a plan departs from the paper's protocol for a row, one sentence each."""
    protocol, space, data, recipe = table.protocol_of(row), the_plan.space, the_plan.data, the_plan.space.recipe
    found = []
    if data.rendered:
        found.append(f"Data: rendered drawings, not {protocol.data}.")
    elif space.data.layout != protocol.data and space.name != protocol.data:
        found.append(f"Data: {data.name}, not {protocol.data}.")
    pairs = {
        "Network": (space.backbone, protocol.backbone),
        "Steps": (recipe.steps, protocol.trained_steps),
        "Batch size": (recipe.batch_size, protocol.batch_size),
        "Image size": (tuple(data.image_size), protocol.image_size),
        "Learning rate": (recipe.lr, protocol.mean_lr),
        "Power of the rate's decay": (recipe.power, protocol.power),
        "Weight decay": (recipe.weight_decay, protocol.mean_weight_decay),
        "Momentum": (recipe.momentum, protocol.momentum),
    }
    differing = {what: _unless_equal(what, ours, theirs) for what, (ours, theirs) in pairs.items()}
    found += chain.from_iterable(differing.values())
    if protocol.loss == "sum" and (differing["Learning rate"] or differing["Weight decay"]):
        found.append(
            "The paper's loss is a sum over pixels; its rate and weight decay are compared as those of a mean."
        )
    if protocol.lr_drop is not None and not (recipe.lr_steps and recipe.lr_drop == protocol.lr_drop):
        ours = _said(recipe.lr_drop) if recipe.lr_steps else "none"
        found.append(f"Factor of the rate's drops: {ours}, not {_said(protocol.lr_drop)}.")
    found += _additions(space)
    if protocol.weights and space.weights == "none":
        found.append(f"No pretrained weights: the network trains from scratch, not from {protocol.weights}.")
    paths = [path for _, path in candidate_of(row)]
    if any(path.choice.moves == "f" for path in paths):
        found += _departures_of_f(protocol, space)
    if any(path.labels for path in paths):
        found += _unless_equal("W of loss guidance", recipe.guidance_weight, protocol.guidance_weight)
    found += protocol.beyond
    unknown = [what.lower() for what, (_, theirs) in pairs.items() if theirs is None]
    if not protocol.weights:
        unknown.append("pretrained weights")
    if unknown:
        found.append(f"Not recorded for the paper, so not compared: {', '.join(unknown)}.")
    return found


def _additions(space: Space) -> list[str]:
    """List what a training here has that no paper names, one sentence each."""
    recipe = space.recipe
    changes = {
        "mirrored": recipe.flip,
        "zoomed": recipe.scale != (1.0, 1.0),
        "shifted": recipe.shift > 0,
        "changed in brightness": recipe.brightness > 0,
        "changed in contrast": recipe.contrast > 0,
    }
    found = [what for what, done in changes.items() if done]
    said = [f"Training images are {', '.join(found)}; the paper names no such change."] if found else []
    if (weights := space.task.owned.get("class_weights", "none")) != "none":
        said.append(f"Classes are weighted in the loss ({weights}); the paper names no weights.")
    return said


def _departures_of_f(protocol: Protocol, space: Space) -> list[str]:
    recipe, found = space.recipe, []
    if protocol.f_lr_multiplier is not None:
        low, high = protocol.f_lr_multiplier
        theirs = _said(low) if low == high else f"{_said(low)} to {_said(high)}"
        if recipe.f_step:
            found.append(
                f"f moves by relative steps of {_said(recipe.f_step)}, not at {theirs} times the rate of the weights."
            )
        elif not low <= recipe.f_lr_multiplier <= high:
            found.append(f"Rate of f over that of the weights: {_said(recipe.f_lr_multiplier)}, not {theirs}.")
    if protocol.f_bounds is not None and protocol.f_bounds != space.f_bounds:
        ours, theirs = (f"{_said(low)} to {_said(high)}" for low, high in (space.f_bounds, protocol.f_bounds))
        found.append(f"Bounds of f: {ours}, not {theirs}.")
    found += _unless_equal("Normalisation of f's gradient", recipe.normalisation, protocol.normalisation)
    found += _unless_equal("Border of inflated maps", recipe.border, protocol.border)
    share = protocol.f_delay
    if share is not None and not math.isclose(recipe.f_delay, share, abs_tol=1e-4):
        found.append(f"f waits for {percent(recipe.f_delay)} of the training, not for {percent(share)}.")
    return found


def measure_rows(
    table: PublishedTable, rows: Sequence[Row], run_dir: Path, the_plan: Plan | None, misfits: Mapping[str, str]
) -> list[Measured]:
    """Return the rows with what a run measured of them, averaged over seeds.

    Args:
        table: The table.
        rows: Those of its rows that share the run.
        run_dir: The run's directory. If it does not exist, nothing was measured.
        the_plan: The run's plan; None where no row could be trained.
        misfits: Why a candidate could not be trained at all, by its JSON.
    """
    by_candidate: dict[str, list[Record]] = {}
    for record in read_run(run_dir).records if run_dir.exists() else ():
        by_candidate.setdefault(record.candidate, []).append(record)
    found = []
    for row in rows:
        text = candidate_of(row).to_json()
        records = by_candidate.get(text, [])
        done = [record for record in records if record.status == "completed"]
        if the_plan is None or not done:
            why = misfits.get(text) or next((r.cause or r.status for r in records), "not trained")
            found.append(unmeasured(row, f"{table.columns[row.column].title}: {why}" if row.column else why))
            continue
        measured = _columns(table, done)
        if row.column:
            score = measured.get("score", math.nan) * (_PER_CENT if table.columns[row.column].unit == "%" else 1)
            measured = {row.column: score}
        missing = [
            table.columns[name].title
            for name, value in row.printed.items()
            if not (table.columns[name].setting or row.column or measured.keys() & by_path(name, value).keys())
        ]
        lacking = [f"Printed, and not measured on this data: {', '.join(missing)}."] if missing else []
        lacking += [
            f"It shares its training with {_named(table, other)}: nothing that a row can set tells them apart."
            for other in rows
            if other is not row and candidate_of(other).to_json() == text
        ]
        found.append(
            replace(
                unmeasured(row),
                measured=measured,
                trainings=len(done),
                not_followed=(*departures(table, row, the_plan), *lacking),
            )
        )
    return found


def _named(table: PublishedTable, row: Row) -> str:
    """Name a row, or the column of it that is trained apart."""
    return f"'{row.label}'" + (f", {table.columns[row.column].title}" if row.column else "")


def joined(parts: Sequence[Measured]) -> Measured:
    """Return a row of its parts: what each of them measured, and why others did not."""
    first, sentences = parts[0], dict.fromkeys(chain.from_iterable(part.not_followed for part in parts))
    return replace(
        first,
        measured={name: value for part in parts for name, value in part.measured.items()},
        trainings=sum(part.trainings for part in parts),
        why="; ".join(dict.fromkeys(part.why for part in parts if part.why)),
        not_followed=tuple(sentences),
    )


def unmeasured(row: Row, why: str = "") -> Measured:
    """Return a row with its printed numbers only.

    Args:
        row: The row.
        why: Why it was not measured; empty for what the row itself says.
    """
    printed = {column: number for name, value in row.printed.items() for column, number in by_path(name, value).items()}
    return Measured(row.label, printed, {}, why=why or row.not_run, marks=row.marks, suspect=row.suspect)


def in_common(rows: Sequence[Measured]) -> tuple[list[str], list[Measured]]:
    """Take out of the rows what none of their trainings followed.

    Returns:
        That, and the rows with what is special to each.
    """
    trained = [row for row in rows if row.trainings]
    first = trained[0].not_followed if trained else ()
    common = [sentence for sentence in first if all(sentence in row.not_followed for row in trained)]
    own = [
        replace(row, not_followed=tuple(sentence for sentence in row.not_followed if sentence not in common))
        for row in rows
    ]
    return common, own


def by_path(name: str, value: Printed) -> dict[str, Decimal]:
    """Return a printed value by column: one number, or f1, f2 ... of parallel paths."""
    if isinstance(value, tuple):
        return {f"{name}{number}": part for number, part in enumerate(value, start=1)}
    return {name: value}


def _columns(table: PublishedTable, records: Iterable[Record]) -> dict[str, float]:
    """Return the means of what completed trainings measured, by column."""
    columns: dict[str, list[float]] = {}
    for record in records:
        fields = {path.partition("/")[2]: px for path, px in record.path_rf_px.items()} or {"": record.rf_px}
        for place, px in fields.items():
            columns.setdefault(f"rf_px{place}", []).append(float(px))
        for letter, values in (("f", record.f), ("gamma", record.gamma)):
            for path, value in values.items():
                columns.setdefault(f"{letter}{path.partition('/')[2]}", []).append(value)
        score = record.test if record.test is not None else record.val
        if score is not None:
            columns.setdefault("score", []).append(score)
        for name, column in table.columns.items():
            value = record.scores.get(column.measured, math.nan)
            if math.isfinite(value):
                columns.setdefault(name, []).append(value * (_PER_CENT if column.unit == "%" else 1))
    return {name: fmean(values) for name, values in columns.items()}


def _unless_equal(what: str, ours: Any, theirs: Any) -> list[str]:
    """Return a sentence where two settings differ; None is one that the paper does not say."""
    same = math.isclose(ours, theirs) if isinstance(theirs, float) else ours == theirs
    return [] if theirs is None or same else [f"{what}: {_said(ours)}, not {_said(theirs)}."]


def _said(value: Any) -> str:
    if isinstance(value, tuple):
        return " x ".join(map(str, value))
    if isinstance(value, float):
        return number(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _as_json(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)
