"""A request, resolved and checked on its data: what a run will try, and what that should cost."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from rfsearch.choices import Candidate
from rfsearch.data import ImageSet
from rfsearch.data.image_set import few_to_choose_on, with_labels_to_score
from rfsearch.data.loading import physical_memory
from rfsearch.data.object_sizes import ObjectSizes
from rfsearch.errors import BudgetError, DataError, SpaceError
from rfsearch.ledger import Budget, Cost, Request
from rfsearch.ledger.manifest import PlannedCandidate
from rfsearch.numbers import amount, byte_size, plain
from rfsearch.planning.entrants import Entrant, describe_entrants, known_candidates
from rfsearch.planning.fitting import fit_space
from rfsearch.planning.forecast import Forecast
from rfsearch.planning.forecaster import Forecaster
from rfsearch.planning.request import CheckedRequest
from rfsearch.space import LSDFN, Space
from rfsearch.strategies import Description
from rfsearch.surgery import Site
from rfsearch.tasks.base import Task
from rfsearch.tasks.from_space import task_of

PLANNED_MOST = 100


@dataclass(frozen=True)
class Plan:
    """Hold a request, resolved and checked: everything known before anything is trained.

    Reading it builds no strategy. A forecast is counted when it is first asked for.

    Attributes:
        request: What was asked for.
        space: The space that it means, fitted to its network and data.
        task: Its task.
        data: The data.
        sites: The sites of the space, measured.
        entrants: The strategies that compete.
        descriptions: What each of them says of itself, by label.
        budget: Of each arm.
        reference_flop: Training FLOP of one full training of the reference candidate: what 1x means.
        forecaster: Gives the forecast of a candidate.
        notices: What a reader must know, one sentence each.
    """

    request: Request
    space: Space
    task: Task[object]
    data: ImageSet
    sites: tuple[Site, ...]
    entrants: tuple[Entrant, ...]
    descriptions: Mapping[str, Description]
    budget: Budget
    reference_flop: float
    forecaster: Forecaster
    notices: tuple[str, ...]

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """What the strategies may try, as far as they know it beforehand."""
        return known_candidates(self.descriptions, self.space)

    @property
    def arms(self) -> tuple[tuple[Entrant, int], ...]:
        """Strategy and seed of every arm."""
        return tuple((entrant, seed) for seed in range(self.request.seeds) for entrant in self.entrants)

    @property
    def image_px(self) -> int:
        """Longer side of an image, which a receptive field is compared with."""
        return max(self.data.image_size)

    @cached_property
    def sizes(self) -> ObjectSizes | None:
        """Sizes of the objects of the training images, None where the task's targets have none."""
        return self.task.object_sizes(self.data.splits["train"])

    @cached_property
    def full_training(self) -> Cost:
        """Cost of one full training of the hand default with its evaluations, which 1x is without."""
        return self.forecaster(self.space.reference_candidate).cost

    @property
    def full_trainings(self) -> float:
        """Number of these that an arm's budget pays for."""
        return self.budget.limit / self.budget.spent(self.full_training)

    def forecasts(self) -> list[tuple[Candidate, Forecast]]:
        """Return the first PLANNED_MOST candidates with their forecasts."""
        return [(candidate, self.forecaster(candidate)) for candidate in self.candidates[:PLANNED_MOST]]


def read_data(checked: CheckedRequest, cache: Path) -> ImageSet:
    """Read the data that a request names.

    Args:
        checked: The request.
        cache: Folder for data that must be memory-mapped.
    """
    return load_data(checked.space, checked.request.data, cache)


def make_plan(
    checked: CheckedRequest,
    data: ImageSet,
    device: torch.device,
    flop_per_s: float | None = None,
    descriptions: Mapping[str, Description] | None = None,
) -> Plan:
    """Resolve a request on its data, and check that what it means can be trained within its budget.

    Args:
        checked: The request.
        data: Its data.
        device: What trials train on.
        flop_per_s: Rate of one worker; None measures it.
        descriptions: What the strategies say of themselves, by label; None asks them.

    Raises:
        RequestError: Something does not fit, or a strategy fails.
    """
    request, entrants = checked.request, checked.entrants
    task = task_of(checked.space, data)
    directed = checked.space.with_(direction=task.direction)
    # A resumed run has the names of its sites, also where its request and its file named none.
    propose = not request.sites and bool(request.backbone or not directed.sites)
    fitted = fit_space(directed, task, data, adapt=propose or bool(request.sites), propose=propose)
    space = fitted.space
    described = describe_entrants(entrants, space) if descriptions is None else descriptions
    fitted.check([*_extremes(request, entrants, space), *known_candidates(described, space)])
    forecaster = Forecaster(space, task, data, device, flop_per_s)
    if request.address is None and device.type == "cpu":
        step_bytes = forecaster.step_bytes(space.reference_candidate)
        _require_memory(step_bytes, f"one training step of {space.recipe.batch_size} images takes", space)
    reference_flop = forecaster.reference_flop()
    budget = Budget.parse(space.budget, reference_flop)
    _require_budget(budget, forecaster(space.reference_candidate), reference_flop, described)
    return Plan(
        request,
        space,
        task,
        data,
        fitted.sites,
        entrants,
        described,
        budget,
        reference_flop,
        forecaster,
        (*fitted.notices, *_unguided(entrants, space)),
    )


