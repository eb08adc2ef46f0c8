"""A request, resolved and checked on its data: what a run will try, and what that should cost."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rfsearch import plugins
from rfsearch.backbones.vgg import load_imagenet_vgg16
from rfsearch.data import (
    ImageSet,
    LabelRule,
    Naming,
    PictureRule,
    read_folder,
    read_helen,
    read_voc,
    rendered_faces,
)
from rfsearch.data.image_set import few_to_choose_on, physical_memory, with_labels_to_score
from rfsearch.data.object_sizes import ObjectSizes, object_sizes
from rfsearch.data.pictures import MOST_PIXELS
from rfsearch.errors import BudgetError, DataError, SpaceError
from rfsearch.lazy import give_sizes
from rfsearch.ledger import Budget, Cost
from rfsearch.planning.contest import Forecast, full_trainings
from rfsearch.planning.fitting import check_candidates, with_fitting_dilations, with_reached_sites
from rfsearch.planning.request import (
    FORM_MARK,
    Request,
    check_request,
    entrants,
    listed,
    searched_forms,
    split_strategy,
)
from rfsearch.report.budgets import holds
from rfsearch.space import LSDFN, Candidate, Choice, Space
from rfsearch.strategies import guard
from rfsearch.surgery import Site, match_sites, measure_sites
from rfsearch.trial import IN_CHANNELS, Forecaster

PLANNED_MOST = 100


@dataclass
class Plan:
    """A request, resolved and checked: everything known before anything is trained."""

    request: Request
    space: Space
    data: ImageSet
    sites: list[Site]
    budget: Budget
    reference_flop: float
    forecaster: Forecaster
    notices: list[str] = field(default_factory=list)

    @property
    def candidates(self) -> list[Candidate]:
        """What the strategies that list their candidates will try, or else the hand default alone."""
        return listed(self.request, self.space)

    @property
    def arms(self) -> list[tuple[str, int]]:
        """Strategy and seed of every arm."""
        return [(name, seed) for seed in range(self.request.seeds) for name in entrants(self.request, self.space)]

    @property
    def image_px(self) -> int:
        """The longer side of an image, which a receptive field is compared with."""
        return max(self.data.image_size)

    @cached_property
    def sizes(self) -> ObjectSizes:
        """Of the objects of the training images."""
        return object_sizes(self.data.splits["train"], self.data.classes, self.data.ignore_index)

    @cached_property
    def full_training(self) -> Cost:
        """What one full training of the hand default costs with its evaluations, which 1x is without."""
        return self.forecaster(self.space.reference_candidate).cost

    @property
    def full_trainings(self) -> float:
        """How many of these an arm's budget pays for."""
        return self.budget.limit / self.budget.spent(self.full_training)

    @property
    def holds(self) -> str:
        """What an arm's budget has room for, as a sentence."""
        return holds(self.budget.text, self.full_trainings, self.full_training.flop / self.reference_flop)

    def forecasts(self) -> list[tuple[Candidate, Forecast]]:
        """Of the first PLANNED_MOST candidates."""
        return [(candidate, self.forecaster(candidate)) for candidate in self.candidates[:PLANNED_MOST]]


def read_data(request: Request, cache: Path) -> ImageSet:
    """Read the data that a request names.

    Args:
        cache: Folder for data that must be memory-mapped.
    """
    return load_data(check_request(request), request.data, cache)


def make_plan(request: Request, data: ImageSet, device: torch.device) -> Plan:
    """Resolve and check a request on its data."""
    return resolved_plan(request, check_request(request), data, device)


