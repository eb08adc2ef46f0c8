"""Run a published table again: its protocol, its rows, and the printed and the measured numbers side by side.

Tables are in `baselines/published/`, one TOML file each. What of a protocol a preset does not follow is worked out by
comparing the two, never written down by hand.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from rfsearch import plugins
from rfsearch.choices import Candidate
from rfsearch.errors import SpaceError, nearest
from rfsearch.ledger import Record, Request, read_run
from rfsearch.planning.plan import Plan

_BUDGET_PER_ROW = 8  # trainings of the reference; no row of a table costs that much, so each is trained to its end


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Protocol(_Frozen):
    """Describe what a paper did. What its text does not say is None.

    Attributes:
        data: Name of its data set.
        kernel: Taps per axis of the searched convolution.
        backbone: Its network.
        weights: What its network was pretrained on.
        steps: Steps of a training.
        batch_size: Images per step.
        image_size: (H, W), px.

    Example:
        >>> read_table("wei-table2").protocol.data
    """

    data: str
    kernel: int | None = None
    backbone: str | None = None
    weights: str | None = None
    steps: int | None = None
    batch_size: int | None = None
    image_size: tuple[int, int] | None = None


class Row(_Frozen):
    """Describe one row of a table.

    Attributes:
        label: What it is called.
        candidate: Site -> choice, as in a ledger.
        printed: The paper's numbers, by column.
        suspect: The columns whose printed number contradicts the paper's own formula.
        backbone: Network of this row, by scale, if it has one of its own.

    Example:
        >>> [row.label for row in read_table("wei-table2").rows]
    """

    label: str
    candidate: dict[str, Any]
    printed: dict[str, float] = {}
    suspect: tuple[str, ...] = ()
    backbone: dict[str, str] = {}


class PublishedTable(_Frozen):
    """Describe a published table.

    Attributes:
        title: What it shows.
        cite: Where it was published.
        note: What else to know.
        space: Space of its data.
        fallback: Space that is used without --data.
        presets: Presets of those spaces by scale: "small" (two CPU cores) and "paper".
        protocol: What the paper did.
        rows: Its rows.

    Example:
        >>> read_table("wei-table2").title
    """

    title: str
    cite: str
    note: str = ""
    space: str
    fallback: str
    presets: dict[str, str]
    protocol: Protocol
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Measured:
    """Compare the printed and the measured numbers of one row.

    Attributes:
        label: Name of the row.
        printed: The paper's numbers, by column.
        measured: Ours, by column.
        trainings: Over how many trainings they are averaged.
        why: Why the row was not measured.

    Example:
        >>> [row.measured for row in measure_rows(rows, run_dir, {})]
    """

    label: str
    printed: Mapping[str, float]
    measured: Mapping[str, float]
    trainings: int = 0
    why: str = ""


def table_names() -> list[str]:
    """List every table that can be run again, as paper-table."""
    found = plugins.shipped("baselines").glob("published/*/table*.toml")
    return sorted(f"{path.parent.name}-{path.stem}" for path in found)


def read_table(name: str) -> PublishedTable:
    """Read a table by its name, paper-table.

    Raises:
        SpaceError: There is no such table, or its file is faulty.
    """
    paper, _, stem = name.partition("-")
    path = plugins.shipped("baselines") / "published" / paper / f"{stem}.toml"
    if name not in table_names():
        raise SpaceError(f"no table {name!r} to reproduce.{nearest(name, table_names())}")
    try:
        return PublishedTable.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise SpaceError(f"{path}: not a table: {error}") from error


def requests(table: PublishedTable, base: Request, scale: str) -> dict[str, tuple[Request, list[Row]]]:
    """Return what to run, by the name of its folder: one request per network, with the rows that it trains.

    Args:
        table: The table.
        base: Options that all requests share.
        scale: A key of the table's presets.

    Raises:
        SpaceError: The scale is unknown.
    """
    if scale not in table.presets:
        raise SpaceError(f"--scale is {' or '.join(table.presets)}. Got {scale!r}.")
    space = base.space or (table.space if base.data else table.fallback)
    found: dict[str, list[Row]] = {}
    for row in table.rows:
        found.setdefault(row.backbone.get(scale, ""), []).append(row)
    preset = base.preset or table.presets[scale]
    return {
        backbone or "rows": (
            replace(
                base,
                space=space,
                preset=preset,
                backbone=backbone or base.backbone,
                sites=tuple(dict.fromkeys(site for row in rows for site in row.candidate)),
                candidates=tuple(dict.fromkeys(candidate_of(row).to_json() for row in rows)),
                budget=f"{_BUDGET_PER_ROW * len(rows)}x",
            ),
            rows,
        )
        for backbone, rows in found.items()
    }


def candidate_of(row: Row) -> Candidate:
    """Return the candidate of a row."""
    return Candidate.from_json(json.dumps(dict(row.candidate)))


def departures(table: PublishedTable, the_plan: Plan) -> list[str]:
    """List what of the paper's protocol a plan does not follow, one sentence each."""
    protocol, space, data = table.protocol, the_plan.space, the_plan.data
    found = []
    if data.rendered:
        found.append(f"Data: rendered drawings, not {protocol.data}.")
    elif space.data.layout != protocol.data and space.name != protocol.data:
        found.append(f"Data: {data.name}, not {protocol.data}.")
    pairs = (
        ("Network", space.backbone, protocol.backbone),
        ("Steps", space.recipe.steps, protocol.steps),
        ("Batch size", space.recipe.batch_size, protocol.batch_size),
        ("Image size", tuple(data.image_size), protocol.image_size),
    )
    found += [
        f"{what}: {_said(ours)}, not {_said(theirs)}." for what, ours, theirs in pairs if theirs not in (None, ours)
    ]
    if protocol.weights and space.weights == "none":
        found.append(f"No pretrained weights: the network trains from scratch, not from {protocol.weights}.")
    unknown = [what.lower() for what, _, theirs in pairs if theirs is None]
    if unknown:
        found.append(f"Not recorded for the paper, so not compared: {', '.join(unknown)}.")
    return found


