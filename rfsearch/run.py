"""From a request to a finished run: read, check, forecast, compete, report."""

from __future__ import annotations

import itertools
import math
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rfsearch import plugins
from rfsearch.backbones.vgg import load_imagenet_vgg16
from rfsearch.contest import Arm, Contest, Forecast, full_trainings
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
from rfsearch.data.image_set import few_to_choose_on, physical_memory, require_folder, with_labels_to_score
from rfsearch.data.object_sizes import ObjectSizes, object_sizes
from rfsearch.data.pictures import MOST_PIXELS
from rfsearch.errors import BudgetError, DataError, RfsearchError, RunDirectoryError, SpaceError, nearest
from rfsearch.identity import network_of, recorded, require_same, require_same_tensors
from rfsearch.lazy import give_sizes
from rfsearch.ledger import Budget, Cost, Journal, Record, incumbent, read_history, read_run
from rfsearch.ledger.journal import SCHEMA, require_replayable
from rfsearch.ledger.lock import hold
from rfsearch.ledger.manifest import HeldData, Network, held
from rfsearch.ledger.run_directory import MANIFEST_FILE, create, read_manifest, write_manifest
from rfsearch.receptive import traced
from rfsearch.report.budgets import holds
from rfsearch.sources import absolute
from rfsearch.space import LSDFN, Candidate, Choice, Space, read_space
from rfsearch.strategies import Formed, guard
from rfsearch.strategies.listed import Listed
from rfsearch.surgery import Site, check_fits, check_labels, install, match_sites, measure_sites, neutral
from rfsearch.surgery.places import convolutions
from rfsearch.surgery.refused import refused_dilations
from rfsearch.trial import IN_CHANNELS, Forecaster, checkpoint, settings_of
from rfsearch.trial.learner import built

FORM_MARK = "@"
PLANNED_MOST = 100
SEEDS_MOST = 1000
_PACKAGES = ("rfsearch", "torch", "torchvision", "ray", "optuna", "numpy", "pandas")


@dataclass(frozen=True)
class Request:
    """What a user asks of `run` and `plan`; None leaves the space's own.

    strategies: names or SPECs, package.module:Class or path/to/file.py:Class, each with @ and a form of the space where
    it is not to search the run's own form, such as inflation@bi; none: those that suit the form. paths: number of
    parallel paths a site gets. candidates: JSON of candidates to train once each, with no strategy at all.
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


def resolve(request: Request) -> Space:
    """The space that a request means, its overrides in place."""
    space = read_space(plugins.space_file(request.space), request.preset)
    backbone = absolute(request.backbone or space.backbone)  # workers and resumed runs have other working directories
    # A preset's trained weights belong to its own backbone.
    weights = "none" if backbone != absolute(space.backbone) else None
    space = space.with_(backbone=backbone, weights=weights, sites=request.sites or None, budget=request.budget)
    return space if request.paths is None else space.with_path_count(request.paths)


def entrants(request: Request, space: Space) -> dict[str, Callable[[int], Any]]:
    """The strategies of a request by the name of their arms: each builds its strategy from a seed."""
    if request.candidates:
        given = [Candidate.from_json(text) for text in request.candidates]
        return {"listed": lambda seed: Listed(given)}
    found: dict[str, Callable[[int], Any]] = {}
    learned = ("lsdfn",) if space.form == LSDFN else ("inflation", "fractional")
    suited = ("exhaustive", "random", "optuna", *learned)
    seen: set[tuple[str, str]] = set()
    for asked in request.strategies or suited:
        spec, form = _spec_and_form(asked)
        strategy = plugins.strategy(spec)
        own = strategy.form if isinstance(strategy, Formed) else space.form
        if isinstance(strategy, Formed) and form not in ("", own):
            raise SpaceError(f"{spec} searches the form {own} only. Got {asked!r}. Nearest legal: {spec!r}.")
        if (spec, form or own) in seen:
            raise SpaceError(f"--strategies names each strategy once. Got {','.join(request.strategies)!r}.")
        seen.add((spec, form or own))
        name = spec.rpartition(":")[2]
        label = _unused(name if form in ("", own) else f"{name}{FORM_MARK}{form}", found)
        found[label] = partial(strategy, space.with_form(form or own))
    return found


def _spec_and_form(asked: str) -> tuple[str, str]:
    """Split what --strategies names into the strategy, a file by its absolute path, and its form, empty for the run's
    own. The folders of a path may hold the mark too."""
    path, colon, name = asked.rpartition(":")
    name, _, form = name.partition(FORM_MARK)
    return absolute(path + colon + name), form


def _unused(label: str, taken: Collection[str]) -> str:
    """Return a label as it is, or numbered where another strategy's class has the same name. Trials and their folders
    are called by it, so names that differ in case alone count as the same."""
    known = {other.casefold() for other in taken}
    name, mark, form = label.partition(FORM_MARK)
    numbered = (f"{name}-{number}{mark}{form}" for number in itertools.count(2))
    return next(other for other in itertools.chain([label], numbered) if other.casefold() not in known)


def _forms(request: Request, space: Space) -> list[str]:
    """The forms that the arms of a request search."""
    return [label.partition(FORM_MARK)[2] or space.form for label in entrants(request, space)]


def listed(request: Request, space: Space) -> list[Candidate]:
    """The candidates that the request's strategies name beforehand, or else the hand default alone."""
    found: dict[Candidate, None] = {}
    for label, enter in entrants(request, space).items():
        found.update(dict.fromkeys(guard.listed(label, guard.made(label, enter, 0))))
    return list(found) or [space.default_candidate]


