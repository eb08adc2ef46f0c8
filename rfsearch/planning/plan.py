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
from torch import nn

from rfsearch.choices import Candidate
from rfsearch.data import ImageSet
from rfsearch.data.image_set import few_to_choose_on, with_labels_to_score
from rfsearch.data.loading import physical_memory
from rfsearch.data.object_sizes import ObjectSizes
from rfsearch.errors import BudgetError, DataError, SpaceError
from rfsearch.identity import code_of, network_of
from rfsearch.ledger import Budget, Cost, Request
from rfsearch.ledger.manifest import DataFacts, Network, PlannedCandidate, SpaceFacts
from rfsearch.networks import fresh_backbone
from rfsearch.numbers import amount, byte_size, plain
from rfsearch.planning.entrants import Entrant, describe_entrants, known_candidates
from rfsearch.planning.fitting import fit_space
from rfsearch.planning.forecast import Forecast
from rfsearch.planning.forecaster import Forecaster
from rfsearch.planning.request import CheckedRequest
from rfsearch.planning.search_plan import SearchPlan
from rfsearch.replay import ReplayForecasts, ReplayTable, ReplayTrainings, table_for
from rfsearch.space import LSDFN, SearchSpace, Space
from rfsearch.storage import data_directory, uri_of
from rfsearch.strategies import Description
from rfsearch.strategies.kinds import with_fitting_kinds
from rfsearch.surgery import Settings
from rfsearch.tasks.base import Task
from rfsearch.tasks.from_space import task_of
from rfsearch.training import ImageTrainings, settings_of


@dataclass(frozen=True)
class Plan(SearchPlan):
    """Hold a request whose trials are built-in trainings on images.

    Attributes:
        space: The space that it means, fitted to its network and data.
        task: Its task.
        data: The data.
        table: Trainings that are looked up instead of trained.
    """

    space: Space
    task: Task[object]
    data: ImageSet
    table: ReplayTable | None = None

    @property
    def primary(self) -> str:
        return self.task.primary

    @property
    def summary(self) -> str:
        return self.data.summary()

    @property
    def classes(self) -> tuple[str, ...]:
        return self.data.classes

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.data.input_shape

    @cached_property
    def sizes(self) -> ObjectSizes | None:
        return self.task.object_sizes(self.data.splits["train"])

    @property
    def settings(self) -> Settings:
        return settings_of(self.space, self.data.classes)

    @property
    def trainings(self) -> ImageTrainings | ReplayTrainings:
        return ReplayTrainings(self.table) if self.table else ImageTrainings(self.space, self.data)

    def make_network(self) -> nn.Module:
        return fresh_backbone(self.space, self.task)

    def facts(self) -> tuple[SpaceFacts, DataFacts, Network]:
        space, task, data, folder = self.space, self.task, self.data, self.request.data
        space_facts = SpaceFacts(
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
            costs=space.costs,
        )
        data_facts = DataFacts(
            name=data.name,
            summary=data.summary(),
            rendered=data.rendered,
            notice=data.notice,
            classes=tuple(data.classes),
            fingerprint=data.fingerprint(),
            folder=whole_address(folder) if folder else None,
            splits={name: len(split) for name, split in data.splits.items()},
            noun=self.noun,
        )
        return space_facts, data_facts, network_now(space, task, self.candidates)