def measure_rows(rows: Sequence[Row], run_dir: Path, misfits: Mapping[str, str]) -> list[Measured]:
    """Return the rows with what a run measured of them, averaged over seeds.

    Args:
        rows: The rows.
        run_dir: The run's directory. If it does not exist, nothing was measured.
        misfits: Why a candidate could not be trained at all, by its JSON.
    """
    by_candidate: dict[str, list[Record]] = {}
    for record in read_run(run_dir).records if run_dir.exists() else ():
        by_candidate.setdefault(record.candidate, []).append(record)
    found = []
    for row in rows:
        text = candidate_of(row).to_json()
        found.append(_measured(row, by_candidate.get(text, []), misfits.get(text, "")))
    return found


def _measured(row: Row, records: Sequence[Record], misfit: str) -> Measured:
    done = [r for r in records if r.status == "completed"]
    if not done:
        why = misfit or next((r.cause or r.status for r in records), "not trained")
        return Measured(row.label, row.printed, {}, why=why)
    columns: dict[str, list[float]] = {"rf_px": [float(r.rf_px) for r in done]}
    for record in done:
        for letter, values in (("f", record.f), ("gamma", record.gamma)):
            for path, value in values.items():
                _, _, number = path.partition("/")
                columns.setdefault(f"{letter}{number}", []).append(value)
        score = record.test if record.test is not None else record.val
        if score is not None:
            columns.setdefault("score", []).append(score)
    return Measured(row.label, row.printed, {name: fmean(values) for name, values in columns.items()}, len(done))


def _said(value: Any) -> str:
    return (
        " x ".join(map(str, value))
        if isinstance(value, tuple)
        else f"{value:,}"
        if isinstance(value, int)
        else str(value)
    )