def resolved_plan(
    request: Request, space: Space, data: ImageSet, device: torch.device, flop_per_s: float | None = None
) -> Plan:
    """Resolve a request whose space is already known, such as that of a run that is reopened.

    Args:
        flop_per_s: Rate of one worker; None measures it.
    """
    anywhere = tuple(FORM_MARK.join(filter(None, split_strategy(asked))) for asked in request.strategies)
    request = replace(request, strategies=anywhere)
    plugins.load("tasks", space.task)(space.metric, data)
    model, weights, notices = _network(space, data)
    space = space.with_(weights=weights, sites=match_sites(model, space.sites))
    if request.backbone or request.sites:
        space, said = with_reached_sites(space, model, data)
        notices += said
    sites = measure_sites(model, space.sites, data.image_size, IN_CHANNELS)
    if request.backbone or request.sites:
        space, said = with_fitting_dilations(space, model, sites, data)
        notices += said
    swept = [] if request.candidates else [space.uniform(Choice(d)) for d in space.dilations]
    # A search that draws strides may draw the largest.
    if LSDFN in searched_forms(request, space) and not request.candidates:
        swept.append(space.uniform(space.sampled(max(space.sampling.gammas), max(space.sampling.regions))))
    check_candidates([*swept, *listed(request, space)], model, sites, space, data)
    for name in dict.fromkeys(searched_forms(request, space)):
        paths = space.paths.get(name)
        if paths and not any(paths.labels):
            notices.append(
                f"No label set guides the paths of {name!r}: learned ones start from different dilations instead. "
                f"Label sets are given in the space's file, as labels of [paths.{name}]."
            )
    forecaster = Forecaster(space, data, device, flop_per_s)
    if request.address is None and device.type == "cpu":
        step_bytes = forecaster.step_bytes(space.reference_candidate)
        _require_memory(step_bytes, f"one training step of {space.recipe.batch_size} images takes", space)
    reference_flop = forecaster.reference_flop()
    budget = Budget.parse(space.budget, reference_flop)
    least = forecaster(space.reference_candidate).least
    if budget.limit < budget.spent(least):
        raise BudgetError(
            f"{space.budget} is less than one step and scoring its outcome cost: "
            f"{budget.spent(least):.3g} {budget.currency}, {least.flop / reference_flop:.2g}x. Ask for more."
        )
    whole = forecaster(space.reference_candidate).cost
    room = full_trainings(budget, whole, Cost())
    for label, enter in entrants(request, space).items():
        strategy = guard.made(label, enter, 0)
        fewest = guard.fewest(label, strategy)
        if fewest is not None:
            if room < fewest:
                enough = math.ceil(100 * fewest * whole.flop / reference_flop) / 100
                raise BudgetError(
                    f"{label} needs room for {fewest} full trainings with their looks; {space.budget} has "
                    f"room for {room}. Smallest: {enough:g}x."
                )
            guard.allotted(label, strategy, partial(full_trainings, budget, whole))
        # What a strategy does not list beforehand shows in what it tries first, such as a layer that is not to be had.
        first = guard.suggested(label, strategy, [])
        if isinstance(first, Candidate):
            check_candidates([first], model, sites, space, data)
    return Plan(request, space, data, sites, budget, reference_flop, forecaster, notices)


def guides(the_plan: Plan) -> list[str]:
    """The label set of every guided path in full, a sentence each."""
    sets = {
        (path, choice.labels): None for candidate in the_plan.candidates for path, choice in candidate if choice.labels
    }
    return [f"{path}: guided by {', '.join(labels)}." for path, labels in sets]


def drawn(the_plan: Plan) -> list[str]:
    """What the strategies that draw their candidates may try besides those that are listed, a sentence each."""
    space, found = the_plan.space, []
    for label in entrants(the_plan.request, space):
        name, _, form = label.partition(FORM_MARK)
        if name not in ("random", "optuna"):
            continue
        if (form or space.form) == LSDFN:
            low, high = min(space.sampling.gammas), max(space.sampling.gammas)
            found.append(f"{label}: any sample stride from {low:g} to {high:g}.")
        else:
            low, high = space.f_search
            found.append(
                f"{label}: any of these dilations on every path behind a fixed f from {low:g} to {high:g}: what the "
                "dilation adds to the field is divided by f, and its cost multiplied by about f squared."
            )
    return found


def misfits(request: Request) -> dict[str, str]:
    """Why some of a request's own candidates cannot be trained on its data, by their JSON."""
    space = check_request(request)
    with tempfile.TemporaryDirectory() as cache:
        data = load_data(space, request.data, Path(cache))
    model, _, _ = _network(space, data)
    space = space.with_(sites=match_sites(model, space.sites))
    sites = measure_sites(model, space.sites, data.image_size, IN_CHANNELS)
    found = {}
    for text in request.candidates:
        try:
            check_candidates([Candidate.from_json(text)], model, sites, space, data)
        except SpaceError as error:
            found[text] = str(error)
    return found


