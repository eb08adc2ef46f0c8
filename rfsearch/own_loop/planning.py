"""The plan of a search whose trials are trained by a function of its user's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rfsearch import plugins, sources
from rfsearch.compiled import strip_compilation
from rfsearch.data.object_sizes import ObjectSizes
from rfsearch.errors import ModelError, RequestError, RunDirectoryError, SpaceError
from rfsearch.identity import network_of, require_same, sources_of
from rfsearch.lazy import give_sizes
from rfsearch.ledger import Budget, Request
from rfsearch.ledger.manifest import DataFacts, Manifest, Network, SpaceFacts
from rfsearch.ledger.typed_json import sound
from rfsearch.numbers import counted, duration
from rfsearch.own_loop.forecaster import LoopForecaster
from rfsearch.own_loop.loop_training import Train
from rfsearch.own_loop.loop_trainings import LoopTrainings
from rfsearch.own_loop.pilot import run_pilot
from rfsearch.planning.entrants import describe_entrants, find_entrants, known_candidates
from rfsearch.planning.fitting import check_candidates, fit_sites
from rfsearch.planning.plan import extremes, require_budget
from rfsearch.planning.proposals import sites_command
from rfsearch.planning.search_plan import SearchPlan
from rfsearch.sources import absolute
from rfsearch.space import Length, OwnSpace
from rfsearch.space.objectives import SCORE, check_objectives
from rfsearch.space.own_file import USUAL_DILATIONS
from rfsearch.strategies.kinds import with_fitting_kinds
from rfsearch.surgery import Settings, Site
from rfsearch.training import settings_of

Make = Callable[[], nn.Module]
DEFAULT_BUDGET = "7x"


@dataclass(frozen=True)
class OwnCode:
    """Hold the two functions of a user's that a search calls.

    Attributes:
        train: Trains a trial.
        model: Makes the network, without arguments.
        train_spec: SPEC of the first; empty where it was passed as a function.
        model_spec: Name of the second, likewise; for reading only where it was passed as a function.
        shell_spec: SPEC by which a command of the shell finds the second; empty where none does.
    """

    train: Train
    model: Make
    train_spec: str
    model_spec: str
    shell_spec: str = ""

    @staticmethod
    def of(train: Train | str, model: Make | str) -> OwnCode:
        """Find both, each a function or its SPEC.

        Raises:
            RequestError: One is neither.
        """
        found_train, train_spec = _found(train, "training function", "train")
        found_model, model_spec = _found(model, "model", "model")
        made = _maker(found_model, model_spec)
        name = model_spec or _name(found_model)
        return OwnCode(found_train, made, train_spec, name, model_spec or _shell_spec(found_model))

    @property
    def shipped(self) -> Train | str:
        """What a worker is sent of the training function: its SPEC where there is one, since a file travels as such."""
        return self.train_spec or self.train

    def other_sites(self, input_shape: Sequence[int]) -> str:
        """Say how to list the sites of the network, and how to name them.

        Args:
            input_shape: 1 x C x its axes: what the network is shown of one image.
        """
        naming = "--site NAME" if self.train_spec else "sites=[NAME]"
        if self.shell_spec:
            return f"{sites_command(self.shell_spec, input_shape)}, then {naming}"
        return f"rfsearch.inspection.list_site_fields(model(), {tuple(input_shape)}), then {naming}"

    def network(self, model: nn.Module) -> Network:
        """Describe the network, and the user's files that decide what trials score."""
        of_model = sources_of(self.model_spec) if ":" in self.model_spec else {}
        of_model = of_model or _file_of(self.model)
        of_train = sources_of(self.train_spec) if self.train_spec else _file_of(self.train)
        if not self.train_spec:
            of_train = {**of_train, f"{_name(self.train)}()": _digest(self.train)}
        return replace(network_of("", model), sources=of_model, code={"training": of_train} if of_train else {})


