"""Start a run in a directory of its own, and open it again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from rfsearch.choices import Candidate
from rfsearch.data import ImageSet
from rfsearch.errors import RunDirectoryError
from rfsearch.identity import code_of, network_of, require_same
from rfsearch.ledger.lock import hold
from rfsearch.ledger.manifest import (
    MANIFEST_FILE,
    ArmName,
    BudgetFacts,
    DataFacts,
    Manifest,
    Network,
    SpaceFacts,
    read_manifest,
    write_manifest,
)
from rfsearch.ledger.run_directory import create
from rfsearch.ledger.schema import SCHEMA
from rfsearch.ledger.typed_json import sound
from rfsearch.networks import fresh_backbone
from rfsearch.planning.entrants import describe_entrants, find_entrants, known_candidates
from rfsearch.planning.plan import Plan, forecast_rows, load_data, make_plan
from rfsearch.planning.request import CheckedRequest
from rfsearch.provenance import machine, versions
from rfsearch.space import Space
from rfsearch.tasks.base import Task
from rfsearch.tasks.from_space import task_of


@contextmanager
def new_directory(run_dir: Path) -> Iterator[Path]:
    """Make a fresh run directory and hold it for this process.

    It is removed if the request fails before anything worth keeping is in it.
    """
    create(run_dir)
    with hold(run_dir):
        create(run_dir)  # another process may have been faster
        try:
            yield run_dir
        except BaseException:
            if not (run_dir / MANIFEST_FILE).exists():
                shutil.rmtree(run_dir, ignore_errors=True)
            raise


def start_run(the_plan: Plan, run_dir: Path, command: str, workers: int, device: str) -> None:
    """Write a run's manifest: everything needed to repeat it.

    Args:
        the_plan: The plan of the run.
        run_dir: Its directory.
        command: The command that started it.
        workers: Number of trials at a time.
        device: What trials train on: cpu or cuda.
    """
    space, task, data = the_plan.space, the_plan.task, the_plan.data
    manifest = Manifest(
        schema=SCHEMA,
        command=command,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        request=the_plan.request,
        resolved_space=space,
        space=_space_facts(space, task, data),
        network=_network_now(space, task, the_plan.candidates),
        arms=tuple(ArmName(entrant.label, seed) for entrant, seed in the_plan.arms),
        budget=BudgetFacts(
            the_plan.budget.text,
            the_plan.budget.currency,
            the_plan.budget.limit,
            the_plan.reference_flop,
            the_plan.full_training,
        ),
        data=_data_facts(data, the_plan.request.data),
        forecast=tuple(forecast_rows(the_plan)),
        flop_per_s=the_plan.forecaster.flop_per_s,
        notices=the_plan.notices,
        versions=versions(),
        machine=machine(device),
        workers=workers,
    )
    write_manifest(run_dir, manifest)


def _space_facts(space: Space, task: Task[object], data: ImageSet) -> SpaceFacts:
    return SpaceFacts(
        name=space.name,
        title=space.title,
        cite=space.cite,
        preset=space.preset,
        metric=space.task.keys.metric,
        backbone=space.backbone,
        primary=task.primary,
        direction=task.direction,
        sites=space.sites,
        dilations=space.dilations,
        f_bounds=space.f_bounds,
        form=space.form,
        gamma_bounds=space.sampling.bounds,
        reference=space.default_candidate.to_json(),
        image_size=data.image_size,
        in_channels=task.in_channels,
        out_channels=task.out_channels,
    )


def _data_facts(data: ImageSet, folder: str | None) -> DataFacts:
    return DataFacts(
        name=data.name,
        summary=data.summary(),
        rendered=data.rendered,
        notice=data.notice,
        classes=tuple(data.classes),
        fingerprint=data.fingerprint(),
        folder=str(Path(folder).resolve()) if folder else None,
        splits={name: len(split) for name, split in data.splits.items()},
    )


def reopen_run(run_dir: Path, device: torch.device) -> Plan:
    """Make the plan of a run that was started before, from its directory.

    Raises:
        RunDirectoryError: The manifest is damaged, or the data or the network is not what it was.
    """
    manifest = read_manifest(run_dir)
    request, space = sound(manifest.request), sound(manifest.resolved_space)
    folder, fingerprint = sound(manifest.data.folder), sound(manifest.data.fingerprint)
    rate = sound(manifest.flop_per_s)
    # The budget is what it was, whatever a newer version would count.
    budget, reference_flop = manifest.budget.of_an_arm, sound(manifest.budget.reference_flop)
    data = load_data(space, folder, run_dir / "cache")
    if data.fingerprint() != fingerprint:
        raise RunDirectoryError(
            f"{run_dir}: the data has changed since this run started ({folder or data.name}). "
            "Restore it to resume, or start a new run."
        )
    checked = CheckedRequest(request, space, find_entrants(request, space))
    descriptions = describe_entrants(checked.entrants, space)
    now = _network_now(space, task_of(space, data), known_candidates(descriptions, space))
    require_same(sound(manifest.network), now, space.backbone, run_dir)
    the_plan = make_plan(checked, data, device, rate, descriptions)
    if the_plan.space.weights != space.weights:
        raise RunDirectoryError(
            f"{run_dir}: this run started from trained weights ({space.weights}) that are out of reach now. "
            "Bring them back to resume."
        )
    return replace(the_plan, budget=budget, reference_flop=reference_flop)


def _network_now(space: Space, task: Task[object], candidates: Sequence[Candidate]) -> Network:
    """Describe the network of a run and the user's code that its scores depend on, as their files make them now."""
    paths = (path for candidate in candidates for _, path in candidate)
    layers = {spec: None for path in paths for spec in path.choice.specs}
    return network_of(space.backbone, fresh_backbone(space, task), layers, code_of(space))
