"""Start a run in a directory of its own, and open it again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from rfsearch import plugins
from rfsearch.data import ImageSet
from rfsearch.errors import RequestError, RunDirectoryError
from rfsearch.identity import require_same
from rfsearch.ledger.journal import LEDGER_FILE, read_history
from rfsearch.ledger.lock import hold
from rfsearch.ledger.manifest import (
    MANIFEST_FILE,
    ArmName,
    BudgetFacts,
    Manifest,
    read_manifest,
    write_manifest,
)
from rfsearch.ledger.run_directory import create
from rfsearch.ledger.schema import SCHEMA
from rfsearch.ledger.typed_json import sound
from rfsearch.planning.entrants import describe_entrants, find_entrants, known_candidates
from rfsearch.planning.plan import Plan, forecast_rows, load_data, make_plan, network_now, whole_address
from rfsearch.planning.request import CheckedRequest
from rfsearch.planning.search_plan import SearchPlan
from rfsearch.provenance import machine, versions
from rfsearch.storage import uri_of
from rfsearch.tasks.from_space import task_of
from rfsearch.trust import is_trusted, note_own


@contextmanager
def new_directory(run_dir: Path) -> Iterator[Path]:
    """Make a fresh run directory and hold it for this process.

    It is removed if the request fails before anything worth keeping is in it: a manifest, or, where only a start of
    workers shows that the request is wrong, a trial.
    """
    create(run_dir)
    with hold(run_dir):
        create(run_dir)  # another process may have been faster
        try:
            yield run_dir
        except BaseException as error:
            wrong = type(error) is RequestError and not _trials_in(run_dir)
            if wrong or not (run_dir / MANIFEST_FILE).exists():
                shutil.rmtree(run_dir, ignore_errors=True)
            raise


def _trials_in(run_dir: Path) -> bool:
    return (run_dir / LEDGER_FILE).exists() and bool(read_history(run_dir).assignments)


def start_run(the_plan: SearchPlan, run_dir: Path, command: str, workers: int, device: str) -> None:
    """Write a run's manifest: everything needed to repeat it.

    Args:
        the_plan: The plan of the run.
        run_dir: Its directory.
        command: The command that started it.
        workers: Number of trials at a time.
        device: What trials train on: cpu or cuda.
    """
    space, data, network = the_plan.facts()
    manifest = Manifest(
        schema=SCHEMA,
        command=command,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        request=the_plan.request,
        resolved_space=the_plan.space,
        space=space,
        network=network,
        arms=tuple(ArmName(entrant.label, seed) for entrant, seed in the_plan.arms),
        budget=BudgetFacts(
            the_plan.budget.text,
            the_plan.budget.currency,
            the_plan.budget.limit,
            the_plan.reference_flop,
            the_plan.full_training,
        ),
        data=data,
        forecast=tuple(forecast_rows(the_plan)),
        flop_per_s=the_plan.forecaster.flop_per_s,
        notices=the_plan.notices,
        versions=versions(),
        machine=machine(device),
        workers=workers,
    )
    write_manifest(run_dir, manifest)
    note_own(run_dir)


def reopen_run(run_dir: Path, device: torch.device) -> SearchPlan:
    """Make the plan of a run that was started before, from its directory.

    Raises:
        RunDirectoryError: The manifest is damaged, or the data, the network or the training is not what it was.
    """
    manifest = read_manifest(run_dir)
    reopen: Callable[[Path, Manifest, torch.device], SearchPlan]
    reopen = plugins.named(sound(manifest.resolved_space).reopener, "reopener")
    the_plan: SearchPlan = reopen(run_dir, manifest, device)
    return the_plan


def note_data_at(run_dir: Path, folder: str) -> None:
    """Note where the images of a run are now.

    Raises:
        RequestError: It was not made with a folder of images.
        RunDirectoryError: They are not the images that it was begun with.
    """
    manifest = read_manifest(run_dir)
    if sound(manifest.data.folder) is None:
        raise RequestError(f"{run_dir} was begun without a folder of images: leave out --data.")
    _same_data(run_dir, manifest, folder)
    known = is_trusted(run_dir)
    write_manifest(run_dir, replace(manifest, data=replace(manifest.data, folder=whole_address(folder))))
    if known:
        note_own(run_dir)


def _same_data(run_dir: Path, manifest: Manifest, folder: str | None) -> ImageSet:
    """Read the images of a run, which must be those that it was begun with."""
    if folder and uri_of(folder) is None and not Path(folder).exists():
        raise RunDirectoryError(
            f"{run_dir}: its images were in {folder}, which is not there. Name the folder that they are in now "
            "with --data."
        )
    data = load_data(manifest.image_space, folder, run_dir / "cache")
    if data.fingerprint() != sound(manifest.data.fingerprint):
        raise RunDirectoryError(
            f"{run_dir}: the images of {folder or data.name} are not those that this run was begun with. Restore them, "
            "name the folder that they are in now with --data, or start a new run."
        )
    return data


def reopen_images(run_dir: Path, manifest: Manifest, device: torch.device) -> Plan:
    """Make the plan of a run of built-in trainings; see `reopen_run`."""
    request, space = sound(manifest.request), manifest.image_space
    folder, rate = sound(manifest.data.folder), sound(manifest.flop_per_s)
    # The budget is what it was, whatever a newer version would count.
    budget, reference_flop = manifest.budget.of_an_arm, sound(manifest.budget.reference_flop)
    data = _same_data(run_dir, manifest, folder)
    checked = CheckedRequest(request, space, find_entrants(request, space))
    descriptions = describe_entrants(checked.entrants, space)
    now = network_now(space, task_of(space, data), known_candidates(descriptions, space))
    require_same(sound(manifest.network), now, space.backbone, run_dir)
    the_plan = make_plan(checked, data, device, rate, descriptions)
    if the_plan.space.weights != space.weights:
        raise RunDirectoryError(
            f"{run_dir}: this run started from trained weights ({space.weights}) that are out of reach now. "
            "Bring them back to resume."
        )
    return replace(the_plan, budget=budget, reference_flop=reference_flop)
