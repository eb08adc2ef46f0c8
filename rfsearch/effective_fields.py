"""Measure the effective receptive fields that the report shows, when nothing of a run is training any more.

They are those of what is recommended and of the hand default, each with fresh weights and with trained ones, on the
example images of the report.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from rfsearch import plugins
from rfsearch.choices import Candidate
from rfsearch.data.batches import normalised_images
from rfsearch.ledger import Record, read_run
from rfsearch.ledger.files import whole_file
from rfsearch.networks import checkpoint_file, load_trained
from rfsearch.planning.plan import Plan
from rfsearch.planning.search_plan import SearchPlan
from rfsearch.receptive.effective import EffectiveField, effective_receptive_field
from rfsearch.report.effective import FIELDS_FILE, Looked, MeasuredFields
from rfsearch.report.view import build_view
from rfsearch.tasks.pictures import shown
from rfsearch.training.network import build_network
from rfsearch.training.random_states import seed_all
from rfsearch.training.training import examples_of

_IMAGES = 4


def measure_fields(the_plan: SearchPlan, run_dir: Path, check: Callable[[], None]) -> list[str]:
    """Measure the fields of the networks that the report shows, unless that has been done, and keep them.

    Trainings of a user's own have no images that are known here: of these nothing is measured.

    Args:
        the_plan: The plan of the run.
        run_dir: Its directory; every trial has finished.
        check: Called between networks. What it raises ends the measurement.

    Returns:
        One sentence for each network that was left out, with its reason.
    """
    shown_of = _shown(run_dir)
    if not isinstance(the_plan, Plan) or not shown_of:
        return []
    before = MeasuredFields.read(run_dir / FIELDS_FILE)
    if before and [looked.trial for looked in before.networks] == [record.trial for _, record in shown_of]:
        return []
    examples = examples_of(the_plan.data).some(_IMAGES)
    inputs, networks, faults = normalised_images(examples), [], []
    for role, record in shown_of:
        check()
        try:
            networks.append(_looked(the_plan, run_dir, role, record, inputs))
        except Exception as error:
            faults.append(f"No effective field of {record.trial}: {plugins.explain(error)}")
    if networks:
        with whole_file(run_dir / FIELDS_FILE) as file:
            MeasuredFields(shown(np.asarray(examples.images[:1]))[0], tuple(networks)).write(file)
    return faults


def _shown(run_dir: Path) -> list[tuple[str, Record]]:
    """Return the trainings whose fields are shown, of those whose weights are kept, by what they are called."""
    view = build_view(read_run(run_dir))
    decision = view.decision
    if decision is None:
        return []
    groups = [("recommended", decision.recommended.records)]
    if not decision.keeps_default:
        groups.append(("hand default", view.defaults))
    kept = [
        (role, next((record for record in records if checkpoint_file(run_dir, record.trial).is_file()), None))
        for role, records in groups
    ]
    return [(role, record) for role, record in kept if record is not None]


def _looked(the_plan: Plan, run_dir: Path, role: str, record: Record, inputs: Tensor) -> Looked:
    seed_all(record.train_seed)
    fresh, _, _ = build_network(the_plan.space, the_plan.task, the_plan.data, Candidate.from_json(record.outcome))
    fields = [_field(model, inputs) for model in (fresh, load_trained(run_dir, record.trial))]
    return Looked(
        role=role,
        trial=record.trial,
        rf_px=record.rf_px,
        sizes_px=(fields[0].size_px, fields[1].size_px),
        maps=np.stack([field.map for field in fields]).astype(np.float32),
    )


def _field(model: nn.Module, inputs: Tensor) -> EffectiveField:
    return effective_receptive_field(model.float(), inputs)
