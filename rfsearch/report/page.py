"""The page: everything that a run directory says, in one file that needs nothing else."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from rfsearch.ledger import Record, read_run
from rfsearch.ledger.files import write_whole
from rfsearch.ledger.typed_json import known
from rfsearch.numbers import MISSING, amount, counted, duration, multiple, prefixed, score
from rfsearch.report.accuracy import QUANTITIES, accuracies, ratio
from rfsearch.report.budgets import over_and_under, room_of, unspent
from rfsearch.report.effective import FIELDS_FILE, MeasuredFields
from rfsearch.report.figures.registry import draw_figures
from rfsearch.report.front import pareto_table
from rfsearch.report.pictures import Gallery, gallery
from rfsearch.report.provenance import provenance_of, repeat_command, resume_command
from rfsearch.report.rows import (
    ArmRow,
    anytime_table,
    arm_rows,
    hidden_scores,
    trial_columns,
    trial_groups,
    trials_table,
)
from rfsearch.report.statistics import mean
from rfsearch.report.templates import fill
from rfsearch.report.verdict import verdict_of
from rfsearch.report.verdict.phrases import spread_words
from rfsearch.report.view import RunView, build_view, setting_of
from rfsearch.report.wording import listing
from rfsearch.storage import name_of, storage_of

REPORT_FILE = "report.html"
EXAMPLES = "checkpoints/{trial}/examples.npz"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for the beginning of one


def write(run_dir: Path) -> Path:
    """Write the tables and the page of a run into its directory: trials.csv, anytime.csv, pareto.csv and report.html.

    Where outcomes were trained again, confirmed.csv holds these trainings. A run on object storage is put there.

    Args:
        run_dir: The directory of a run, finished or not.

    Returns:
        Path of the page.
    """
    run = read_run(run_dir)
    write_whole(run_dir / "trials.csv", _csv(trials_table(run.records)))
    if run.confirmations:
        write_whole(run_dir / "confirmed.csv", _csv(trials_table(run.confirmations)))
    write_whole(run_dir / "anytime.csv", _csv(anytime_table(run.records, run.direction)))
    write_whole(run_dir / "pareto.csv", _csv(pareto_table(run.records, run.direction)))
    page = run_dir / REPORT_FILE
    write_whole(page, render(build_view(run)))
    if storage := storage_of(run_dir):
        storage.push_all()
    return page


def _csv(table: pd.DataFrame) -> str:
    """Return a table as CSV, in which no text is a formula to a spreadsheet."""
    words = table.select_dtypes(include=["object", "string"]).columns
    safe = {
        name: [f"'{x}" if isinstance(x, str) and x.startswith(_FORMULA) else x for x in table[name]] for name in words
    }
    return table.assign(**safe).to_csv(index=False)


def render(view: RunView) -> str:
    """Return the page's HTML. It is the same for the same view, and needs no other file."""
    figures, figure_faults = draw_figures(view)
    winner = view.recommended
    pictures = _gallery(view)
    return fill(
        "template.html",
        facts=view.facts,
        run=view.run,
        verdict=verdict_of(view),
        summary=_summary(view),
        records=view.records,
        winner=winner,
        scored=view.scored,
        figures=figures,
        figure_faults=figure_faults,
        trials=trial_groups(view),
        confirmed=_confirmed_rows(view),
        budget=_budget_rows(view),
        holds=room_of(view),
        unspent=unspent(view),
        gallery=pictures,
        effective=MeasuredFields.read(view.run.directory / FIELDS_FILE),
        winner_setting=f"Recommended: {setting_of(winner.candidate, winner)}{_path_fields(winner)}." if winner else "",
        commands=_commands(view),
        shown_split="test" if view.facts.splits.get("test", 0) or view.split == "test" else "validation",
        forecast=_forecast_rows(view),
        provenance=provenance_of(view),
        request=_request(view),
        headings=[column.heading for column in trial_columns(view)],
        hidden_scores=hidden_scores(view),
        tested=view.split == "test",
        guided=view.guides,
        sampled=view.samples,
    )