def check(request: Request) -> Space:
    """Everything that can be wrong with a request and shows without data: returns the space it means."""
    space = resolve(request)
    if request.data is not None:
        require_folder(Path(request.data))
    if not 1 <= request.seeds <= SEEDS_MOST:
        raise SpaceError(
            f"--seeds is the number of seeds per strategy, at least 1 and at most {SEEDS_MOST}. Got {request.seeds}."
        )
    entrants(request, space)
    plugins.backbone(space.backbone)
    Budget.parse(space.budget, reference_flop=1.0)
    for option, amount in (
        ("--cpus-per-trial", request.cpus_per_trial),
        ("--gpus-per-trial", request.gpus_per_trial),
    ):
        if amount is not None and not (0 < amount < math.inf or (amount == 0 and "gpus" in option)):
            raise SpaceError(f"{option} is a positive number. Got {amount:g}.")
        if amount is not None and amount > 1 and amount != int(amount):
            raise SpaceError(f"{option} is a whole number, or a share below 1. Got {amount:g}. Nearest: {int(amount)}.")
    return space


def read(request: Request, cache: Path) -> ImageSet:
    """The data that a request names. cache: for data that must be memory-mapped."""
    return load_data(check(request), request.data, cache)


def plan(request: Request, data: ImageSet, device: torch.device) -> Plan:
    """Resolve and check a request on its data."""
    return _plan(request, check(request), data, device)


def _plan(
    request: Request, space: Space, data: ImageSet, device: torch.device, flop_per_s: float | None = None
) -> Plan:
    anywhere = tuple(FORM_MARK.join(filter(None, _spec_and_form(asked))) for asked in request.strategies)
    request = replace(request, strategies=anywhere)
    plugins.load("tasks", space.task)(space.metric, data)
    model, weights, notices = _network(space, data)
    space = space.with_(weights=weights, sites=match_sites(model, space.sites))
    if request.backbone or request.sites:
        space, said = _reaching(space, model, data)
        notices += said
    sites = measure_sites(model, space.sites, data.image_size, IN_CHANNELS)
    if request.backbone or request.sites:
        space, said = _fitted(space, model, sites, data)
        notices += said
    swept = [] if request.candidates else [space.uniform(Choice(d)) for d in space.dilations]
    if LSDFN in _forms(request, space) and not request.candidates:  # a search that draws strides may draw the largest
        swept.append(space.uniform(space.sampled(max(space.sampling.gammas), max(space.sampling.regions))))
    _check_candidates([*swept, *listed(request, space)], model, sites, space, data)
    for name in dict.fromkeys(_forms(request, space)):
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
            _check_candidates([first], model, sites, space, data)
    return Plan(request, space, data, sites, budget, reference_flop, forecaster, notices)


def _reaching(space: Space, model: nn.Module, data: ImageSet) -> tuple[Space, list[str]]:
    """A space without the sites that a network's output does not depend on, such as those of an auxiliary output."""
    needed = traced(model, (1, IN_CHANNELS, *data.image_size)).needed
    names = {module: path for path, module in model.named_modules()}
    reaching = [site for site in space.sites if any(names[conv] in needed for conv in convolutions(model, site))]
    if not reaching:
        raise SpaceError(f"{', '.join(space.sites)}: the network's output depends on none of these. Name other sites.")
    left_out = [site for site in space.sites if site not in reaching]
    said = [f"Left out, since the output does not depend on them: {', '.join(left_out)}."] if left_out else []
    return space.with_(sites=tuple(reaching)), said


