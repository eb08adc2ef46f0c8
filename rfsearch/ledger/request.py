"""What a user asks of `run` and `plan`, as a run records it."""

from __future__ import annotations

from dataclasses import dataclass

from rfsearch.direction import Direction

EMBEDDED = ""
"""What is replayed where no run is named: the trainings that are shipped with the space."""


@dataclass(frozen=True)
class Request:
    """Ask for a search. None, or nothing, leaves what the space says.

    Attributes:
        space: Name of a space, or a space file.
        preset: Size of the space, its form, or both.
        changes: KEY=VALUE each, in place of what the space file says; see `rfsearch.space.changes`.
        data: Folder of images.
        backbone: SPEC of the network.
        sites: Module paths or patterns.
        strategies: Names or SPECs, package.module:Class or path/to/file.py:Class, each with @ and a form of the space
            where it is not to search the run's own form, such as inflation@bi; none: those that suit the form.
        paths: Number of parallel paths of a site.
        candidates: JSON of candidates to train once each, with no strategy at all.
        budget: Of each arm, with its unit.
        seeds: Number of arms of each strategy.
        address: Ray cluster to join.
        cpus_per_trial: CPU cores of a trial.
        gpus_per_trial: GPUs of a trial, or a share of one.
        memory_per_trial: Memory that is set aside for a trial, with its unit, such as 8g. None: none is.
        train: SPEC of a function that trains a trial. None: trainings are built in.
        dilations: What a site may get, where a function trains.
        input_shape: 1 x C x its axes, of what the network is shown of one image, likewise.
        direction: Whether a higher or a lower score is the better one, likewise.
        score: Its name, likewise.
        track: Observers that follow the run: names or SPECs.
        trial_timeout: How long a trial may go without a validation, with its unit. None: as its forecast says.
        processes_per_trial: How many processes train a trial together, where a function trains.
        confirm: How many of the best outcomes are trained again, with seeds that chose nothing.
        objectives: What the search goes by: val, and costs that are to be low; none: val alone.
        replay: Run whose trainings are looked up instead of trained; EMBEDDED for those shipped with the space.

    Example:
        Request("helen", strategies=("exhaustive", "inflation@bi"), budget="7x", seeds=3)
    """

    space: str
    preset: str | None = None
    data: str | None = None
    backbone: str | None = None
    sites: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ()
    paths: int | None = None
    candidates: tuple[str, ...] = ()
    budget: str | None = None
    seeds: int = 1
    address: str | None = None
    cpus_per_trial: float | None = None
    gpus_per_trial: float | None = None
    memory_per_trial: str | None = None
    changes: tuple[str, ...] = ()
    train: str | None = None
    dilations: tuple[int, ...] = ()
    input_shape: tuple[int, ...] = ()
    direction: Direction | None = None
    score: str | None = None
    track: tuple[str, ...] = ()
    trial_timeout: str | None = None
    processes_per_trial: int = 1
    confirm: int = 0
    objectives: tuple[str, ...] = ()
    replay: str | None = None