def _extremes(request: Request, entrants: Sequence[Entrant], space: Space) -> list[Candidate]:
    """Return candidates that must fit for whatever strategies draw from the space to fit."""
    if request.candidates:
        return []
    extremes = [space.uniform(choice) for choice in space.options]
    if any(entrant.form == LSDFN for entrant in entrants):
        extremes.append(space.uniform(space.sampled(max(space.sampling.gammas), max(space.sampling.regions))))
    return extremes


def _require_budget(
    budget: Budget, reference: Forecast, reference_flop: float, descriptions: Mapping[str, Description]
) -> None:
    """Raise BudgetError for a budget that pays for no score, or for less than a strategy needs."""
    least = reference.least
    if budget.limit < budget.spent(least):
        raise BudgetError(
            f"{budget.text} is less than one step and scoring its outcome cost: "
            f"{amount(budget.spent(least), budget.currency)}, {plain(least.flop / reference_flop)}x. Ask for more."
        )
    room = budget.room(reference.cost, Cost())
    for label, description in descriptions.items():
        if room < description.fewest:
            enough = math.ceil(100 * description.fewest * reference.cost.flop / reference_flop) / 100
            raise BudgetError(
                f"{label} needs room for {description.fewest} full trainings with their looks; {budget.text} has "
                f"room for {room}. Smallest: {enough:g}x."
            )


def _unguided(entrants: Sequence[Entrant], space: Space) -> list[str]:
    """Return a notice for each form whose paths no label set guides."""
    searched = dict.fromkeys(entrant.form for entrant in entrants)
    return [
        f"No label set guides the paths of {form!r}: learned ones start from different dilations instead. "
        f"Label sets are given in the space's file, as labels of [paths.{form}]."
        for form in searched
        if (paths := space.paths.get(form)) and not any(paths.labels)
    ]


def guides(the_plan: Plan) -> list[str]:
    """Return the label set of every guided path in full, one sentence each."""
    sets = {(name, path.labels): None for candidate in the_plan.candidates for name, path in candidate if path.labels}
    return [f"{path}: guided by {', '.join(labels)}." for path, labels in sets]


def drawn(the_plan: Plan) -> list[str]:
    """Return what strategies may try besides the candidates that are listed, one sentence each."""
    return [f"{label}: {one.draws}." for label, one in the_plan.descriptions.items() if one.draws]


def misfits(checked: CheckedRequest) -> dict[str, str]:
    """Return why some of a request's own candidates cannot be trained on its data, by their JSON."""
    with tempfile.TemporaryDirectory() as cache:
        data = read_data(checked, Path(cache))
        fitted = fit_space(checked.space, task_of(checked.space, data), data, adapt=False)
    reasons = {}
    for text in checked.request.candidates:
        try:
            fitted.check([Candidate.from_json(text)])
        except SpaceError as error:
            reasons[text] = str(error)
    return reasons


def load_data(space: Space, folder: str | None, cache: Path) -> ImageSet:
    """Read the images of a --data folder, or make the embedded ones of a space that has some."""
    if folder is None:
        embedded, size = space.data.embedded, space.image_size
        if embedded is None:
            raise DataError(f"space {space.name!r} has no embedded data: name a folder with --data.")
        _require_memory(embedded.held_bytes(size), f"the images of {space.data.default} are held in", space)
        return embedded.make(size)
    data = with_labels_to_score(space.data.folder_layout.read(Path(folder), space.image_size, cache=cache))
    caution = few_to_choose_on(data)
    return replace(data, notice=f"{data.notice} {caution}".strip()) if caution else data


def _require_memory(needed: int, what: str, space: Space) -> None:
    """Raise SpaceError for what this machine's memory cannot hold, before anything of it is allocated."""
    memory = physical_memory()
    if needed > memory:
        raise SpaceError(
            f"{space.source}, preset {space.preset}: {what} {byte_size(needed)} of memory, and this machine has "
            f"{byte_size(memory)}. Choose a smaller image_size, or fewer images at a time."
        )


def forecast_rows(the_plan: Plan) -> list[PlannedCandidate]:
    """Return what is known of each candidate before anything is trained; see `Plan.forecasts`.

    Candidates whose receptive fields cannot be told apart at the images' size share a row.
    """
    alike: dict[tuple[Candidate, str], list[tuple[Candidate, Forecast]]] = {}
    for candidate, forecast in the_plan.forecasts():
        alike.setdefault((candidate.undilated, forecast.seen), []).append((candidate, forecast))
    px = np.concatenate([np.zeros(0), *(the_plan.sizes.px.values() if the_plan.sizes else ())])
    return [
        PlannedCandidate(
            candidate=candidate.to_json(),
            alike=tuple(other.to_json() for other, _ in others),
            rf_px=forecast.rf_px,
            path_rf_px=dict(forecast.path_rf_px),
            share=forecast.rf_px / the_plan.image_px,
            objects=float((px <= forecast.rf_px).mean()) if len(px) else None,
            flop=forecast.cost.flop,
            seconds=forecast.cost.device_s,
            peak_bytes=forecast.peak_bytes,
        )
        for (candidate, forecast), *others in alike.values()
    ]