def _found(given: object, what: str, argument: str) -> tuple[Callable[..., Any], str]:
    if isinstance(given, str):
        if given.partition(":")[0] in plugins.ZOOS:
            raise RequestError(
                f"{argument} is made without arguments, and {given} needs a number of classes. Name a function of "
                "yours that makes it as your training does: path/to/file.py:function."
            )
        spec = absolute(given)
        return plugins.named(spec, what), spec
    if not callable(given) or isinstance(given, nn.Module):
        hint = " Pass the function that makes it: trials change fresh models." if isinstance(given, nn.Module) else ""
        raise RequestError(
            f"{argument} is a function, or its SPEC, path/to/file.py:function or package.module:function. "
            f"Got {type(given).__name__}.{hint}"
        )
    return given, ""


def _maker(make: Callable[..., Any], spec: str) -> Make:
    """Return what makes the network, each time a new one."""

    def made() -> nn.Module:
        try:
            model = make()
        except Exception as error:
            raise ModelError(
                f"the model cannot be made: {spec or _name(make)}() raises {type(error).__name__}: {error}. It is "
                "called without arguments."
            ) from error
        if not isinstance(model, nn.Module):
            raise ModelError(f"{spec or _name(make)}() makes a torch.nn.Module. Got {type(model).__name__}.")
        return strip_compilation(model)

    made.__dict__["__wrapped__"] = make  # whose file identifies the network
    return made


def _behind_partials(function: Callable[..., Any]) -> Callable[..., Any]:
    return _behind_partials(function.func) if isinstance(function, partial) else function


def _name(function: Callable[..., Any]) -> str:
    function = _behind_partials(function)
    return f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', type(function).__name__)}"


def _shell_spec(make: Callable[..., Any]) -> str:
    """Return the SPEC by which a command finds what makes a network; empty where none does.

    A command calls it without arguments, as a search does, only where it takes none.
    """
    try:
        return "" if inspect.signature(make).parameters else sources.spec_of(make)
    except (TypeError, ValueError):
        return ""


def _digest(function: Callable[..., Any]) -> str:
    """Return a digest of what a function computes, as far as its code and the plain arguments bound to it say."""
    bound = []
    while isinstance(function, partial):
        bound.append([_plain(value) for value in (*function.args, *sorted(function.keywords.items()))])
        function = function.func
    code = getattr(inspect.unwrap(function), "__code__", None)
    says = (code.co_code.hex(), [_plain(value) for value in code.co_consts]) if code else _name(function)
    return sha256(repr((bound, says)).encode()).hexdigest()


def _plain(value: object) -> str:
    """Return a value in words that are the same in every process; of anything but plain values, its kind."""
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_plain, value))})"
    plain = isinstance(value, bool | int | float | str | bytes | None | Path)
    return repr(value) if plain else type(value).__name__


def _file_of(function: Callable[..., Any]) -> dict[str, str]:
    """Return the SHA-256 of the file in which a function is written, by its path; nothing where there is none."""
    try:
        written = inspect.unwrap(_behind_partials(inspect.unwrap(function)))
        file = Path(inspect.getsourcefile(written) or "")
        return {str(file.resolve()): sha256(file.read_bytes()).hexdigest()}
    except (TypeError, OSError):
        return {}


