"""The page: everything the run directory tells, put into one file that needs nothing else."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from plotly.offline import get_plotlyjs

from rfsearch.ledger import Record, read_run
from rfsearch.ledger.files import write_whole
from rfsearch.ledger.manifest import Machine
from rfsearch.ledger.typed_json import known
from rfsearch.printable import printable
from rfsearch.report import figures
from rfsearch.report.accuracy import QUANTITIES, accuracies, ratio
from rfsearch.report.budgets import holds, unspent
from rfsearch.report.digest import Digest, digest, setting_of
from rfsearch.report.front import pareto_table
from rfsearch.report.latency import how_measured
from rfsearch.report.pictures import gallery
from rfsearch.report.rows import ArmRow, anytime_table, arm_rows, trial_columns, trial_groups, trials_table
from rfsearch.report.verdict import verdict_of
from rfsearch.report.wording import (
    MISSING,
    amount,
    byte_size,
    counted,
    duration,
    listing,
    multiple,
    percent,
    prefixed,
    score,
)

REPORT_FILE = "report.html"
EXAMPLES = "checkpoints/{trial}/examples.npz"
_UNIT = re.compile(r"(\d) (px|s|ms|min|h|%|[kMGTPE]?FLOP|[KMGT]iB)\b")


def write(run_dir: Path) -> Path:
    """Write trials.csv, anytime.csv, pareto.csv and report.html into a run directory; returns the page's path."""
    run = read_run(run_dir)
    write_whole(run_dir / "trials.csv", trials_table(run.records).to_csv(index=False))
    write_whole(run_dir / "anytime.csv", anytime_table(run.records).to_csv(index=False))
    write_whole(run_dir / "pareto.csv", pareto_table(run.records).to_csv(index=False))
    page = run_dir / REPORT_FILE
    write_whole(page, render(digest(run)))
    return page


def render(told: Digest) -> str:
    """The page's HTML."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, finalize=_finalized
    )
    environment.filters["unbroken"] = _unbroken
    template = environment.from_string((files(__package__) / "template.html").read_text(encoding="utf-8"))
    drawn = [
        *(figures.anytime(told), figures.pareto(told), figures.against_rf(told)),
        *(figures.learned(told, "f"), figures.learned(told, "γ")),
    ]
    figures_by_name = {figure.name: figure for figure in drawn if figure is not None}
    winner = told.winner
    pictures = None
    if winner is not None:
        pictures = gallery(told.run.directory / EXAMPLES.format(trial=winner.trial), told.facts.classes)
    return template.render(
        facts=told.facts,
        run=told.run,
        verdict=verdict_of(told),
        summary=_summary(told),
        records=told.records,
        winner=winner,
        scored=told.scored,
        figures=figures_by_name,
        payload=_in_script([figure.to_json() for figure in figures_by_name.values()]),
        plotly=get_plotlyjs() if figures_by_name else "",
        trials=trial_groups(told),
        budget=_budget(told),
        holds=_holds(told),
        unspent=unspent(told),
        gallery=pictures,
        winner_setting=f"The winner: {setting_of(winner.candidate, winner)}{_fields(winner)}." if winner else "",
        shown_split="test" if told.facts.splits.get("test", 0) or told.split == "test" else "validation",
        forecast=_forecast(told),
        provenance=_provenance(told),
        latency=how_measured(told),
        request=_request(told),
        headings=[column.heading for column in trial_columns(told)],
        tested=told.split == "test",
        guided=told.guides,
        sampled=told.samples,
    )


def _unbroken(sentence: str) -> str:
    """A sentence whose numbers are not torn from their units at the end of a line."""
    return _UNIT.sub("\\1\u00a0\\2", sentence)


def _finalized(value: Any) -> Any:
    """What the template shows of a value: text without control characters. What is markup already stays."""
    return printable(value) if type(value) is str else value


def _in_script(figure: Any) -> str:
    """JSON that may stand inside a script element, whatever its strings hold."""
    text = json.dumps(figure, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _summary(told: Digest) -> str:
    arms = [counted(len(told.strategies), "strategy", "strategies"), counted(len(told.seeds), "seed")]
    budget = f"a budget of {told.facts.budget_text} for each" if told.facts.budget_text else ""
    return ", ".join(part for part in (*arms, budget, counted(len(told.records), "trial")) if part)


def _fields(record: Record) -> str:
    """The receptive fields of a record's parallel paths."""
    told = listing([f"{px:,} px at {path}" for path, px in record.path_rf_px.items()])
    return f": {told}" if told else ""