def network_now(space: Space, task: Task[object], candidates: Sequence[Candidate]) -> Network:
    """Describe the network of a run and the user's code that its scores depend on, as their files make them now."""
    paths = (path for candidate in candidates for _, path in candidate)
    layers = {spec: None for path in paths for spec in path.choice.specs}
    return network_of(space.backbone, fresh_backbone(space, task), layers, code_of(space))


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
    space, left_out = with_fitting_kinds(fitted.space, fitted.check)
    described = describe_entrants(entrants, space) if descriptions is None else descriptions
    fitted.check([*extremes(request, entrants, space), *known_candidates(described, space)])
    table = None if request.replay is None else table_for(request.replay, space)
    if table:
        table.check(space, data)
    forecaster = Forecaster(space, task, data, device, table.flop_per_s if table else flop_per_s)
    if table is None and request.address is None and device.type == "cpu":
        step_bytes = forecaster.step_bytes(space.reference_candidate)
        _require_memory(step_bytes, f"one training step of {space.recipe.batch_size} images takes", space)
    reference_flop = forecaster.reference_flop()
    budget = Budget.parse(space.budget, reference_flop)
    require_budget(budget, forecaster(space.reference_candidate), reference_flop, described)
    said = [*([table.notice] if table else []), *fitted.notices, *left_out]
    forecasts = ReplayForecasts(table, forecaster) if table else forecaster
    return Plan(
        request=request,
        space=space,
        task=task,
        data=data,
        sites=fitted.sites,
        entrants=entrants,
        descriptions=described,
        budget=budget,
        reference_flop=reference_flop,
        forecaster=forecasts,
        notices=(*said, *_of_costs(space), *_unguided(entrants, space)),
        table=table,
    )


def extremes(request: Request, entrants: Sequence[Entrant], space: SearchSpace) -> list[Candidate]:
    """Return candidates that must fit for whatever strategies draw from the space to fit.

    Where costs are objectives, what is drawn has been tried one by one; see `with_fitting_kinds`.
    """
    if request.candidates or space.costs:
        return []
    extremes = [space.uniform(choice) for choice in space.options]
    if any(entrant.form == LSDFN for entrant in entrants):
        extremes.append(space.uniform(space.sampled(max(space.sampling.gammas), max(space.sampling.regions))))
    return extremes


def require_budget(
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


def _of_costs(space: Space) -> list[str]:
    """Return a notice of which strategies know that costs are objectives."""
    said = (
        f"Besides the score the search goes by {', '.join(space.costs)}: exhaustive, random and optuna try choices of "
        "every kind, and optuna looks for the whole front. Strategies that learn a receptive field go by the score "
        "alone."
    )
    return [said] if space.costs else []


def _unguided(entrants: Sequence[Entrant], space: Space) -> list[str]:
    """Return a notice for each form whose paths no label set guides."""
    searched = dict.fromkeys(entrant.form for entrant in entrants)
    return [
        f"No label set guides the paths of {form!r}: learned ones start from different dilations instead. "
        f"Label sets are given in the space's file, as labels of [paths.{form}]."
        for form in searched
        if (paths := space.paths.get(form)) and not any(paths.labels)
    ]


def guides(the_plan: SearchPlan) -> list[str]:
    """Return the label set of every guided path in full, one sentence each."""
    sets = {(name, path.labels): None for candidate in the_plan.candidates for name, path in candidate if path.labels}
    return [f"{path}: guided by {', '.join(labels)}." for path, labels in sets]


def drawn(the_plan: SearchPlan) -> list[str]:
    """Return what strategies may try besides the candidates that are listed, each sentence once."""
    by_draws = dict[str, list[str]]()
    for label, one in the_plan.descriptions.items():
        if one.draws:
            by_draws.setdefault(one.draws, []).append(label)
    return [f"{', '.join(labels)}: {draws}." for draws, labels in by_draws.items()]


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


def whole_address(folder: str) -> str:
    """Return the address of a data folder from wherever it is read."""
    return uri_of(folder) or str(Path(folder).resolve())


def load_data(space: Space, folder: str | None, cache: Path) -> ImageSet:
    """Read the images of a --data folder, or make the embedded ones of a space that has some, for the space's task."""
    return space.task.kind.prepare(space.task.keys, _read_data(space, folder, cache), cache)


def _read_data(space: Space, folder: str | None, cache: Path) -> ImageSet:
    if folder is None:
        embedded, size = space.data.embedded, space.image_size
        if embedded is None:
            raise DataError(f"space {space.name!r} has no embedded data: name a folder with --data.")
        _require_memory(embedded.held_bytes(size), f"the images of {space.data.default} are held in", space)
        return embedded.make(size)
    root = Path(data_directory(folder))
    data = with_labels_to_score(space.data.folder_layout.read(root, space.image_size, cache=cache))
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


def forecast_rows(the_plan: SearchPlan) -> list[PlannedCandidate]:
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
