"""Make the trainings that `--replay` looks up in, or keep those of a run.

    python baselines/benchmarks/replay_table.py NAME --space helen --seeds 5 --f 0.71,1.41 --work DIR
    python baselines/benchmarks/replay_table.py NAME --run RUN [--run RUN ...]

The first trains, under each seed, everything that strategies know beforehand that they may try, and every dilation of
the space behind each fixed f. The second keeps runs that are there, of one space and its data, such as those of several
forms. What is kept, in baselines/replay/NAME, is a run directory of manifest and ledger, without paths of the machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from provenance import provenance

from rfsearch.choices import Inflated
from rfsearch.conduct import begin_run, device_for
from rfsearch.ledger import Journal, Record, Request, Run, read_run
from rfsearch.ledger.manifest import write_manifest
from rfsearch.ledger.typed_json import sound
from rfsearch.planning.directory import new_directory
from rfsearch.planning.entrants import describe_entrants, known_candidates
from rfsearch.planning.request import check_request
from rfsearch.printing import progress_console

TABLES = Path(__file__).resolve().parents[1] / "replay"
STRATEGIES = "exhaustive,inflation,fractional"
_TRACE_POINTS = 25


def main() -> None:
    """Train, unless there is a run, and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the folder in baselines/replay")
    parser.add_argument("--run", type=Path, action="append", help="a run that has been made, or a table (repeat)")
    parser.add_argument("--space", default="helen")
    parser.add_argument("--data")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--f", default="", help="fixed inflation factors, comma-separated")
    parser.add_argument("--strategies", default=STRATEGIES, help="whose candidates, each may name a form")
    parser.add_argument("--work", type=Path, default=Path())
    asked = parser.parse_args()
    runs = asked.run or [asked.work / asked.name]
    if asked.run is None:
        train(asked, runs[0])
    keep([read_run(run) for run in runs], TABLES / asked.name)


def train(asked: argparse.Namespace, run_dir: Path) -> None:
    """Train what a table of a space holds."""
    request = Request(asked.space, data=asked.data, strategies=tuple(asked.strategies.split(",")), seeds=asked.seeds)
    checked = check_request(request)
    space, factors = checked.space, [float(f) for f in asked.f.split(",") if f]
    grid = [space.uniform(Inflated(dilation, f)) for f in factors for dilation in space.dilations]
    candidates = [*known_candidates(describe_entrants(checked.entrants, space), space), *grid]
    listed = replace(request, strategies=(), candidates=tuple(c.to_json() for c in candidates), budget="1000x")
    with new_directory(run_dir):
        begin_run(progress_console(False), check_request(listed), run_dir, device_for(listed))


def keep(runs: Sequence[Run], folder: Path) -> None:
    """Write manifest and ledger of runs without what only their machine knows."""
    given, manifest = provenance(), runs[0].manifest
    space = manifest.image_space.with_(source=f"{manifest.image_space.name}.toml")
    data, request = replace(manifest.data, folder=None), replace(sound(manifest.request), data=None)
    kept = replace(manifest, command=given["command"], resolved_space=space, data=data, request=request)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_manifest(folder, kept)
    journal, names = Journal(folder), itertools.count()
    for record in (record for run in runs for record in run.records):
        if record.status == "completed" and not record.heir_of:
            trial = record.trial if len(runs) == 1 else f"{record.strategy}-{record.seed}-{next(names):03d}"
            journal.finish(replace(record, trial=trial, trace=_thinned(record)))
    (folder / "provenance.json").write_text(json.dumps(given, indent=2) + "\n", encoding="utf-8")


def _thinned(record: Record) -> tuple[tuple[int, str, float], ...]:
    """Return every n-th point of each path's trace."""
    paths = dict.fromkeys(path for _, path, _ in record.trace)
    each = [[point for point in record.trace if point[1] == path] for path in paths]
    return tuple(point for points in each for point in points[:: max(1, len(points) // _TRACE_POINTS)])


if __name__ == "__main__":
    main()