def _holds(told: Digest) -> str:
    """What an arm's budget has room for; empty where a run does not say what a training costs."""
    facts, one = told.facts, told.facts.full_training
    if not (facts.limit and facts.reference_flop and one.get(facts.currency) and one.get("flop")):
        return ""
    return holds(facts.budget_text, facts.limit / one[facts.currency], one["flop"] / facts.reference_flop)


def _budget(told: Digest) -> list[list[str]]:
    return [_arm(row, told) for row in arm_rows(told)]


def _arm(row: ArmRow, told: Digest) -> list[str]:
    facts, arm, best = told.facts, row.arm, row.arm.incumbent
    over = unspent = MISSING
    if row.share is not None:
        over = percent(row.share - 1) if row.share > 1 else "none"
        unspent = percent(1 - row.share) if row.share < 1 else "none"
    unit = facts.reference_flop
    cells = [
        arm.strategy,
        str(arm.seed),
        amount(row.limit, facts.currency),
        amount(row.spent, facts.currency),
        over,
        unspent,
        multiple(arm.spent.flop / unit) if unit else prefixed(arm.spent.flop, "FLOP"),
        duration(arm.spent.device_s),
        row.statuses,
        score(best.val) if best else MISSING,
    ]
    return [*cells, score(told.score(best)) if best else MISSING] if told.split == "test" else cells


def _forecast(told: Digest) -> dict[str, Any]:
    """Per quantity, and per trial."""
    rows = [
        [
            a.title,
            str(a.trials),
            multiple(a.median),
            multiple(a.worst),
            a.worst_trial,
        ]
        for a in accuracies(told.records)
    ]
    details = []
    for record in told.records:
        if record.status == "completed" and any(ratio(q, record) is not None for q in QUANTITIES):
            cells = [record.trial]
            for q in QUANTITIES:
                cells += [q.words(q.forecast(record)), q.words(q.measured(record)), multiple(ratio(q, record))]
            details.append(cells)
    return {"rows": rows, "details": details, "titles": [q.title for q in QUANTITIES]}


def _request(told: Digest) -> str:
    """Return what was asked for, without what was left to the space."""
    request = known(told.run.manifest.request, None)
    asked = {key: value for key, value in asdict(request).items() if value not in (None, ())} if request else {}
    return json.dumps(asked, indent=1) if asked else ""


def _provenance(told: Digest) -> list[tuple[str, str]]:
    manifest, facts = told.run.manifest, told.facts
    space, data, machine = manifest.space, manifest.data, known(manifest.machine, None)
    preset = (known(space.name, ""), known(space.preset, ""))
    metrics = dict.fromkeys((known(space.metric, ""), facts.metric))
    entries: list[tuple[str, object]] = [
        ("Command", known(manifest.command, "")),
        ("Started", known(manifest.started, "")),
        ("Space", " / ".join(filter(None, preset))),
        ("Cited", known(space.cite, "")),
        ("Network", known(space.backbone, "")),
        ("Sites searched", ", ".join(facts.sites)),
        ("Dilations searched", ", ".join(map(str, facts.dilations))),
        ("Hand default", setting_of(facts.reference) if facts.reference else ""),
        ("Image size", " × ".join(map(str, size)) + " px (H × W)" if (size := known(space.image_size, ())) else ""),
        ("Metric", ", ".join(filter(None, metrics))),
        ("Data", known(data.summary, "") or facts.data),
        ("Splits", ", ".join(f"{name} {count:,}" for name, count in facts.splits.items())),
        ("Data fingerprint", known(data.fingerprint, "")),
        ("Seeds", ", ".join(map(str, told.seeds))),
        ("Budget of each arm", facts.budget_text),
        ("What it holds", _holds(told)),
        (
            "One reference training, without evaluations (1×)",
            prefixed(facts.reference_flop, "FLOP") if facts.reference_flop else "",
        ),
        ("Trials at a time", known(manifest.workers, "")),
        ("Machine", _machine(machine) if machine else ""),
        ("Versions", ", ".join(f"{name} {version}" for name, version in known(manifest.versions, {}).items())),
    ]
    return [(name, str(value)) for name, value in entries if value != ""]


def _machine(machine: Machine) -> str:
    cores = f"{machine.cores} cores" if machine.cores else ""
    memory = f"{byte_size(machine.memory_bytes)} of memory" if machine.memory_bytes else ""
    device = f"trained on {machine.device}" if machine.device else ""
    return ", ".join(filter(None, (machine.cpu, cores, memory, device)))