def _gallery(view: RunView) -> Gallery | None:
    """Return the example images of what is recommended, beside the hand default's where these are kept."""
    decision = view.decision
    if decision is None:
        return None
    own = _kept_examples(view, decision.recommended.records)
    default = None if decision.keeps_default else _kept_examples(view, view.defaults)
    return gallery(own, view.facts.classes, default, "hand default") if own else None


def _kept_examples(view: RunView, records: Iterable[Record]) -> Path | None:
    files = (view.run.directory / EXAMPLES.format(trial=record.trial) for record in records)
    return next((file for file in files if file.exists()), None)


def _commands(view: RunView) -> list[tuple[str, str]]:
    """Return the commands that go on from this run, and what each does."""
    run = shlex.quote(name_of(view.run.directory))
    commands = [repeat_command(known(view.run.manifest.command, ""), view.run.directory)]
    if view.run.unfinished or view.run.running:
        commands.append((resume_command(view.run), "Finish it where it stopped:"))
    commands += [
        (f"rfsearch report {run}", "Write this page and its tables again, from the ledger:"),
        ("" if view.facts.replayed else f"rfsearch export {run}", "Take the best trained network with you:"),
    ]
    return [(command, what) for command, what in commands if command]


def _summary(view: RunView) -> str:
    arms = [counted(len(view.strategies), "strategy", "strategies"), counted(len(view.seeds), "seed")]
    budget = f"a budget of {view.facts.budget_text} for each" if view.facts.budget_text else ""
    return ", ".join(part for part in (*arms, budget, counted(len(view.records), "trial")) if part)


def _path_fields(record: Record) -> str:
    """Return the receptive fields of a record's parallel paths, in words."""
    fields = listing([f"{px:,} px at {path}" for path, px in record.path_rf_px.items()])
    return f": {fields}" if fields else ""


def _confirmed_rows(view: RunView) -> list[list[str]]:
    """Return what was trained again, the best validation score first."""
    rows = []
    for contender in view.contenders:
        if again := contender.confirmed:
            scored = [score(mean([r.val or 0.0 for r in again]))]
            if view.split == "test":
                scored.append(spread_words(view.scores_of(contender)))
            first = again[0]
            level = mean(view.merits([r.val or 0.0 for r in again]))
            rows.append((level, [setting_of(first.candidate), f"{first.rf_px:,}", str(len(again)), *scored]))
    return [cells for _, cells in sorted(rows, key=lambda row: -row[0])]


def _budget_rows(view: RunView) -> list[list[str]]:
    return [_arm_cells(row, view) for row in arm_rows(view)]


def _arm_cells(row: ArmRow, view: RunView) -> list[str]:
    facts, arm, best = view.facts, row.arm, row.arm.incumbent
    unit = facts.reference_flop
    cells = [
        arm.strategy,
        str(arm.seed),
        amount(row.limit, facts.currency),
        amount(row.spent, facts.currency),
        *over_and_under(row.share),
        multiple(arm.spent.flop / unit) if unit else prefixed(arm.spent.flop, "FLOP"),
        duration(arm.spent.device_s),
        row.statuses,
        score(best.val) if best else MISSING,
    ]
    return [*cells, score(view.score(best)) if best else MISSING] if view.split == "test" else cells


def _forecast_rows(view: RunView) -> dict[str, Any]:
    """Return the rows of the forecast's table: one per quantity, and one per trial in `details`."""
    rows = [
        [
            a.title,
            str(a.trials),
            multiple(a.median),
            multiple(a.worst),
            a.worst_trial,
        ]
        for a in accuracies(view.records)
    ]
    details = []
    for record in view.records:
        if record.status == "completed" and any(ratio(q, record) is not None for q in QUANTITIES):
            cells = [record.trial]
            for q in QUANTITIES:
                cells += [q.words(q.forecast(record)), q.words(q.measured(record)), multiple(ratio(q, record))]
            details.append(cells)
    return {"rows": rows, "details": details, "titles": [q.title for q in QUANTITIES]}


def _request(view: RunView) -> str:
    """Return what was asked for, without what was left to the space."""
    request = known(view.run.manifest.request, None)
    asked = {key: value for key, value in asdict(request).items() if value not in (None, ())} if request else {}
    return json.dumps(asked, indent=1) if asked else ""
