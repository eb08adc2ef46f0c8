"""Train the outcomes of a comparison from scratch by the plain recipe: the worth of the receptive field alone.

Whatever an arm answers with is fixed, real dilations and factors included, and trained for the recipe's length; where a
peer's layer found a dilation, a plain convolution has it. Seeds of training are the same for everyone and none that any
arm trained with, so nothing that chose an outcome returns in its score. The trainings stand in a ledger of their own,
metered, outside every budget.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from os import sched_getaffinity
from pathlib import Path

import torch
from protocol import SWEEP, DataSet

from rfsearch.choices import Candidate, Choice, Dilated, Fractional, Guest
from rfsearch.data import ImageSet
from rfsearch.ledger import Assignment, Journal, Record, read_history, read_run
from rfsearch.ledger.journal import LEDGER_FILE
from rfsearch.ledger.typed_json import sound
from rfsearch.planning.plan import load_data
from rfsearch.report.view import ArmRecords, build_view
from rfsearch.space import Space
from rfsearch.training import Order, Training

NAME = "retrained"
FIRST_SEED = 1_000_000
"""Above all seeds of training that arms have: those are the arm's seed times a thousand, and on from there."""
CPU = torch.device("cpu")


def fixed(outcome: Candidate) -> Candidate:
    """Return what is trained for an outcome: a plain convolution in the place of a peer's layer."""
    return outcome.changed(lambda _, choice: _plain(choice) if isinstance(choice, Guest) else choice)


def _plain(guest: Guest) -> Choice:
    found = guest.found or float(guest.dilation)
    return Dilated(int(found)) if found.is_integer() else Fractional(found)


def seeds_of(arm_seed: int, times: int) -> range:
    """Return the seeds with which the outcome of an arm is trained."""
    first = FIRST_SEED + 1000 * arm_seed
    return range(first, first + times)


def retrain(dataset: DataSet, times: int, work: Path) -> None:
    """Train the outcome of every arm of a data set, and each dilation of the sweep, that is not trained yet."""
    first = read_run(work / dataset.folder(dataset.first))
    space = sound(first.manifest.resolved_space)
    arms = [arm for run in dataset.runs for arm in build_view(read_run(work / dataset.folder(run))).arms]
    folder = work / dataset.folder(NAME)
    folder.mkdir(parents=True, exist_ok=True)
    done = set(trained_in(folder))
    left = [pair for pair in dict.fromkeys(_wanted(arms, space, times)) if pair not in done]
    if left:
        print(f"{dataset.title}: {len(left)} trainings of outcomes", flush=True)
        _train(space, load_data(space, sound(first.manifest.data.folder), folder / "cache"), left, folder)


def trained_in(folder: Path) -> Mapping[tuple[str, int], Record]:
    """Return what was trained, by candidate and seed of training."""
    if not (folder / LEDGER_FILE).exists():
        return {}
    return {(record.candidate, record.train_seed): record for record in read_history(folder).records.values()}


def _wanted(arms: Sequence[ArmRecords], space: Space, times: int) -> Iterator[tuple[str, int]]:
    for arm in arms:
        dilations = [space.uniform(Dilated(d)) for d in space.dilations] if arm.strategy == SWEEP else []
        answer = arm.incumbent.ended if arm.incumbent else None
        for candidate in [*dilations, *([fixed(answer)] if answer else [])]:
            for seed in seeds_of(arm.seed, times):
                yield candidate.to_json(), seed


def _train(space: Space, data: ImageSet, left: Sequence[tuple[str, int]], folder: Path) -> None:
    """Train, as many at a time as there are cores, and enter each into the ledger as it ends."""
    journal, cores = Journal(folder), len(sched_getaffinity(0))
    with ProcessPoolExecutor(cores, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting = [pool.submit(_train_one, space, data, _assignment(*pair), folder) for pair in left]
        for ended in as_completed(waiting):
            record = ended.result()
            journal.finish(record)
            print(f"  {record.trial}: {record.ended}, {record.status}, val {record.val}", flush=True)


def _assignment(candidate: str, seed: int) -> Assignment:
    """Return the trial of a training; the same one whenever it is asked for, so that it goes on where it was."""
    name = f"{NAME}-{seed}-{hashlib.sha256(candidate.encode()).hexdigest()[:8]}"
    return Assignment(name, NAME, (seed - FIRST_SEED) // 1000, candidate, seed, math.inf)


def _train_one(space: Space, data: ImageSet, assignment: Assignment, folder: Path) -> Record:
    checkpoints = folder / "checkpoints" / assignment.trial
    training = Training(space, data, Order(assignment, "flop", CPU, checkpoints))
    while (record := training.advance()).status == "pruned":
        pass
    shutil.rmtree(checkpoints, ignore_errors=True)
    return record
