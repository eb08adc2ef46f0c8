"""Where a run comes from: its command, space, data, budget, machine and versions, as the page lists them."""

from __future__ import annotations

from rfsearch.ledger.manifest import Machine
from rfsearch.ledger.typed_json import known
from rfsearch.numbers import byte_size, prefixed
from rfsearch.report.budgets import room_of
from rfsearch.report.view import RunView, setting_of


def provenance_of(view: RunView) -> list[tuple[str, str]]:
    """Return where a run comes from: name and text of each entry that its manifest has something for."""
    manifest, facts = view.run.manifest, view.facts
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
        ("Seeds", ", ".join(map(str, view.seeds))),
        ("Budget of each arm", facts.budget_text),
        ("What it holds", room_of(view)),
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
    """Return the machine in words, as far as it is known."""
    cores = f"{machine.cores} cores" if machine.cores else ""
    memory = f"{byte_size(machine.memory_bytes)} of memory" if machine.memory_bytes else ""
    device = f"trained on {machine.device}" if machine.device else ""
    return ", ".join(filter(None, (machine.cpu, cores, memory, device)))