def _fitted(space: Space, model: nn.Module, sites: list[Site], data: ImageSet) -> tuple[Space, list[str]]:
    """A space whose dilations were chosen for another network or other sites: without those that do not fit here, and
    with the network as it stands for its hand default."""
    largest = min(site.largest_dilation for site in sites)
    try:
        own = {choice.dilation for _, choice in neutral(model, space.sites)}
    except SpaceError:  # a dilation that differs between axes is no choice
        own = set()
    reference = own.pop() if len(own) == 1 and max(own) <= largest else 1
    fitting, said = {d for d in space.dilations if d <= largest} | {reference}, []
    if left_out := [str(d) for d in space.dilations if d > largest]:
        fitting.add(largest)
        tightest = min(sites, key=lambda site: site.largest_dilation)
        size = " x ".join(map(str, tightest.map_size))
        said.append(
            f"Left out, since their kernels are longer than the map of {tightest.path} ({size} px): dilations "
            f"{', '.join(left_out)}. Largest that fits: {largest}."
        )
    shape = (1, IN_CHANNELS, *data.image_size)
    refused = refused_dilations(model, shape, {site: sorted(fitting - {reference}) for site in space.sites})
    for site, reasons in refused.items():
        first = next(iter(reasons))
        said.append(f"Left out for {site}: dilations {', '.join(map(str, reasons))}. At {first} {reasons[first]}.")
        fitting -= reasons.keys()
    if reference != space.reference:
        said.append(f"Hand default: dilation {reference}, the network as it stands.")
    return space.with_(dilations=tuple(sorted(fitting)), reference=reference), said


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
    space = check(request)
    with tempfile.TemporaryDirectory() as cache:
        data = load_data(space, request.data, Path(cache))
    model, _, _ = _network(space, data)
    space = space.with_(sites=match_sites(model, space.sites))
    sites = measure_sites(model, space.sites, data.image_size, IN_CHANNELS)
    found = {}
    for text in request.candidates:
        try:
            _check_candidates([Candidate.from_json(text)], model, sites, space, data)
        except SpaceError as error:
            found[text] = str(error)
    return found


def _check_candidates(
    candidates: Sequence[Candidate], model: nn.Module, sites: list[Site], space: Space, data: ImageSet
) -> None:
    """Raise SpaceError for a candidate that a site has no room for, or whose labels the data lacks; what its trial
    would raise, mostly ModelError, for a layer that is not to be had or does not fit in its convolution's place."""
    check_fits(sites, candidates, f"{space.source}, preset {space.preset}", space.sampling.kernel)
    asked: dict[str, set[int]] = {}
    for candidate in candidates:
        for site, choice in candidate.choices:
            paths = (choice,) if isinstance(choice, Choice) else choice
            asked.setdefault(site, set()).update(path.dilation for path in paths)
    wanted = {site: sorted(dilations) for site, dilations in asked.items()}
    for site, reasons in refused_dilations(model, (1, IN_CHANNELS, *data.image_size), wanted).items():
        dilation, reason = next(iter(reasons.items()))
        taken = ", ".join(str(d) for d in wanted[site] if d not in reasons) or "none of those asked for"
        raise SpaceError(
            f"{site}: dilation {dilation} does not fit into the network: {reason}. Dilations that it takes: {taken}. "
            f"Asked for by {space.source}, preset {space.preset}."
        )
    settings = settings_of(space, data.classes)
    # An ignored id is no class that a path could be guided by, or a background.
    labelled = tuple(name for i, name in enumerate(data.classes) if i != data.ignore_index)
    for candidate in candidates:
        check_labels(candidate, replace(settings, classes=labelled))
    # A layer is told of its own site only: each is made once, in however many combinations it stands.
    at_a_site = {Candidate.of({site: choice}): None for candidate in candidates for site, choice in candidate.choices}
    for alone in at_a_site:
        if any(choice.layer for _, choice in alone):
            built(space.with_(weights="none"), data, alone)


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


@contextmanager
def new_directory(run_dir: Path) -> Iterator[Path]:
    """A fresh run directory that no other process works in, taken away again if the request fails before anything
    worth keeping is in it."""
    create(run_dir)
    with hold(run_dir):
        create(run_dir)  # another process may have been faster
        try:
            yield run_dir
        except BaseException:
            if not (run_dir / MANIFEST_FILE).exists():
                shutil.rmtree(run_dir, ignore_errors=True)
            raise


def start(the_plan: Plan, run_dir: Path, command: str, workers: int, device: str) -> None:
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
            "primary": primary_score(the_plan),
            "sites": list(space.sites),
            "dilations": list(space.dilations),
            "f_bounds": list(space.f_bounds),
            "form": space.form,
            "gamma_bounds": list(space.sampling.bounds),
            "reference": space.default_candidate.to_json(),
            "image_size": list(data.image_size),
        },
        "network": asdict(_network_now(the_plan.request, space, data)),
        "arms": [{"strategy": s, "seed": seed} for s, seed in the_plan.arms],
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


def reopen(run_dir: Path, device: torch.device) -> Plan:
    """The plan of a run that was started before, from its directory. The data must be what it was."""
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
    require_same(recorded(manifest, run_dir), _network_now(request, space, data), space.backbone, run_dir)
    again = _plan(request, space, data, device, rate)
    if again.space.weights != space.weights:
        raise RunDirectoryError(
            f"{run_dir}: this run started from trained weights ({space.weights}) that are out of reach now. "
            "Bring them back to resume."
        )
    return replace(again, budget=budget, reference_flop=reference_flop)


