"""Train what a protocol asks for: its runs, then the outcomes of their arms from scratch. Given again, it goes on.

    python baselines/benchmarks/train.py baselines/benchmarks/headline.toml --data DIR --work DIR

DIR of --data holds the data sets by the names in the protocol; everything is written under --work.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from protocol import DataSet, Protocol, read_protocol
from retrained import retrain

from rfsearch.ledger.journal import LEDGER_FILE

PROGRAM = [sys.executable, "-c", "from rfsearch.cli import main; main()"]
# As short as trainings can be, to see whether all runs, resumes and is compared; most of what they cost is scoring.
TOY = ["--set", "recipe.steps=6", "--set", "recipe.warmup=1", "--set", "recipe.rung_images=8", "--budget", "30x"]
TOY_SEEDS = 2


def main() -> None:
    """Train what is left of a protocol."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("protocol", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder of all data sets")
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--only", default="", help="data sets whose key holds this")
    parser.add_argument("--toy", action="store_true", help="trainings of a few steps, to try everything")
    asked = parser.parse_args()
    protocol = read_protocol(asked.protocol)
    asked.work.mkdir(parents=True, exist_ok=True)
    for dataset in protocol.datasets:
        if asked.only in dataset.key:
            link_images(dataset, asked.data.resolve(), asked.work)
            for run in dataset.runs:
                train(dataset, run, protocol, asked.work, asked.toy)
            if protocol.retrainings:
                retrain(dataset, protocol.retrainings, asked.work)


def link_images(dataset: DataSet, data: Path, work: Path) -> None:
    """Put links to the images of a data set into the working folder."""
    for name, target in dataset.links.items():
        link = work / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(data / target, target_is_directory=True)


def train(dataset: DataSet, run: str, protocol: Protocol, work: Path, toy: bool) -> None:
    """Begin a run, or go on with it."""
    folder = dataset.folder(run)
    if (work / folder / LEDGER_FILE).exists():
        images = dataset.images(run)
        command = ["rfsearch", "resume", folder.as_posix(), *(["--data", images] if images else [])]
    else:
        shutil.rmtree(work / folder, ignore_errors=True)  # interrupted before anything was trained
        command = dataset.command(run, TOY_SEEDS if toy else protocol.seeds) + (TOY if toy else [])
    print(f"$ {shlex.join(command)}", flush=True)
    subprocess.run([*PROGRAM, *command[1:]], cwd=work, check=True)


if __name__ == "__main__":
    main()
