"""Tables that a user sees in the terminal: a plan, and a reproduced table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.table import Table

from rfsearch.choices import Candidate
from rfsearch.ledger.manifest import PlannedCandidate
from rfsearch.numbers import byte_size, duration, field_px, multiple, parallel, percent, plain, prefixed
from rfsearch.reproduce import Measured

_UNBOUNDED = 100_000  # wider than any table
_LABEL_WIDTH = 34  # of a published table that is wider than the terminal


def plan_table(rows: Iterable[PlannedCandidate], reference_flop: float, noun: str = "object") -> Table:
    """Return a plan's table: every candidate with its receptive field and the forecast cost of its full training.

    Args:
        rows: One per candidate.
        reference_flop: Training FLOP of one reference training, which is 1x.
        noun: What is called an object in the data, in the singular.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("candidate", overflow="fold")
    for name in ("RF (px)", "of image", f"of {noun}s", "training", "x", "time", "peak memory"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            _alike(row),
            field_px(row.rf_px, row.path_rf_px),
            percent(row.share),
            percent(row.objects),
            prefixed(row.flop, "FLOP"),
            multiple(row.flop / reference_flop),
            duration(row.seconds),
            byte_size(row.peak_bytes),
        )
    return table


def _alike(row: PlannedCandidate) -> str:
    """Return a candidate in words, with the dilations of those that cannot be told apart from it."""
    candidate = Candidate.from_json(row.candidate)
    alike = [Candidate.from_json(text) for text in row.alike]
    others = [[str(path.choice.whole_dilation or path) for _, path in other] for other in alike]
    said = ", ".join("/".join(dilations if len({*dilations}) > 1 else dilations[:1]) for dilations in others)
    return f"{candidate} (alike: d={said})" if said else str(candidate)


def side_by_side(
    rows: Sequence[Measured], metric: str, headings: Mapping[str, str] | None = None, console: Console | None = None
) -> Group:
    """Return a published table with every printed number beside the measured one.

    Args:
        rows: Its rows. The numbers of parallel paths, f1, f2 ..., share a cell.
        metric: Name of what `score` measures here; empty where nothing was scored.
        headings: What its columns are called, in their order.
        console: Where it will be printed; what is too wide for that is shown as several tables, one below the other.
    """
    titles = dict(headings or {})
    titles |= {name: title for name, title in _titles(metric).items() if name not in titles}
    found = {_column(name) for row in rows for name in (*row.printed, *row.marks, *row.measured)}
    columns = [name for name in titles if name in found]
    whole = _compare(rows, columns, titles)
    if console is None or _fits(console, whole):
        return Group(whole)
    width = min(_LABEL_WIDTH, max(len(row.label) for row in rows))
    parts: list[list[str]] = [[]]
    for name in columns:
        if parts[-1] and not _fits(console, _compare(rows, [*parts[-1], name], titles, width)):
            parts.append([])
        parts[-1].append(name)
    return Group(*(_compare(rows, part, titles, width, reasons=part is parts[0]) for part in parts))


def _fits(console: Console, table: Table) -> bool:
    """Return whether a table can be printed without folding or cutting anything."""
    unbounded = console.options.update(max_width=_UNBOUNDED)
    return console.measure(table, options=unbounded).maximum <= console.width


def _titles(metric: str) -> dict[str, str]:
    return {"rf_px": "RF, px", "score": metric or "score", "f": "f", "gamma": "gamma"}


def _compare(
    rows: Sequence[Measured],
    columns: Sequence[str],
    titles: Mapping[str, str],
    label_width: int | None = None,
    reasons: bool = True,
) -> Table:
    """Return some columns of a published table, each printed beside measured where any row has that.

    Args:
        rows: Its rows.
        columns: Their names.
        titles: What they are called.
        label_width: To which the labels of the rows are folded; None: as wide as they are.
        reasons: Whether to say why rows were not measured.
    """
    printed = {_column(name) for row in rows for name in (*row.printed, *row.marks)}
    measured = {_column(name) for row in rows for name in row.measured}
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("row", overflow="fold", width=label_width)
    for name in columns:
        title = titles[name]
        if name in printed:
            table.add_column(f"{title}\nprinted", justify="right")
            title = ""
        if name in measured:
            table.add_column(f"{title}\nmeasured", justify="right", min_width=8)
    for row in rows:
        cells = []
        for name in columns:
            if name in printed:
                cells.append(f"{_by_path(row.printed, name, str)}{row.marks.get(name, '')}" or "-")
            if name in measured:
                cells.append(_by_path(row.measured, name, plain) or "-")
        table.add_row(row.label, *cells)
        if row.why and reasons:
            table.add_row(f"  {row.why}", style="yellow")
    return table


def _column(name: str) -> str:
    """Return the column that f1 and f2 share."""
    return name.rstrip("0123456789")


def _by_path(values: Mapping[str, Any], name: str, said: Callable[[Any], str]) -> str:
    return parallel(said(value) for key, value in sorted(values.items()) if _column(key) == name)