def _network_now(request: Request, space: Space, data: ImageSet) -> Network:
    """Describe the network of a run, and the layers that its candidates put into it, as their files make them now."""
    layers = {choice.layer: None for candidate in listed(request, space) for _, choice in candidate if choice.layer}
    return network_of(space.backbone, fresh_backbone(space, data.num_classes), layers)


def request_of(run_dir: Path) -> Request:
    """Read back what a run was asked for."""
    return held(read_manifest(run_dir), run_dir / MANIFEST_FILE, Request, "request")


def fresh_backbone(space: Space, num_classes: int) -> nn.Module:
    """Make a space's network, with no trained weights and no site changed."""
    return plugins.make_backbone(space.backbone, num_classes, IN_CHANNELS)


def contest_of(the_plan: Plan, run_dir: Path) -> Contest:
    """The contest as its ledger left it, or a new one."""
    journal = Journal(run_dir)
    enter = entrants(the_plan.request, the_plan.space)
    arms = [Arm(name, seed, guard.made(name, enter[name], seed), the_plan.budget) for name, seed in the_plan.arms]
    history = read_history(run_dir)
    require_replayable(history, {(arm.name, arm.seed) for arm in arms}, journal.path)
    try:
        return Contest(arms, journal, history, the_plan.forecaster, the_plan.space.reference_candidate)
    except RfsearchError:
        raise
    except Exception as error:  # what a strategy raises for records that it can never have asked for
        raise RunDirectoryError(
            f"{journal.path}: its trials cannot be replayed, so one is damaged: {type(error).__name__}: {error}."
        ) from error


def keep_leaders(run_dir: Path, contest: Contest) -> None:
    """Delete the checkpoints of finished trials that lead no arm, which alone are ever shown or exported, and that no
    other trial goes on from."""
    needed = {arm.best.trial for arm in contest.arms if arm.best} | set(contest.running) | contest.parents
    for folder in (run_dir / "checkpoints").glob("*"):
        if folder.name not in needed:
            shutil.rmtree(folder, ignore_errors=True)


def compete(
    the_plan: Plan,
    contest: Contest,
    run_dir: Path,
    engine: Any,
    watch: Callable[[Record, Contest], None],
    check: Callable[[], None],
) -> None:
    """Train until every arm has spent its budget. watch: told of every look and every record.

    check: called all the time, and may raise to end it all.
    """

    def seen(record: Record) -> None:
        if record.trial not in contest.running:
            keep_leaders(run_dir, contest)
        watch(record, contest)

    engine.run(contest, the_plan.space, the_plan.data, run_dir, the_plan.budget.currency, seen, check)


def trained(run_dir: Path, trial: str | None = None) -> nn.Module:
    """A trained network of a run, in evaluation mode: a trial that leads its arm, or by default the winner."""
    manifest, at = read_manifest(run_dir), run_dir / MANIFEST_FILE
    space = held(manifest, at, Space, "resolved_space")
    classes = held(manifest, at, HeldData, "data").classes
    image_size = held(manifest, at, tuple[int, int], "space", "image_size")
    if trial is None:
        best = incumbent(read_run(run_dir).records)
        if best is None:
            raise RunDirectoryError(f"{run_dir}: no trial was scored, so there is no winner.")
        trial = best.trial
    file = run_dir / "checkpoints" / trial / "model.pt"
    if not file.is_file():
        kept = [path.parent.name for path in sorted((run_dir / "checkpoints").glob("*/model.pt"))]
        raise RunDirectoryError(f"{run_dir}: no checkpoint of trial {trial!r} is kept.{nearest(trial, kept)}")
    state = checkpoint.load(file, torch.device("cpu"))
    if state is None or not isinstance(state.get("candidate"), str) or not isinstance(state.get("model"), dict):
        raise RunDirectoryError(
            f"{file}: damaged: no checkpoint can be read from it. Other trials that are kept can be exported by name."
        )
    model = fresh_backbone(space, len(classes))
    require_same_tensors(recorded(manifest, run_dir), network_of(space.backbone, model), space.backbone, run_dir)
    give_sizes(model, (1, IN_CHANNELS, *image_size))
    install(model, Candidate.from_json(state["candidate"]), settings_of(space, classes))
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise RunDirectoryError(
            f"{file}: its weights do not fit the network that backbone {space.backbone} makes now: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error
    model.eval()
    return model


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found


def machine(device: str) -> dict[str, Any]:
    """What the run ran on, in figures and the processor's own name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": memory,
        "device": torch.cuda.get_device_name() if device == "cuda" and torch.cuda.is_available() else device,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
