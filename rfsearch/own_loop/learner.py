"""Let the receptive field of one training learn itself, in whatever loop that training runs.

A learner changes the sites of a model and then follows the steps of an optimiser: before a step it hides the gradients
of what it learns from that optimiser, after the step it moves what is learned by relative steps of its own
(`rfsearch.training.relative`) and sets up the next step. The loop stays as it is, whatever it does about batches,
precision, accumulation or schedules.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any, Literal

import torch
from torch import distributed, nn
from torch.utils.hooks import RemovableHandle

from rfsearch.choices import Candidate
from rfsearch.compiled import check_not_compiled
from rfsearch.errors import ModelError, RequestError, SpaceError
from rfsearch.layers import FractionalConv2d
from rfsearch.own_loop.hidden import HiddenGradients
from rfsearch.own_loop.sharing import Sharing
from rfsearch.own_loop.sites import LearnedSite, MovingSite, put_inflated_site, put_real_site, why_whole
from rfsearch.patch import Patch, PatchSettings
from rfsearch.surgery import match_sites
from rfsearch.surgery.inserts import InflatedSite
from rfsearch.training.relative import RelativeSteps
from rfsearch.training.schedule import length_factor

Method = Literal["fractional", "inflation"]
_PUT = {"fractional": put_real_site, "inflation": put_inflated_site}
_POWER = 0.9  # of the decay of steps, as that of the built-in trainings' rate
_TRACE_POINTS = 200


@dataclass(frozen=True)
class Report:
    """Say what a training has learned of its receptive field so far.

    Attributes:
        steps: Steps taken.
        starts: Dilation of every site at first, px of its map.
        dilations: Dilation of every site now, px of its map.
        trace: How they moved: step, site, dilation.
        searched: The dilations among which looks have decided, if they have.

    Example:
        >>> print(learner.report())
        After 10000 steps. layer4.0.conv2: dilation 2, from 3. layer4.1.conv2: dilation 4, from 3.
    """

    steps: int
    starts: Mapping[str, int]
    dilations: Mapping[str, float]
    trace: Sequence[tuple[int, str, float]]
    searched: Sequence[int] = ()

    def __str__(self) -> str:
        among = f" of {', '.join(map(str, self.searched))}" if self.searched else ""
        sites = [
            f"{site}: dilation {self.dilations[site]:.4g}{among or f', from {start}'}."
            for site, start in self.starts.items()
        ]
        return " ".join((f"After {self.steps} steps.", *sites))


def learn(
    model: nn.Module,
    sites: str | Sequence[str],
    dilations: Sequence[int],
    *,
    steps: int | None = None,
    method: Method = "fractional",
    start: int | None = None,
    look: Callable[[], float] | None = None,
    delay: float = 0.0,
    whole_from: float | None = 0.9,
    rate: float = 0.05,
    seed: int = 0,
) -> Learner:
    """Let one training learn the dilations of a model's sites, without a search.

    The model is changed in place. Make its optimiser afterwards or before, of all parameters; move the model to its
    device, and compile or wrap it, afterwards. Three lines in a training that exists:

        learner = rfsearch.learn(model, "layer4.*.conv2", [1, 2, 3, 4, 6, 8], steps=10_000)
        optimizer = ...; learner.attach(optimizer)
        ...  # the training
        learner.settle()

    Args:
        model: The network.
        sites: Module paths of convolutions, shell patterns for several, or containers and spans; see
            `rfsearch.surgery.match_sites`. Each learns a dilation of its own.
        dilations: Legal dilations, px of the site's map; a dilation that moves stays between the smallest and largest.
        steps: Steps of the optimiser in the whole training; here or when the learner is attached.
        method: "fractional" moves a real dilation, at the cost of one convolution. "inflation" moves the inflation
            factor in front of the site (Wei et al.), at the cost of resampling its map.
        start: Dilation to start from. None: the middle of the legal ones, since small ones are rarely left. Trained
            weights are disturbed least where it is the dilation that they were trained with.
        look: With "fractional": tells how good the model is as it stands, higher is better, on some images that it is
            not trained on; the same ones each time. With it, no start matters: the first third of the training shares
            its weights between all legal dilations, and two looks at each decide. It runs between two steps; the model
            then evaluates.
        delay: Share of the training before a dilation moves; without `look`.
        whole_from: Share of the training from which dilations are rounded to whole numbers, so that the weights get
            used to them. None: they stay real.
        rate: Root mean square of the relative steps in a training of 300; longer ones take smaller steps.
        seed: Of which dilations are tried when.

    Returns:
        What to attach to the optimiser, settle at the end, and ask for a report.

    Raises:
        ModelError: The model is compiled, or cannot be dilated at a site.
        SpaceError: A site names nothing, or cannot learn in this way.
        RequestError: An argument is none of those above.
    """
    legal = _legal(dilations, start)
    for name, share in {"delay": delay, "whole_from": whole_from}.items():
        if share is not None and not 0 <= share <= 1:
            raise RequestError(f"{name} is a share of the training, 0 to 1. Got {share!r}.")
    if method not in _PUT:
        raise RequestError(f"a receptive field is learned by {' or '.join(map(repr, _PUT))}. Got {method!r}.")
    if look is not None and method != "fractional":
        raise RequestError("look decides between dilations of the method 'fractional'. Leave it out, or change method.")
    if look is not None and not callable(look):
        raise RequestError(f"look is a function without arguments that tells how good the model is. Got {look!r}.")
    if not 0 < rate < 1:
        raise RequestError(f"rate is the relative change of a dilation in a step, between 0 and 1. Got {rate!r}.")
    check_not_compiled(model)
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ModelError(f"learn takes the model itself, which is wrapped afterwards. Got a {type(model).__name__}.")
    patterns = [sites] if isinstance(sites, str) else list(sites)
    for path, module in model.named_modules():
        if isinstance(module, FractionalConv2d | InflatedSite) and any(fnmatch(path, pattern) for pattern in patterns):
            raise RequestError(f"{path} has a learned dilation already. Settle the learner that it has first.")
    paths = match_sites(model, patterns)
    if not paths:
        raise SpaceError("sites name at least one convolution. Got none.")
    for path in paths:
        why = why_whole(model, path)
        if method == "fractional" and look is None and why:
            raise SpaceError(
                f"{path} {why}: only a plain nn.Conv2d of odd sides that pads its map has a real dilation to move. "
                "Find its dilation with look=, or learn with method='inflation'."
            )
    first, bounds = start or legal[(len(legal) - 1) // 2], (legal[0], legal[-1])
    learned = {path: _PUT[method](model, path, first, bounds) for path in paths}
    return Learner(model, learned, legal, Schedule(delay, whole_from, rate), look, seed, steps)


@dataclass(frozen=True)
class Schedule:
    """Say when dilations move, and how far.

    Attributes:
        delay: Share of the training before they move.
        whole_from: Share from which they are whole; None: never.
        rate: Root mean square of the relative steps in a training of 300.
    """

    delay: float
    whole_from: float | None
    rate: float


class Learner:
    """Move the receptive field of a training along with an optimiser's steps; `learn` makes one.

    `state_dict` and `load_state_dict` hold what a resumed training needs beside the states of model and optimiser.

    Args:
        model: The model, its sites in place.
        sites: What it learns, by module path.
        dilations: Legal ones, in order.
        schedule: When they move.
        look: How good the model is; None: dilations are not searched.
        seed: Of which dilations are tried when.
        steps: Number of the optimiser's steps in the whole training. None: it is given to `attach`.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: Mapping[str, LearnedSite],
        dilations: Sequence[int],
        schedule: Schedule,
        look: Callable[[], float] | None,
        seed: int,
        steps: int | None = None,
    ) -> None:
        """Begin before the first step."""
        self._model, self._sites, self._dilations = model, dict(sites), dilations
        self._schedule, self._look, self._seed = schedule, look, seed
        self._moving = [site for site in self._sites.values() if isinstance(site, MovingSite)]
        groups = [{"params": [site.parameter], "logarithms": site.logarithm} for site in self._moving]
        self._mover = RelativeSteps(groups or [{"params": []}], schedule.rate)
        self._handles: list[RemovableHandle] = []
        self._trace: list[tuple[int, str, float]] = []
        self._step, self._steps = 0, 0 if steps is None else _checked(steps)
        self._sharing: Sharing | None = None
        self._waiting: Mapping[str, Any] | None = None
        self._free(False)

    @property
    def steps(self) -> int:
        """Number of steps in the whole training; 0 while that is unknown."""
        return self._steps

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What it moves itself."""
        return [site.parameter for site in self._moving]

    def attach(self, optimizer: object, steps: int | None = None, others: Sequence[torch.optim.Optimizer] = ()) -> None:
        """Follow the steps of an optimiser from now on.

        Args:
            optimizer: A torch.optim.Optimizer, or a wrapper that holds one as `optimizer`.
            steps: Number of its steps in the whole training, if `learn` was not told.
            others: More optimisers of the same training, which leave alone what is learned here.

        Raises:
            RequestError: It is no optimiser, the number of steps is missing, or the learner is attached already.
        """
        inner = optimizer
        while (wrapped := getattr(inner, "optimizer", None)) is not None:
            inner = wrapped
        if not isinstance(inner, torch.optim.Optimizer):
            raise RequestError(f"a learner follows a torch.optim.Optimizer. Got {type(optimizer).__name__}.")
        if self._handles:
            raise RequestError("this learner follows an optimiser already. Call detach() first to follow another.")
        if steps is not None and self._steps not in (0, _checked(steps)):
            raise RequestError(f"this training has {self._steps} steps, as learn or its saved state says. Got {steps}.")
        self._steps = self._steps or steps or 0
        if not self._steps:
            raise RequestError("how many steps the training has decides when dilations move: attach(optimizer, steps).")
        if self._look is not None:
            self._sharing = Sharing(self._model, self._sites, self._dilations, self._steps, self._look, self._seed)
        self._handles = [
            *(handle for one in (inner, *others) for handle in HiddenGradients(self.parameters).hooks(one)),
            inner.register_step_post_hook(self._after),
            self._model.register_forward_pre_hook(_Shown(self._show)),
        ]
        if self._waiting is None:
            self._search()
        else:
            self._resume(self._waiting)
        self._set_up()

    def detach(self) -> None:
        """Follow the optimiser no more."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def settle(self, model: nn.Module | None = None, whole: bool = True, keep: bool = False) -> nn.Module:
        """End: fix what was learned, and put plain convolutions where a dilation is a whole number.

        Args:
            model: A copy of the model made since `learn`, such as one with averaged weights, to put them into. None:
                the model itself.
            whole: Whether to round dilations that are still real numbers. Otherwise their sites keep the layer that
                reads between pixels, or the inflation.
            keep: Whether the copy keeps the real dilations that it has.

        Returns:
            The model.
        """
        self.detach()
        if not self._step:
            warnings.warn(
                "Nothing was learned: no step of an optimiser was followed. Call attach(optimizer) before the "
                "training, with the optimiser whose step() runs.",
                stacklevel=2,
            )
        if self._sharing and self.searching:
            self._sharing.show(self._step, training=False)
        if whole:
            self._round()
        settled = self._model if model is None else model
        for moving in self._moving:
            moving.parameter.requires_grad_(False)
        for site in self._sites.values():
            site.settle(settled, keep)
        return settled

    def report(self) -> Report:
        """Return what was learned so far."""
        starts = {path: site.start for path, site in self._sites.items()}
        searched = tuple(self._dilations) if self._look else ()
        return Report(self._step, starts, self._found(), tuple(self._trace), searched)

    def patch(self) -> dict[str, Any]:
        """Return what `rfsearch.apply` needs to give another model these sites."""
        candidate = Candidate({path: site.choice for path, site in self._sites.items()})
        settings = PatchSettings(border="continuous", dilations=tuple(self._dilations))
        return Patch("", (), candidate, settings).to_json()

    def state_dict(self) -> dict[str, Any]:
        """Return what to go on from, with the states of model and optimiser."""
        return {
            "step": self._step,
            "steps": self._steps,
            "mover": self._mover.state_dict(),
            "dilations": list(self._dilations),
            "looks": self._look is not None,
            "sites": {path: site.state() for path, site in self._sites.items()},
            "trace": [list(point) for point in self._trace],
            "sharing": self._sharing.state() if self._sharing else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave; before or after the model's state is loaded."""
        self._check(state)
        self._waiting = state
        self._steps = self._steps or state["steps"]
        if self._handles:
            self._resume(state)
            self._set_up()

    @property
    def _begins(self) -> int:
        """The first step with which dilations move."""
        return self._sharing.decided if self._sharing else math.ceil(self._schedule.delay * self._steps)

    @property
    def _ends(self) -> int:
        """The step from which they are whole, or that behind the last one."""
        share = self._schedule.whole_from
        return self._steps if share is None else max(self._begins, round(share * self._steps))

    @property
    def searching(self) -> bool:
        """Whether the next step is one of those that share weights between dilations."""
        return self._sharing is not None and self._step < self._begins

    def _after(self, *_: object) -> None:
        """Move what is learned, and set up the next step."""
        for parameter in self.parameters:
            if parameter.grad is not None:
                # A step that overflowed in half precision says nothing about where to go.
                parameter.grad = parameter.grad.nan_to_num(0.0, 0.0, 0.0)
        if self._moves:
            self._mover.step()
        self._mover.zero_grad(set_to_none=True)
        for site in self._moving:
            site.project()
        self._step += 1
        if self._step % max(1, self._steps // _TRACE_POINTS) == 0:
            self._trace += [(self._step, path, dilation) for path, dilation in self._found().items()]
        self._search()
        self._set_up()

    def _search(self) -> None:
        """Decide which dilations the next step has, while weights are shared between several."""
        if self._sharing and self._step <= self._begins:
            self._sharing.set_up(self._step)

    def _set_up(self) -> None:
        """Set what moves in the next step, and how far."""
        step = self._step
        if step == self._ends and self._schedule.whole_from is not None:
            self._round()
        self._free(self._moves)
        left = max(0.0, 1 - step / max(1, self._ends))
        for group in self._mover.param_groups:
            group["lr"] = self._schedule.rate * length_factor(self._steps) * left**_POWER

    @property
    def _moves(self) -> bool:
        """Whether the next step moves dilations."""
        return self._begins <= self._step < self._ends

    def _free(self, moving: bool) -> None:
        """Let autograd find the gradients of what is learned, or not.

        In a distributed training it always does: who wraps a model counts on the gradients that it had then.
        """
        always = distributed.is_available() and distributed.is_initialized()
        for site in self._moving:
            site.parameter.requires_grad_(moving or always)

    def _show(self, model: nn.Module, _: object) -> None:
        """Let the model evaluate at the best dilations so far while it trains at others."""
        if self._sharing and self.searching:
            self._sharing.show(self._step, model.training)

    def _round(self) -> None:
        for site in self._sites.values():
            now = site.dilation
            site.dilate(min(self._dilations, key=lambda legal: (abs(legal - now), -legal)))

    def _found(self) -> dict[str, float]:
        best: Mapping[str, float] = self._sharing.best if self._sharing and self.searching else {}
        return {path: float(best.get(path, site.dilation)) for path, site in self._sites.items()}

    def _check(self, state: Mapping[str, Any]) -> None:
        """Raise RequestError for a state that is not of a learner like this one."""
        try:
            theirs = {"dilations": state["dilations"], "sites": list(state["sites"]), "look": state["looks"]}
            steps = state["steps"]
        except (KeyError, TypeError) as error:
            raise RequestError(f"this is no state of a learner: {error} is missing.") from error
        own = {"dilations": list(self._dilations), "sites": list(self._sites), "look": self._look is not None}
        for what, value in own.items():
            if theirs[what] != value:
                raise RequestError(f"this state is of a learner with {what} = {theirs[what]}; this one has {value}.")
        if self._steps and steps and steps != self._steps:
            raise RequestError(f"this state is of a training of {steps} steps; this one has {self._steps}.")

    def _resume(self, state: Mapping[str, Any]) -> None:
        self._waiting = None
        self._step, self._trace = state["step"], [tuple(point) for point in state["trace"]]
        self._mover.load_state_dict(state["mover"])
        for path, saved in state["sites"].items():
            self._sites[path].load_state(saved)
        if self._sharing and state["sharing"] is not None:
            self._sharing.load_state(state["sharing"])
        if self._sharing and self.searching:
            self._sharing.show(self._step, training=True)


class _Shown:
    """Be a hook of the model that learns, and none of its copies: these keep what they have."""

    def __init__(self, show: Callable[[nn.Module, Any], None]) -> None:
        self._show: Callable[[nn.Module, Any], None] | None = show

    def __call__(self, model: nn.Module, args: Any) -> None:
        if self._show is not None:
            self._show(model, args)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shown:
        copied = _Shown.__new__(_Shown)
        copied._show = None
        return copied


def _checked(steps: int) -> int:
    if not isinstance(steps, int) or steps < 1:
        raise RequestError(f"steps is the number of the optimiser's steps, at least 1. Got {steps!r}.")
    return steps


def _legal(dilations: Sequence[int], start: int | None) -> list[int]:
    """Return the legal dilations in order."""
    legal = sorted(set(dilations))
    if not legal or any(not isinstance(d, int) or isinstance(d, bool) or d < 1 for d in legal):
        raise SpaceError(
            f"dilations are whole numbers of at least 1. Got {list(dilations)!r}. Usual: [1, 2, 3, 4, 6, 8]."
        )
    if start is not None and not legal[0] <= start <= legal[-1]:
        raise SpaceError(f"start lies within the legal dilations, {legal[0]} to {legal[-1]}. Got {start!r}.")
    return legal
