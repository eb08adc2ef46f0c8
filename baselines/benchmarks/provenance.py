"""Record what every result carries: the command, commit, machine and versions that gave it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rfsearch.provenance import machine, versions

RESULTS = Path(__file__).resolve().parents[1] / "results"


def provenance(command: str | None = None) -> dict[str, Any]:
    """Return where a result comes from. `command` is what gave it, if not this process."""
    git = ["git", "-C", str(RESULTS.parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "command": command or shlex.join(["python", "baselines/benchmarks/" + Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": commit or "unknown",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": asdict(machine("cpu")),
        "versions": versions(),
    }


def write_sidecar(name: str, body: dict[str, Any], folder: Path = RESULTS) -> None:
    """Write the JSON beside a table."""
    (folder / f"{name}.json").write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