@dataclass(frozen=True)
class OwnPlan(SearchPlan):
    """Hold a request whose trials are trained by a function of the user's own.

    Attributes:
        space: The space that it means, with the length of a full training.
        code: The user's functions.
    """

    space: OwnSpace
    code: OwnCode

    @property
    def primary(self) -> str:
        return self.space.score

    @property
    def title(self) -> str:
        return f"{self.space.title} ({self.space.name}): {self.summary}"

    @property
    def summary(self) -> str:
        length = self.space.length
        assert length is not None
        return f"your own data, {counted(length.epochs, 'epoch')} of {counted(length.steps, 'step')} each"

    @property
    def classes(self) -> tuple[str, ...]:
        return ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.space.input_shape

    @property
    def sizes(self) -> ObjectSizes | None:
        return None

    @property
    def settings(self) -> Settings:
        return settings_of(self.space)

    @property
    def trainings(self) -> LoopTrainings:
        return LoopTrainings(self.space, self.code.shipped, self.request.processes_per_trial)

    def make_network(self) -> nn.Module:
        return self.code.model()

    def facts(self) -> tuple[SpaceFacts, DataFacts, Network]:
        space = self.space
        axes = (1, *space.input_shape[2:])
        space_facts = SpaceFacts(
            name=space.name,
            title=space.title,
            cite=space.cite,
            preset=space.preset,
            metric=None,
            backbone=space.backbone,
            primary=space.score,
            direction=space.direction,
            sites=space.sites,
            dilations=space.dilations,
            f_bounds=space.f_bounds,
            form=space.form,
            gamma_bounds=space.sampling.bounds,
            reference=space.default_candidate.to_json(),
            image_size=(axes[-2], axes[-1]),
            in_channels=space.input_shape[1],
            costs=space.costs,
        )
        data_facts = DataFacts(
            name="your own data",
            summary=self.summary,
            rendered=False,
            notice="",
            classes=(),
            fingerprint="",
            folder=None,
            splits={},
        )
        return space_facts, data_facts, self.code.network(self.make_network())


def own_space(code: OwnCode, request: Request) -> OwnSpace:
    """Return the space of a search in a user's own training, not yet fitted to its network.

    Raises:
        SpaceError: The request asks for something that is none.
    """
    dilations = check_dilations(request.dilations or USUAL_DILATIONS)
    if not isinstance(request.budget, str | None):
        raise SpaceError(f"budget is text with a unit, such as '7x' or '2e15flop'. Got {request.budget!r}.")
    if request.direction not in (None, "maximize", "minimize"):
        raise SpaceError(f"direction is 'maximize' or 'minimize'. Got {request.direction!r}.")
    name = (code.train_spec or _name(code.train)).rpartition(":")[2]
    return OwnSpace(
        name=name,
        title="Your own training",
        cite="",
        source="rfsearch.search",
        preset="own",
        backbone=code.model_spec,
        sites=request.sites,
        dilations=dilations,
        reference=dilations[0],
        f_bounds=(0.25, 4.0),
        f_search=(0.7, 1.4),
        budget=request.budget or DEFAULT_BUDGET,
        direction=request.direction or "maximize",
        objectives=check_objectives(request.objectives or (SCORE,)),
        train=code.train_spec,
        input_shape=check_shape(request.input_shape),
        score=request.score or "score",
    )


def make_own_plan(code: OwnCode, request: Request, device: torch.device) -> OwnPlan:
    """Resolve a request whose trials are trained by a user's function; a pilot of one epoch finds their length.

    Args:
        code: The user's functions.
        request: The request.
        device: What the pilot and the trials train on.

    Raises:
        RequestError: Something does not fit, or the function fails.
    """
    space = own_space(code, request)
    model = code.model()
    give_sizes(model, space.input_shape)
    others = code.other_sites(space.input_shape)
    space, sites, notices = fit_sites(
        space, model, space.input_shape, adapt=True, propose=not space.sites, others=others
    )
    if request.paths is not None:
        space = space.with_path_count(request.paths)
    space, left_out = with_fitting_kinds(
        space, lambda candidates: check_candidates(space, sites, model, space.input_shape, candidates)
    )
    entrants = find_entrants(request, space)
    Budget.parse(space.budget, reference_flop=1.0)
    unfit = describe_entrants(entrants, space)
    wanted = [*extremes(request, entrants, space), *known_candidates(unfit, space)]
    check_candidates(space, sites, model, space.input_shape, wanted)
    length, compiled = run_pilot(
        space, code.shipped, network_of("", code.model()).tensors, device, request.processes_per_trial
    )
    notices += [*left_out, *_said(length, compiled, request.processes_per_trial)]
    return _with_length(code, request, space.with_(length=length), device, sites, notices)