def load_data(space: Space, folder: str | None, cache: Path) -> ImageSet:
    """The images of a --data folder, or the embedded set of a space that has one."""
    spec = space.data
    if folder is None:
        if spec.default is None:
            raise DataError(f"space {space.name!r} has no embedded data: name a folder with --data.")
        train, val, test = spec.rendered
        size = space.image_size or (96, 96)
        _require_memory((train + val + test) * 4 * size[0] * size[1], "the rendered images are held in", space)
        return rendered_faces(train, val, test, size)
    data = with_labels_to_score(_read_folder(space, Path(folder), cache))
    caution = few_to_choose_on(data)
    return replace(data, notice=f"{data.notice} {caution}".strip()) if caution else data


def _read_folder(space: Space, root: Path, cache: Path) -> ImageSet:
    spec, size, resize = space.data, space.image_size, space.data.resize
    pictures = PictureRule(spec.white, spec.max_pixels or MOST_PIXELS)
    if spec.layout == "helen":
        return read_helen(root, size, pictures=pictures, resize=resize, cache=cache)
    if spec.layout == "voc":
        return read_voc(root, size, pictures=pictures, resize=resize, cache=cache)
    return read_folder(
        root,
        spec.classes or None,
        spec.ignore_index,
        size,
        spec.flip_pairs,
        naming=Naming(spec.images, spec.labels),
        pictures=pictures,
        labels=LabelRule(map=spec.map, nearest=spec.colour_match == "nearest", resize=spec.resize_labels),
        colours=spec.colours,
        resize=resize,
        cache=cache,
    )


def _require_memory(needed: int, what: str, space: Space) -> None:
    """Raise SpaceError for what this machine's memory cannot hold, before anything of it is allocated."""
    memory = physical_memory()
    if needed > memory:
        raise SpaceError(
            f"{space.source}, preset {space.preset}: {what} {needed / 2**30:,.1f} GiB of memory, and this machine has "
            f"{memory / 2**30:,.1f} GiB. Choose a smaller image_size, or fewer images at a time."
        )


def _network(space: Space, data: ImageSet) -> tuple[Any, str, list[str]]:
    """The network, the weights that were to be had ("none" if it trains from scratch), and what a reader must know."""
    model = plugins.make_backbone(space.backbone, data.num_classes, IN_CHANNELS)
    give_sizes(model, (1, IN_CHANNELS, *data.image_size))
    notices = [data.notice] if data.notice else []
    if space.weights == "none":
        return model, "none", [*notices, f"Backbone {space.backbone}: trains from scratch."]
    loaded, said = load_imagenet_vgg16(model, space.weights)
    weights = space.weights if loaded else "none"
    return model, weights, [*notices, f"Backbone {space.backbone}: {said}"]


def primary_score(the_plan: Plan) -> str:
    """The name of the score a search goes by, its averaging in the name."""
    return plugins.load("tasks", the_plan.space.task)(the_plan.space.metric, the_plan.data).primary


def forecast_rows(the_plan: Plan) -> list[dict[str, Any]]:
    """What is known of each candidate before anything is trained; see `Plan.forecasts`.

    alike: other candidates of the list, not told again, whose receptive fields cannot be told apart from this one's at
    the images' size. objects: share of the training images' objects that are no longer than the receptive field.
    """
    rows: dict[tuple[Candidate, str], dict[str, Any]] = {}
    px = np.concatenate([np.zeros(0), *the_plan.sizes.px.values()])
    for candidate, forecast in the_plan.forecasts():
        key = (candidate.undilated, forecast.seen)
        if key in rows:
            rows[key]["alike"].append(candidate.to_json())
            continue
        rows[key] = {
            "candidate": candidate.to_json(),
            "alike": [],
            "rf_px": forecast.rf_px,
            "path_rf_px": dict(forecast.path_rf_px),
            "share": forecast.rf_px / the_plan.image_px,
            "objects": float((px <= forecast.rf_px).mean()) if len(px) else None,
            "flop": forecast.cost.flop,
            "seconds": forecast.cost.device_s,
            "peak_bytes": forecast.peak_bytes,
        }
    return list(rows.values())
