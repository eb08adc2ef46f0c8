"""Read the tables that papers print: every number as printed, with its marks, and what is known of how it came.

They are in `baselines/published/`, one TOML file each; the README there describes the format.
"""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rfsearch import plugins
from rfsearch.choices import Candidate
from rfsearch.errors import SpaceError, nearest

Printed = Decimal | tuple[Decimal, ...]  # one number, or one for each parallel path; a Decimal keeps trailing zeros


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Column(_Frozen):
    """Describe a column of numbers.

    Attributes:
        title: What it is called.
        unit: Of its numbers.
        measured: Name of the score that a run here measures for it.
        setting: Whether its numbers are what a row was given, not what came of it.

    Example:
        >>> read_table("wei-table2").columns["eye"].measured
    """

    title: str
    unit: str = ""
    measured: str = ""
    setting: bool = False

    @property
    def heading(self) -> str:
        """Its title with the unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


class Protocol(_Frozen):
    """Describe what a paper did, in its own units. What its text does not say is None, or empty.

    Attributes:
        data: Name of its data set.
        kernel: Taps per axis of the searched convolution.
        backbone: Its network.
        weights: What its network was pretrained on.
        steps: Steps of a training.
        stopped_after: Step after which a training was stopped, where that is before its last.
        batch_size: Images per step.
        image_size: (H, W), px.
        loss: Over the pixels of an image: their sum, or their mean.
        lr: Rate of the weights on that loss.
        power: Of the rate's decay; 0 where the rate only drops, or stays.
        lr_drop: Factor of each drop of the rate.
        momentum: Of the optimiser.
        weight_decay: Of the optimiser, on that loss.
        f_lr_multiplier: Smallest and largest rate of a learned f, over lr.
        f_bounds: Between which f was held.
        f_delay_steps: Steps before f may move.
        normalisation: Of f's gradient, as in a recipe.
        border: Of inflated maps, as in a recipe.
        guidance_weight: W of loss guidance.
        beyond: What it did that no setting here repeats, or does not print, one sentence each.
        settings: Its other settings, by name: kept for the record.

    Example:
        >>> read_table("wei-table2").protocol.data
    """

    data: str
    kernel: int | None = None
    backbone: str | None = None
    weights: str | None = None
    steps: int | None = None
    stopped_after: int | None = None
    batch_size: int | None = None
    image_size: tuple[int, int] | None = None
    loss: Literal["sum", "mean"] = "mean"
    lr: float | None = None
    power: float | None = None
    lr_drop: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    f_lr_multiplier: tuple[float, float] | None = None
    f_bounds: tuple[float, float] | None = None
    f_delay_steps: int | None = None
    normalisation: str | None = None
    border: str | None = None
    guidance_weight: float | None = None
    beyond: tuple[str, ...] = ()
    settings: dict[str, Any] = {}

    @property
    def trained_steps(self) -> int | None:
        """Steps that its trainings had in the end."""
        return self.stopped_after or self.steps

    @property
    def f_delay(self) -> float | None:
        """Share of its trainings before f may move."""
        if self.f_delay_steps is None or self.trained_steps is None:
            return None
        return self.f_delay_steps / self.trained_steps

    @property
    def mean_lr(self) -> float | None:
        """Its rate on a loss that is the mean over the pixels: the gradient of their sum is so many times larger."""
        return None if self.lr is None or self._summed is None else self.lr * self._summed

    @property
    def mean_weight_decay(self) -> float | None:
        """Its weight decay beside a loss that is the mean over the pixels."""
        return None if self.weight_decay is None or self._summed is None else self.weight_decay / self._summed

    @property
    def _summed(self) -> int | None:
        """Pixels that the loss sums over; 1 for a mean, None where they are not known."""
        if self.loss == "mean":
            return 1
        return self.image_size[0] * self.image_size[1] if self.image_size else None


class Row(_Frozen):
    """Describe one row of a table. One without printed numbers is ours, trained beside the paper's.

    Attributes:
        label: What it is called.
        printed: The paper's numbers, by column.
        marks: What is printed beside a number or in its place, by column.
        suspect: Why a printed number cannot be right, by column.
        protocol: What the paper did differently in this row, by field of the protocol.
        candidate: What to train: site -> choice, as in a ledger.
        backbone: Network of this row, by scale, if it has one of its own.
        networks: Network of each column that was measured with one of its own, by scale, by column.
        column: The only column that a training of this row measures, as in `parts`; empty for all that it can.
        not_run: Why it cannot be trained here, in place of a candidate.

    Example:
        >>> [row.label for row in read_table("wei-table2").rows]
    """

    label: str
    printed: dict[str, Printed] = {}
    marks: dict[str, str] = {}
    suspect: dict[str, str] = {}
    protocol: dict[str, Any] = {}
    candidate: dict[str, Any] = {}
    backbone: dict[str, str] = {}
    networks: dict[str, dict[str, str]] = {}
    column: str = ""
    not_run: str = ""

    @property
    def parts(self) -> tuple[Row, ...]:
        """Return what is trained of the row: itself, or a row for each column that has a network of its own."""
        if not self.networks:
            return (self,)
        return tuple(
            self.model_copy(update={"backbone": network, "networks": {}, "column": column})
            for column, network in self.networks.items()
        )

    @model_validator(mode="after")
    def _trained_or_not(self) -> Row:
        if bool(self.candidate) == bool(self.not_run):
            raise ValueError(f"row {self.label!r} needs either a candidate or not_run, the reason why it has none")
        if lost := sorted(set(self.suspect) - set(self.printed)):
            raise ValueError(f"row {self.label!r}: suspect without a printed number: {', '.join(lost)}")
        if self.candidate:
            try:
                candidate_of(self)
            except SpaceError as error:
                raise ValueError(f"row {self.label!r}: {error}") from error
        return self


class Statement(_Frozen):
    """Hold a number that the paper's text, caption or footnotes print of a table.

    Attributes:
        about: What it is.
        place: Where it is printed.
        printed: The number.
        unit: Its unit.
        suspect: Why it cannot be right.

    Example:
        >>> [statement.printed for statement in read_table("lsdfn-table5").statements]
    """

    about: str
    place: str
    printed: Decimal
    unit: str = ""
    suspect: str = ""


class Training(_Frozen):
    """Say where the rows of a table are trained.

    Attributes:
        space: Space of its data.
        fallback: Space that is used without --data.
        presets: Presets of those spaces by scale: "small" (two CPU cores) and "paper".

    Example:
        >>> read_table("wei-table2").run.presets["small"]
    """

    space: str
    fallback: str
    presets: dict[str, str]


class PublishedTable(_Frozen):
    """Describe a published table.

    Attributes:
        title: What it shows.
        cite: Where it was published.
        note: What else to know.
        columns: Its columns, in print order.
        marks: What the marks mean that stand beside its numbers or in their place.
        protocol: What the paper did.
        run: Where its rows are trained; None where none can be.
        rows: Its rows, in print order.
        statements: What the text around it prints of it.

    Example:
        >>> read_table("wei-table2").title
    """

    title: str
    cite: str
    note: str = ""
    columns: dict[str, Column]
    marks: dict[str, str] = {}
    protocol: Protocol
    run: Training | None = None
    rows: tuple[Row, ...] = Field(min_length=1)
    statements: tuple[Statement, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> PublishedTable:
        labels = Counter(row.label for row in self.rows)
        if twice := [label for label, count in labels.items() if count > 1]:
            raise ValueError(f"rows of one name: {', '.join(twice)}")
        # Numbers of parallel paths are f1, f2 ...
        if numbered := [name for name in self.columns if name[-1].isdigit()]:
            raise ValueError(f"a column's name does not end in a digit: {', '.join(numbered)}")
        for row in self.rows:
            if strange := sorted({*row.printed, *row.marks, *row.networks} - set(self.columns)):
                raise ValueError(f"row {row.label!r}: no such column: {', '.join(strange)}")
            if unknown := sorted(set(row.marks.values()) - set(self.marks)):
                raise ValueError(f"row {row.label!r}: [marks] does not explain {', '.join(unknown)}")
            if row.candidate and self.run is None:
                raise ValueError(f"row {row.label!r} has a candidate, and the table no [run] to train it")
            self.protocol_of(row)
        return self

    def protocol_of(self, row: Row) -> Protocol:
        """Return what the paper did in one of the rows."""
        return Protocol.model_validate({**self.protocol.model_dump(), **row.protocol})


def candidate_of(row: Row) -> Candidate:
    """Return the candidate of a row that has one."""
    return Candidate.from_json(json.dumps(row.candidate, default=float))


def table_names() -> list[str]:
    """List every published table, as paper-table."""
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
        body = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
        return PublishedTable.model_validate(body)
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise SpaceError(f"{path}: not a table: {error}") from error
