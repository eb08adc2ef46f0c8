"""Start a run in a directory of its own, and open it again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from rfsearch.data import ImageSet
from rfsearch.errors import RunDirectoryError
from rfsearch.identity import network_of, recorded, require_same
from rfsearch.ledger import Budget
from rfsearch.ledger.journal import SCHEMA
from rfsearch.ledger.lock import hold
from rfsearch.ledger.manifest import HeldData, Network, held
from rfsearch.ledger.run_directory import MANIFEST_FILE, create, read_manifest, write_manifest
from rfsearch.networks import fresh_backbone
from rfsearch.planning.checking import CheckedRequest
from rfsearch.planning.entrants import describe_entrants, find_entrants, known_candidates
from rfsearch.planning.plan import Plan, forecast_rows, load_data, make_plan
from rfsearch.planning.request import Request
from rfsearch.provenance import machine, versions
from rfsearch.space import Candidate, Space


@contextmanager
def new_directory(run_dir: Path) -> Iterator[Path]:
    """Make a fresh run directory and hold it for this process.

    It is taken away again if the request fails before anything worth keeping is in it.
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
    """Write a run's manifest: everything needed to repeat it."""
    space, data = the_plan.space, the_plan.data
    manifest = {
        "schema": SCHEMA,
        "command": command,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "request": asdict(the_plan.request),
        "resolved_space": space.model_dump(mode="json"),
        "space": {
            **space.model_dump(mode="json", include={"name", "title", "cite", "preset", "metric", "backbone"}),
            "primary": the_plan.primary,
            "sites": list(space.sites),
            "dilations": list(space.dilations),
            "f_bounds": list(space.f_bounds),
            "form": space.form,
            "gamma_bounds": list(space.sampling.bounds),
            "reference": space.default_candidate.to_json(),
            "image_size": list(data.image_size),
        },
        "network": asdict(_network_now(space, data, the_plan.candidates)),
        "arms": [{"strategy": entrant.label, "seed": seed} for entrant, seed in the_plan.arms],
        "budget": {
            **asdict(the_plan.budget),
            "reference_flop": the_plan.reference_flop,
            "full_training": asdict(the_plan.full_training),
        },
        "data": {
            "name": data.name,
            "summary": data.summary(),
            "rendered": data.rendered,
            "notice": data.notice,
            "classes": list(data.classes),
            "fingerprint": data.fingerprint(),
            "folder": str(Path(the_plan.request.data).resolve()) if the_plan.request.data else None,
            "splits": {name: len(split) for name, split in data.splits.items()},
        },
        "forecast": forecast_rows(the_plan),
        "flop_per_s": the_plan.forecaster.flop_per_s,
        "notices": the_plan.notices,
        "versions": versions(),
        "machine": machine(device),
        "workers": workers,
    }
    write_manifest(run_dir, manifest)


def reopen_run(run_dir: Path, device: torch.device) -> Plan:
    """Make the plan of a run that was started before, from its directory.

    Raises:
        RunDirectoryError: The manifest is damaged, or the data or the network is not what it was.
    """
    manifest, file = read_manifest(run_dir), run_dir / MANIFEST_FILE
    request = request_of(run_dir)
    space = held(manifest, file, Space, "resolved_space")
    then = held(manifest, file, HeldData, "data")
    rate = held(manifest, file, float, "flop_per_s")
    # The budget is what it was, whatever a newer version would count.
    budget = held(manifest, file, Budget, "budget")
    reference_flop = held(manifest, file, float, "budget", "reference_flop")
    data = load_data(space, then.folder, run_dir / "cache")
    if data.fingerprint() != then.fingerprint:
        raise RunDirectoryError(
            f"{run_dir}: the data has changed since this run started ({then.folder or data.name}). "
            "Restore it to resume, or start a new run."
        )
    checked = CheckedRequest(request, space, find_entrants(request, space))
    descriptions = describe_entrants(checked.entrants, space)
    now = _network_now(space, data, known_candidates(descriptions, space))
    require_same(recorded(manifest, run_dir), now, space.backbone, run_dir)
    again = make_plan(checked, data, device, rate, descriptions)
    if again.space.weights != space.weights:
        raise RunDirectoryError(
            f"{run_dir}: this run started from trained weights ({space.weights}) that are out of reach now. "
            "Bring them back to resume."
        )
    return replace(again, budget=budget, reference_flop=reference_flop)


def _network_now(space: Space, data: ImageSet, candidates: Sequence[Candidate]) -> Network:
    """Describe the network of a run, and the layers that its candidates put into it, as their files make them now."""
    layers = {choice.layer: None for candidate in candidates for _, choice in candidate if choice.layer}
    return network_of(space.backbone, fresh_backbone(space, data.num_classes), layers)


def request_of(run_dir: Path) -> Request:
    """Read back what a run was asked for."""
    return held(read_manifest(run_dir), run_dir / MANIFEST_FILE, Request, "request")
