"""Where a run comes from: its command, space, data, budget, machine and versions, as the page lists them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rfsearch.ledger import Run
from rfsearch.ledger.manifest import Machine
from rfsearch.ledger.typed_json import known
from rfsearch.numbers import byte_size, prefixed
from rfsearch.report.budgets import room_of
from rfsearch.report.view import RunView, setting_of
from rfsearch.space import OwnSpace
from rfsearch.storage import name_of, uri_of


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
        ("Weights", "none, trained from scratch" if view.facts.from_scratch else ""),
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


def repeat_command(command: str, directory: Path) -> tuple[str, str]:
    """Return the command that makes a run once more, and a sentence that introduces it.

    It is refused where it names a directory that holds a run. Without a name the new run gets a new directory in
    `runs`. Another name stands where that default would not do: on object storage and on a cluster, whose workers may
    share no other place, and for `reproduce`, which goes on with the run that it finds.

    Args:
        command: What started the run, as its manifest has it.
        directory: Directory of the run.

    Example:
        >>> repeat_command("rfsearch run --space helen --out runs/mine", Path("runs/mine"))
        ('rfsearch run --space helen', 'The whole run once more, into a new directory:')
    """
    introduced = "The whole run once more, into a new directory:"
    try:
        words = shlex.split(command)
    except ValueError:  # a manifest that somebody has edited
        return command, introduced
    if words[:1] != ["rfsearch"]:
        return command, "What started it. Where that names this directory as its out, name another one there:"
    kept, out = _without_out(words)
    if words[1:2] == ["reproduce"]:
        kept += ["--out", _beside(out or str(directory.parent))]
    elif out and (uri_of(out) or any(word.partition("=")[0] == "--address" for word in kept)):
        kept += ["--out", _beside(out)]
    return (command if kept == words else shlex.join(kept)), introduced


def resume_command(run: Run, confirm: int = 0) -> str:
    """Return what finishes a run that has stopped: a command, or a call where only a script has its functions.

    Args:
        run: The run.
        confirm: How many of its best outcomes are to be trained again.
    """
    space, name = known(run.manifest.resolved_space, None), name_of(run.directory)
    if isinstance(space, OwnSpace) and not space.train:
        return f"rfsearch.search(..., out={name!r}{f', confirm={confirm}' if confirm else ''})"
    return f"rfsearch resume {shlex.quote(name)}{f' --confirm {confirm}' if confirm else ''}"


def _without_out(words: Sequence[str]) -> tuple[list[str], str]:
    """Return a command line without its --out, and what that was; empty where there was none."""
    kept, out, rest = list[str](), "", iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        if option == "--out":
            out = value if equals else next(rest, "")
        else:
            kept.append(word)
    return kept, out


def _beside(out: str) -> str:
    """Return another place beside a directory or a URI."""
    place, mark, query = (uri_of(out) or out.rstrip("/")).partition("?")
    return f"{place}-again{mark}{query}"


def _machine(machine: Machine) -> str:
    """Return the machine in words, as far as it is known."""
    cores = f"{machine.cores} cores" if machine.cores else ""
    memory = f"{byte_size(machine.memory_bytes)} of memory" if machine.memory_bytes else ""
    device = f"trained on {machine.device}" if machine.device else ""
    return ", ".join(filter(None, (machine.cpu, cores, memory, device)))
