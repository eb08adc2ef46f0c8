"""Read what a comparison is to compare, as it was written down before its first run.

A protocol is a TOML file: the seeds, and for each data set the runs as command lines, so that they can be given by hand
as well. `train.py` trains what a protocol asks for, `headline.py` compares it.
"""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SWEEP = "exhaustive"


@dataclass(frozen=True)
class DataSet:
    """Hold the runs on one data set.

    Attributes:
        key: Its folder in the working folder.
        title: Its name in tables.
        scored: What a reader must know of how it is scored; empty where that is nothing.
        links: Folders of its images in the working folder, and what they are links to in the folder of all data sets.
        runs: Options of `rfsearch run` of each run, by its name. The first one has the sweep that all others are
            compared with.
    """

    key: str
    title: str
    scored: str
    links: Mapping[str, str]
    runs: Mapping[str, str]

    @property
    def first(self) -> str:
        """Name of the run with the sweep."""
        return next(iter(self.runs))

    def folder(self, run: str) -> Path:
        """Return the directory of a run, or of the retrainings, within the working folder."""
        return Path(self.key) / run.replace(" ", "-")

    def command(self, run: str, seeds: int) -> list[str]:
        """Return the command of a run, to be given in the working folder."""
        options = [*shlex.split(self.runs[run]), "--seeds", str(seeds)]
        return ["rfsearch", "run", *options, "--out", self.folder(run).as_posix()]

    def images(self, run: str) -> str | None:
        """Return the folder of a run's images, in the working folder; None where they are drawn."""
        options = shlex.split(self.runs[run])
        return options[options.index("--data") + 1] if "--data" in options else None

    def label(self, run: str, strategy: str) -> str:
        """Return what tables call a strategy of a run."""
        return strategy if run == self.first else f"{strategy}, {run}"


@dataclass(frozen=True)
class Protocol:
    """Hold a comparison.

    Attributes:
        name: Of its table under results/.
        seeds: Of every strategy.
        retrainings: How often the outcome of each arm is trained from scratch; 0 for never.
        datasets: The data sets.

    Example:
        >>> protocol = read_protocol(Path("baselines/benchmarks/headline.toml"))
        >>> " ".join(protocol.datasets[0].command("search", protocol.seeds))
    """

    name: str
    seeds: int
    retrainings: int
    datasets: tuple[DataSet, ...]


def read_protocol(path: Path) -> Protocol:
    """Read a protocol file."""
    body = tomllib.loads(path.read_text(encoding="utf-8"))
    datasets = tuple(
        DataSet(key, found["title"], found.get("scored", ""), found.get("links", {}), found["runs"])
        for key, found in body["datasets"].items()
    )
    return Protocol(path.stem, body["seeds"], body["retrainings"], datasets)
