"""A network in training: one optimiser step, one evaluation, and what each really costs."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rfsearch import plugins
from rfsearch.backbones.vgg import load_imagenet_vgg16
from rfsearch.data import Augment, Batches, ImageSet, Split
from rfsearch.direction import merit
from rfsearch.errors import ModelError, TrialError
from rfsearch.layers import (
    LSDFN,
    FractionalConv2d,
    Inflation,
    InflationFactor,
    Interpolation,
    SampleStride,
    guided,
    low_centre_,
)
from rfsearch.layers.host import on_host
from rfsearch.lazy import give_sizes
from rfsearch.ledger import Cost
from rfsearch.receptive import receptive_fields
from rfsearch.space import Candidate, Choice, Recipe, Space
from rfsearch.surgery import (
    Advancing,
    Changing,
    Learnable,
    Settings,
    Undecayed,
    found_dilation,
    install,
    set_dilation,
)
from rfsearch.tasks.base import Scores
from rfsearch.tasks.from_space import task_of
from rfsearch.tasks.pictures import Pictures
from rfsearch.trial.averaging import AveragedWeights
from rfsearch.trial.memory import PeakMemory
from rfsearch.trial.meter import Meter, Metered
from rfsearch.trial.prelude import Prelude, held_out, prelude_steps
from rfsearch.trial.tally import Tally
from rfsearch.untouched import restored

# Forward passes of one image that measure a network's latency; every trial with a score is charged for them.
LATENCY_PASSES = 15
_NAN_CHECK_STEPS = 10


class Learner:
    """A network in training: one step, one evaluation, and what each costs in FLOP."""

    def __init__(
        self,
        space: Space,
        data: ImageSet,
        candidate: Candidate,
        seed: int,
        device: torch.device,
        memory: PeakMemory | None = None,
    ) -> None:
        self._recipe, self._data, self._device, self._memory = space.recipe, data, device, memory
        self.task = task_of(space, data)
        model, self.learnable = built(space, data, candidate)
        self.model = model.to(device)
        scalars: dict[str, InflationFactor | SampleStride] = {**self.learnable.factors, **self.learnable.strides}
        self._learned = {path: scalar for path, scalar in scalars.items() if _value_of(scalar).requires_grad}
        layers = self.learnable.layers.values()
        undecayed = [p for layer in layers if isinstance(layer, Undecayed) for p in layer.undecayed()]
        self._optimizer = _optimizer(self.model, self._learned.values(), undecayed, space)
        self._batches = Batches(
            data.splits["train"],
            space.recipe.batch_size,
            seed,
            self.task,
            augment_of(space.recipe),
            device,
        )
        found = {path: choice.dilation for path, choice in candidate if choice.to_find}
        self._dilation_bounds = float(min(space.dilations)), float(max(space.dilations))
        self._moving: dict[str, FractionalConv2d] = {}
        self.prelude = prelude_steps(space.recipe, candidate)
        self._prelude = Prelude(list(found), space.dilations, space.recipe.steps, seed) if found else None
        self._average = AveragedWeights(self.model, space.recipe.steps) if found else None
        self._tally = Tally()
        self._unchecked: list[tuple[int, Tensor]] = []  # steps and their losses, not yet read from the device
        self._step_flop: dict[str, float] = {}
        self._last_flop = 0.0
        self._score_flop: dict[str, float] = {}
        self._estimating = 0.0
        self._seconds = {"step": 0.0, "image": 0.0}
        resampling = [m for m in self.model.modules() if isinstance(m, Inflation | Interpolation)]
        self._blocks: list[LSDFN] = [m for m in self.model.modules() if isinstance(m, LSDFN)]
        self._map_sizes: dict[Inflation | Interpolation, tuple[int, ...]] = {}
        for layer in resampling:
            layer.register_forward_pre_hook(self._note_map)
        if not self.model.training:  # what its maker left in evaluation inside a network in training stays so
            self.model.train()
        self.train_peak_bytes: int | None = None

    @property
    def steps(self) -> int:
        """Of the whole training: the recipe's, and before them those in which dilations are found."""
        return self.prelude + self._recipe.steps

    @property
    def flop(self) -> float:
        """What everything that this learner ran has cost so far, of what failed too."""
        return self._tally.flop + self._estimating

    def train_step(self, step: int) -> float:
        """Take one optimiser step on batch number `step`; returns its FLOP."""
        started, before = time.perf_counter(), self._tally.flop
        if self._prelude:
            self._find(step)
        if self.learnable.layers:
            self._advance(step)
        looked = self._tally.flop - before
        self._set_rates(step)
        images, target = self._batches.at(step)
        key = self._key(images.shape[0])
        self._unchecked.append((step, self._optimise(images, target)))
        flop = self._tally.flop - before - looked
        if flop > self._step_flop.get(key, 0.0):
            self._step_flop[key] = flop
            self.train_peak_bytes = self._memory.bytes() if self._memory else None
        self._seconds["step"] = time.perf_counter() - started
        self._last_flop = flop
        if (step + 1) % _NAN_CHECK_STEPS == 0 or step + 1 == self.steps:
            self.check_losses()
        return flop + looked

    def check_losses(self) -> None:
        """Raise a TrialError that names the first step whose loss was not finite. On a GPU this waits for the steps
        that were started, which is why no step does it by itself."""
        steps, self._unchecked = self._unchecked, []
        if not steps:
            return
        for (step, _), value in zip(steps, torch.stack([loss.reshape(()) for _, loss in steps]).tolist(), strict=True):
            if not math.isfinite(value):
                raise TrialError(f"the loss became {value} by step {step + 1}")

    def step_cost(self) -> Cost:
        """What the next step should cost: as much as the dearest one of its kind so far."""
        flop = self._step_flop.get(self._key(self._recipe.batch_size), self._last_flop)
        return Cost(flop, self._seconds["step"], self.epochs(1))

    def look_cost(self, step: int) -> Cost:
        """What is looked at before a step, so that dilations are found, costs."""
        looks = self._prelude.looks(step) if self._prelude else 0
        return self.score_cost(looks * len(held_out(self._data, self._recipe))) if looks else Cost()

    def epochs(self, steps: int) -> float:
        """Passes over the training images in that many steps."""
        return self._batches.epochs(steps)

    def score(self, split: Split) -> tuple[Scores, float]:
        """Scores of the present weights on a split, and the FLOP of finding them.

        Raises TrialError where training has diverged: the network gives no numbers any more.
        """
        self._stand()
        self._check_weights()
        before = self._tally.flop
        with restored(self.model), torch.no_grad(), self._passes(split):
            self.model.eval()
            started = time.perf_counter()
            scores = self.task.evaluate(self.model, split, self._recipe.eval_batch_size, self._device)
            self._seconds["image"] = (time.perf_counter() - started) / len(split)
        return scores, self._tally.flop - before

    @contextmanager
    def _passes(self, split: Split) -> Iterator[None]:
        """Count the passes of the model over a split, and raise a TrialError where what it gives is not a number."""
        nan: list[Tensor] = []

        def watch(output: Any) -> None:
            given = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
            nan.extend(leaf.isnan().any() for leaf in given)

        with self._tally.passes(self.model, watch) as costs:
            yield
        if not costs:  # a task that takes the model apart
            self._tally.flop += self.score_cost(len(split)).flop
        if nan and bool(torch.stack(nan).any()):
            raise TrialError("the trained network gives NaN: its training diverged; lower its rate.")

    def score_cost(self, images: int) -> Cost:
        """What scoring that many images should cost: metered on one image, and again when a map changes its size."""
        key = self._key(1)
        if key not in self._score_flop:
            tally = Tally()
            with restored(self.model), tally.counting("pass"):
                self.model.eval()
                self._forward_one()
            key = self._key(1)
            self._score_flop[key] = tally.flop
            self._estimating += tally.flop
        return Cost(self._score_flop[key] * images, self._seconds["image"] * images)

    def charge_estimates(self) -> None:
        """Charge the passes that told what scoring would cost: one at least, for a training that goes on from another,
        which knows already, costs as much as that one."""
        one = self.score_cost(1).flop
        self._tally.flop += max(self._estimating, one)
        self._estimating = 0.0

    def weigh_inference(self) -> Metered:
        """FLOP and peak bytes of one image's forward pass; charged with those that will measure its latency."""
        with restored(self.model), Meter() as meter:
            self.model.eval()
            self._forward_one()
        self._tally.flop += (1 + LATENCY_PASSES) * meter.flop
        return meter.metered

    def pictures(self, split: Split) -> Pictures:
        """What the network makes of a few images, for the report."""
        with restored(self.model), torch.no_grad(), self._passes(split):
            self.model.eval()
            return self.task.pictures(self.model, split, self._device)

    def _check_weights(self) -> None:
        """Raise a TrialError where a loss or a weight is not finite."""
        self.check_losses()
        weights = [parameter for parameter in self.model.parameters() if parameter.is_floating_point()]
        if weights and not bool(torch.stack([weight.isfinite().all() for weight in weights]).all()):
            raise TrialError("a weight is not finite: training diverged; lower its rate.")

    def f_values(self) -> dict[str, float]:
        """Return the inflation factor of every inflated path."""
        return {path: on_host(factor.f)[0] for path, factor in self.learnable.factors.items()}

    def gamma_values(self) -> dict[str, float]:
        """Return the sample stride of every LS-DFN block, px."""
        return {path: on_host(stride.gamma)[0] for path, stride in self.learnable.strides.items()}

    def dilation_values(self) -> dict[str, float]:
        """Return the dilation, px, of every path whose dilation training finds."""
        found: dict[str, float] = dict(self._prelude.best) if self._prelude else {}
        found |= {path: layer.value for path, layer in self._moving.items()}
        for path, layer in self.learnable.layers.items():
            if (dilation := found_dilation(layer)) is not None:
                found[path] = dilation
        return found

    def learned_values(self) -> dict[str, float]:
        """Return the f, gamma or dilation of every path whose training moves it."""
        moved = {path: on_host(_value_of(scalar))[0] for path, scalar in self._learned.items()}
        return moved | self.dilation_values()

    def state(self) -> dict[str, Any]:
        """Everything a training needs to go on as if it had never stopped."""
        random_state = {"cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            random_state["cuda"] = torch.cuda.get_rng_state(self._device)
        self._stand()
        names = {module: name for name, module in self.model.named_modules()}
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "random": random_state,
            "costs": {"step": dict(self._step_flop), "score": dict(self._score_flop)},
            "map_sizes": {names[layer]: list(size) for layer, size in self._map_sizes.items()},
        }
        if self._prelude and self._average:
            state |= {"prelude": self._prelude.state(), "average": self._average.state(), "moves": bool(self._moving)}
        return state

    def load_state(self, state: Mapping[str, Any], step_flop: float) -> None:
        """Go on from what `state` gave. step_flop: what a step had cost then, until the next one is metered."""
        self._last_flop = step_flop
        if self._prelude and self._average:
            self._prelude.load_state(state["prelude"])
            self._average.load_state(state["average"])
            if state.get("moves"):
                self._stand()
                self._let_move()
        costs = state.get("costs", {})  # those of an older version are metered again
        self._step_flop.update(costs.get("step", {}))
        self._score_flop.update(costs.get("score", {}))
        sizes = state.get("map_sizes", {})
        for name, layer in self.model.named_modules():
            if isinstance(layer, Inflation | Interpolation) and name in sizes:
                self._map_sizes[layer] = tuple(sizes[name])
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"]["cpu"].cpu())
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state["random"]["cuda"].cpu(), self._device)

    def _find(self, step: int) -> None:
        """Set the dilations of this step, after a look at the end of the prelude."""
        assert self._prelude
        assert self._average

        def score(dilations: Mapping[str, int]) -> float:
            self._dilate(dilations)
            with self._passes(images):
                found = self.task.evaluate(self.model, images, self._recipe.batch_size, self._device).primary
            return merit(found, self.task.direction) if math.isfinite(found) else -math.inf

        if self._prelude.sharing(step):
            self._tally.flop += self._average.update()
        if self._prelude.due(step):
            images = held_out(self._data, self._recipe)
            with self._average.shown():
                self._prelude.look(step, score)
        self._dilate(self._prelude.at(step))
        if step == self._prelude.over:
            self._let_move()

    def _let_move(self) -> None:
        """From here on the gradient may move the dilations that were found, between the space's smallest and largest.
        No gradient sees farther than a pixel, so it needs a start that near."""
        self._moving = self.learnable.let_move(self.model, self._dilation_bounds)
        if self._moving:
            moved = [layer.log_dilation for layer in self._moving.values()]
            self._optimizer.add_param_group({"params": moved, "multiplier": 1.0, "weight_decay": 0.0})
            prime_momentum(self._optimizer)

    def settle(self) -> None:
        """Plain convolutions again where the dilation has become a whole number."""
        for path, layer in list(self._moving.items()):
            if layer.value.is_integer():
                conv, _ = self.learnable.dilations[path].parts[0]
                set_dilation(conv, int(layer.value))
                self.model.set_submodule(self.learnable.modules[path], conv)
                assert self._prelude
                self._prelude.best[path] = int(layer.value)
                del self._moving[path]

    def _advance(self, step: int) -> None:
        """Let the layers in the place of convolutions change before a step."""
        with torch.no_grad(), self._tally.counting("advance"):
            for layer in self.learnable.layers.values():
                if isinstance(layer, Advancing):
                    layer.advance(step, self.steps)

    def _stand(self) -> None:
        """Set the dilations that are best so far, where training is still trying others."""
        if self._prelude:
            self._dilate(self._prelude.best)

    def _dilate(self, dilations: Mapping[str, int]) -> None:
        for path, dilation in dilations.items():
            if path not in self._moving:
                self.learnable.dilations[path].set(dilation)

    def _optimise(self, images: Tensor, target: object) -> Tensor:
        self._optimizer.zero_grad(set_to_none=True)
        with guided(self.model, self.task.class_ids(target)), self._tally.counting("step"):
            loss = self.task.loss(self.model(images), target)
            self._tally.backward(loss)
        parameters = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        self._tally.repeated(tuple([parameter.grad is None for parameter in parameters]), self._update)
        return loss.detach()

    def _update(self) -> None:
        """Move the weights along their gradients."""
        clip = self._recipe.f_clip
        for scalar in self._learned.values():
            grad = _value_of(scalar).grad
            if clip is not None and grad is not None:
                grad.clamp_(-clip, clip)
        self._optimizer.step()
        for layer in (*self._learned.values(), *self._moving.values()):
            layer.project_()

    def _forward_one(self) -> None:
        with torch.no_grad():
            self.model(torch.zeros(*self._data.input_shape, device=self._device))

    def _set_rates(self, step: int) -> None:
        """The recipe's learning rate at this step, and whether f may move yet."""
        recipe = self._recipe
        rate = recipe.rate(step - self.prelude if step >= self.prelude else step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["multiplier"]
        moving = step - self.prelude >= recipe.f_delay * recipe.steps
        for scalar in self._learned.values():
            _value_of(scalar).requires_grad_(moving)

    def _key(self, batch: int) -> str:
        """What the cost of a pass should depend on, beside what its control flow decides: its batch, what inflations,
        interpolations and the layers in the place of convolutions say, how far every LS-DFN block reads, which of its
        places lie between pixels and whether gamma is learned."""
        sizes: list[Hashable] = [batch]
        layers = (*self.learnable.layers.values(), *self._moving.values())
        sizes += [layer.work for layer in layers if isinstance(layer, Changing)]
        for block in self._blocks:
            sizes += [block.work, int(block.stride.gamma.requires_grad)]
        for resampling, size in self._map_sizes.items():
            sizes += resampling.work(size)
        return repr(sizes)

    def _note_map(self, layer: nn.Module, args: tuple[Any, ...]) -> None:
        """The size of the map that a layer inflates, or that it interpolates to."""
        assert isinstance(layer, Inflation | Interpolation)
        self._map_sizes[layer] = tuple(args[0].shape[2:] if isinstance(layer, Inflation) else args[1])


def built(space: Space, data: ImageSet, candidate: Candidate) -> tuple[nn.Module, Learnable]:
    """The space's network with its weights loaded and the candidate's receptive field set, and what it can learn."""
    task = task_of(space, data)
    model = plugins.make_backbone(space.backbone, task.out_channels, task.in_channels)
    give_sizes(model, data.input_shape)
    if space.weights != "none":
        loaded, said = load_imagenet_vgg16(model, space.weights)
        if not loaded:
            raise ModelError(f"The run started from trained weights that are not to be had here. {said}")
    elif space.recipe.low_centre:
        low_centre_(model)
    return model, install(model, candidate, settings_of(space, data.classes))


def build_model(space: Space, data: ImageSet, candidate: Candidate) -> nn.Module:
    """The space's network with its weights loaded and the candidate's receptive field set."""
    return built(space, data, candidate)[0]


@dataclass(frozen=True)
class Fields:
    """Receptive fields of a built model. rf_px: of a unit of its output, what it reads by itself where it also sees the
    whole image. path_rf_px: behind the convolution of each path, where paths are parallel. seen: a fingerprint of which
    part of the image every unit reads, of the output and of every site's map."""

    rf_px: int
    path_rf_px: dict[str, int]
    seen: str


def fields_of(
    model: nn.Module, learnable: Learnable, candidate: Candidate, input_shape: tuple[int, int, int, int]
) -> Fields:
    """The receptive fields of a model that holds a candidate."""
    fields = receptive_fields(model, input_shape)
    parallel = {site for site, choice in candidate.choices if not isinstance(choice, Choice)}
    parts = {path: module for path, module in learnable.modules.items() if path.rpartition("/")[0] in parallel}
    seen = hashlib.sha256()
    for module in ("", *learnable.modules.values()):
        for axis in fields[module].axes:
            seen.update(np.clip(axis.windows, 0, axis.image_px - 1).round(3).tobytes())
    output = fields[""]
    rf_px = output.local_px or output.px
    return Fields(rf_px, {path: fields[module].px for path, module in parts.items()}, seen.hexdigest())


def settings_of(space: Space, classes: tuple[str, ...]) -> Settings:
    """What surgery needs of a space and of the names of its data's classes."""
    return Settings(
        f_bounds=space.f_bounds,
        normalisation=space.recipe.normalisation,
        classes=classes,
        guidance_weight=space.recipe.guidance_weight,
        f_background=space.recipe.f_background,
        sampling=space.sampling,
        dilations=space.dilations,
    )


def _value_of(scalar: InflationFactor | SampleStride) -> nn.Parameter:
    return scalar.f if isinstance(scalar, InflationFactor) else scalar.gamma


def augment_of(recipe: Recipe) -> Augment:
    return Augment(
        flip=recipe.flip,
        scale=recipe.scale,
        shift=recipe.shift,
        brightness=recipe.brightness,
        contrast=recipe.contrast,
    )


def _optimizer(
    model: nn.Module,
    learned: Collection[InflationFactor | SampleStride],
    undecayed: Sequence[nn.Parameter],
    space: Space,
) -> torch.optim.SGD:
    """Stochastic gradient descent; a learned f or gamma has its own rate and no weight decay, trained weights their own
    rate, what a layer says no weight decay."""
    recipe = space.recipe
    kinds = {id(_value_of(scalar)): "f" if isinstance(scalar, InflationFactor) else "gamma" for scalar in learned}
    kinds |= {id(parameter): "undecayed" for parameter in undecayed}
    groups: dict[str, list[nn.Parameter]] = {"new": [], "trained": [], "f": [], "gamma": [], "undecayed": []}
    for name, parameter in model.named_parameters():
        if id(parameter) in kinds:
            groups[kinds[id(parameter)]].append(parameter)
        elif space.weights != "none" and name.startswith("features."):
            groups["trained"].append(parameter)
        elif parameter.requires_grad:
            groups["new"].append(parameter)
    multipliers = {"new": 1.0, "trained": recipe.pretrained_lr_multiplier, "f": recipe.f_lr_multiplier}
    multipliers |= {"gamma": recipe.gamma_lr_multiplier, "undecayed": 1.0}
    optimizer = torch.optim.SGD(
        [
            {
                "params": parameters,
                "multiplier": multipliers[kind],
                "weight_decay": 0.0 if kind in ("f", "gamma", "undecayed") else recipe.weight_decay,
            }
            for kind, parameters in groups.items()
            if parameters
        ],
        lr=recipe.lr,
        momentum=recipe.momentum,
    )
    prime_momentum(optimizer)
    return optimizer


def prime_momentum(optimizer: torch.optim.SGD) -> None:
    """Make the momentum of every parameter that has none yet, zero, now: the first step then costs what every other one
    does."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