def _said(length: Length, compiled: bool, processes: int) -> list[str]:
    """Return what a pilot has shown, in words."""
    said = [
        f"A pilot of one epoch of the hand default took {duration(length.epoch_s)}; it is charged to no arm. What it "
        "cost is the forecast of all others."
    ]
    if processes > 1:
        said.append(
            f"{processes} processes train each trial together. Their FLOP are summed up; time is that of the trial."
        )
    if not length.score_flop:
        said.append(
            "Nothing was evaluated in it (trial.evaluating). Where later epochs are, trials cost more than forecast."
        )
    if compiled:
        said.append(
            "The model is compiled by torch.compile; trials run it as it was written, since what compiled code runs "
            "cannot be counted."
        )
    return said


def _with_length(
    code: OwnCode,
    request: Request,
    space: OwnSpace,
    device: torch.device,
    sites: tuple[Site, ...],
    notices: list[str],
) -> OwnPlan:
    assert space.length is not None
    entrants = find_entrants(request, space)
    descriptions = describe_entrants(entrants, space)
    forecaster = LoopForecaster(space, space.length, code.model)
    reference_flop = forecaster.reference_flop()
    budget = Budget.parse(space.budget, reference_flop)
    require_budget(budget, forecaster(space.reference_candidate), reference_flop, descriptions)
    return OwnPlan(
        request=request,
        space=space,
        code=code,
        sites=sites,
        entrants=entrants,
        descriptions=descriptions,
        budget=budget,
        reference_flop=reference_flop,
        forecaster=forecaster,
        notices=tuple(notices),
    )


def reopen(run_dir: Path, manifest: Manifest, device: torch.device, code: OwnCode | None = None) -> OwnPlan:
    """Make the plan of a run in a user's own training that was started before.

    Args:
        run_dir: Its directory.
        manifest: Its manifest.
        device: What trials train on.
        code: The user's functions; None: those that the run names.

    Raises:
        RunDirectoryError: They are not what they were, or the run names none.
    """
    request, space = sound(manifest.request), sound(manifest.resolved_space)
    assert isinstance(space, OwnSpace)
    own: OwnSpace = space
    if code is None:
        if not space.train:
            raise RunDirectoryError(
                f"{run_dir}: this run was started from Python, with functions that only your script has. Go on with it "
                f"there: rfsearch.search(..., out={str(run_dir)!r}) goes on where the run had stopped."
            )
        code = OwnCode.of(space.train, space.backbone)
    model = code.model()
    give_sizes(model, space.input_shape)
    require_same(sound(manifest.network), code.network(model), space.backbone, run_dir)
    own, sites, _ = fit_sites(own, model, own.input_shape, adapt=False, propose=False)
    the_plan = _with_length(code, request, own, device, sites, list(sound(manifest.notices)))
    budget, reference_flop = manifest.budget.of_an_arm, sound(manifest.budget.reference_flop)
    return replace(the_plan, budget=budget, reference_flop=reference_flop)


def check_shape(input_shape: object) -> tuple[int, ...]:
    """Return the shape of an input.

    Raises:
        SpaceError: It is none.
    """
    shape = tuple(input_shape) if isinstance(input_shape, list | tuple | torch.Size) else ()
    if len(shape) < 3 or not all(isinstance(n, int) and n > 0 for n in shape):
        raise SpaceError(
            f"input_shape is what the network is shown of one image, such as (1, 3, 512, 512). Got {input_shape!r}."
        )
    return (1, *shape[1:])


def check_dilations(dilations: object) -> tuple[int, ...]:
    """Return legal dilations in order.

    Raises:
        SpaceError: They are none.
    """
    given = list(dilations) if isinstance(dilations, list | tuple | range | set) else []
    if not given or any(not isinstance(d, int) or isinstance(d, bool) or d < 1 for d in given):
        raise SpaceError(
            f"dilations are whole numbers of at least 1. Got {dilations!r}. Usual: {list(USUAL_DILATIONS)}."
        )
    return tuple(sorted(set(given)))
