"""What a full training should cost, before anything is trained.

FLOP and memory are counted by sending shapes, not numbers, through the very training step that will run (torch's
`meta` device). A task whose costs depend on values is counted on a few real steps and images instead. Time is FLOP
divided by the rate that a few real steps of the reference candidate reach here.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from rfsearch.choices import Candidate
from rfsearch.data import ImageSet
from rfsearch.errors import ModelError, RfsearchError, TrialError
from rfsearch.layers import InflationFactor, SampleStride, guided
from rfsearch.ledger import Cost
from rfsearch.planning.forecast import Forecast
from rfsearch.receptive.call import explain_precision
from rfsearch.space import Space
from rfsearch.surgery.shapes import OnShapes
from rfsearch.tasks.base import Task
from rfsearch.training.batches import training_batches, training_size
from rfsearch.training.dilation_search import bounds_of, decided_from, held_out, looked_at, prelude_steps, starts_of
from rfsearch.training.evaluation import weighed_images
from rfsearch.training.latency import charged_passes
from rfsearch.training.loop import TrainingLoop
from rfsearch.training.meter import Meter, held_bytes
from rfsearch.training.network import Built, build_network, fields_of
from rfsearch.training.optimisers import STATE_COPIES, clip_gradients, make_optimizer
from rfsearch.training.tally import Tally
from rfsearch.training.training import scored_at_the_end
from rfsearch.untouched import untouched

# Real steps and images that are counted where costs depend on values.
_COUNTED_STEPS, _COUNTED_IMAGES = 2, 4
_TIMED_STEPS = 3
_TIMED_S = 10.0  # after that many seconds, what has been timed must do


@dataclass(frozen=True)
class _Pass:
    """Hold the cost of one pass: FLOP, and peak memory in bytes."""

    flop: float
    peak_bytes: int


class Forecaster:
    """Forecast full trainings of one space on one data set; each candidate is counted once.

    A learned f is forecast as if it stayed at its start.

    Args:
        space: The space.
        task: Its task.
        data: Its data.
        device: What trials train on.
        flop_per_s: Rate of one worker; None measures it at the first forecast.

    Example:
        forecaster = Forecaster(space, task, data, torch.device("cpu"))
        forecaster(space.reference_candidate).cost.flop
    """

    def __init__(
        self,
        space: Space,
        task: Task[object],
        data: ImageSet,
        device: torch.device,
        flop_per_s: float | None = None,
    ) -> None:
        """Begin with nothing counted."""
        self._space, self._task, self._data, self._device = space, task, data, device
        self._rate = flop_per_s
        self._known: dict[Candidate, Forecast] = {}
        self._passes: dict[tuple[Candidate, bool, bool], _Pass] = {}

    @property
    def flop_per_s(self) -> float:
        """FLOP per second of one worker in training."""
        if self._rate is None:
            with self._blaming(self._space.reference_candidate):
                self._rate = self._measured_rate()
        return self._rate

    def reference_flop(self) -> float:
        """Return the budget unit 1x: FLOP of all steps of one full training of the reference candidate.

        Its evaluations are left out.
        """
        return self._pass(self._space.reference_candidate, training=True).flop * self._space.recipe.steps

    def step_bytes(self, candidate: Candidate) -> int:
        """Return the peak memory of one training step, in bytes; nothing of it is allocated."""
        return self._pass(candidate, training=True).peak_bytes

    def __call__(self, candidate: Candidate) -> Forecast:
        """Return the forecast of a candidate's full training.

        Raises:
            ModelError: The network fails with this candidate.
        """
        if candidate not in self._known:
            self._known[candidate] = self._forecast(candidate)
        return self._known[candidate]

    def _forecast(self, candidate: Candidate) -> Forecast:
        recipe, splits = self._space.recipe, self._data.splits
        step = self._pass(candidate, training=True)
        image = self._pass(candidate, training=False)
        searched = len(candidate.searched)
        model, learnable, _ = self._built(candidate)
        looks = min(recipe.rung_images, len(splits["val"])) * (len(recipe.rung_steps()) - 1)
        looks += len(recipe.rung_steps()) - 1 + bool(learnable.dilations)  # again when dilations begin to move
        looks += len(held_out(self._data, recipe)) * looked_at(len(self._space.dilations), searched)
        weighed, timing = weighed_images(self._task, self._data), charged_passes(self._space.costs)
        # And at every look one, to know what scoring costs.
        scored = scored_at_the_end(self._data, weighed, timing) + weighed
        epoch = recipe.batch_size / len(splits["train"])  # a step, in epochs
        fields = fields_of(model, learnable, candidate, self._data.input_shape)
        steps = recipe.steps + prelude_steps(recipe, candidate)
        moved = steps - decided_from(recipe, candidate) if learnable.dilations else 0
        moving = self._pass(candidate, training=True, moving=True) if moved else step
        train = step.flop * (steps - moved) + moving.flop * moved
        whole = self._cost(train + image.flop * (scored + looks), epoch * steps)
        least = self._cost(step.flop + image.flop * scored, epoch)
        longest = self._longest_stretch(candidate)
        stretch = self._cost(max(step.flop, moving.flop) * longest + image.flop * looks, epoch * longest)
        peak_bytes = max(step.peak_bytes, moving.peak_bytes)
        return Forecast(
            whole,
            least,
            stretch,
            peak_bytes,
            fields.rf_px,
            fields.path_rf_px,
            fields.seen,
            self._cost(step.flop, epoch),
        )

    def _longest_stretch(self, candidate: Candidate) -> int:
        """Return the most steps from one rung to the next; what comes before a training comes before its first rung."""
        recipe = self._space.recipe
        before = prelude_steps(recipe, candidate)
        ends = [0, *(before + step for step in recipe.rung_steps())]
        return max(end - start for start, end in pairwise(ends))

    def _cost(self, flop: float, epochs: float) -> Cost:
        return Cost(flop, flop / self.flop_per_s, epochs)

    @contextmanager
    def _blaming(self, candidate: Candidate) -> Iterator[None]:
        """Turn what a user's network raises here into one message."""
        try:
            yield
        except RfsearchError:
            raise
        except Exception as error:
            if "more than 1 value per channel when training" in str(error) and self._space.recipe.batch_size == 1:
                raise ModelError(
                    f"backbone {self._space.backbone} normalises a map of 1 x 1 px by the statistics of its batch, "
                    "which one image does not have: it cannot be trained with batch_size = 1. Smallest: batch_size = 2."
                ) from error
            model = self._built(candidate).model
            why = explain_precision(model, error) or f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
            raise ModelError(
                f"backbone {self._space.backbone} fails at {candidate} before anything is trained: {why}"
            ) from error

    def _pass(self, candidate: Candidate, training: bool, moving: bool = False) -> _Pass:
        key = (candidate, training, moving)
        if key not in self._passes:
            with self._blaming(candidate):
                self._passes[key] = self._counted(*key)
        return self._passes[key]

    def _counted(self, candidate: Candidate, training: bool, moving: bool) -> _Pass:
        """Count one training step, or the forward pass of one image in evaluation, on shapes alone if the task allows.

        Args:
            candidate: What is trained.
            training: Whether to count a training step.
            moving: Count it as of when the dilations that were found are learned, between two pixels.
        """
        model, learnable, _ = self._built(candidate)
        if moving:
            low, high = bounds_of(self._space.dilations, starts_of(learnable, candidate))
            for layer in learnable.let_move(model, (low, high + 1)).values():
                layer.log_dilation.data = (layer.dilation.detach() + 0.5).log()
        if model.training != training:
            model.train(training)
        if not self._task.by_shapes:
            return self._step_on_values(model) if training else self._image_on_values(model)
        model = shapes_only(model)
        batch = self._space.recipe.batch_size if training else 1
        size = training_size(self._space.recipe, self._data) if training else self._data.image_size
        images = torch.zeros(batch, self._data.in_channels, *size, device="meta")
        target = self._cropped(self._task.empty_target(batch, images.device), size)
        if not training:
            with untouched(model), torch.no_grad(), Meter() as meter, OnShapes():  # type: ignore[no-untyped-call]
                output = model(images)
            self._check(output, batch)
            return _Pass(meter.metered.flop, meter.metered.peak_bytes + held_bytes(model))
        return self._step(model, [p for p in model.parameters() if p.is_meta], images, target)

    def _step(self, model: nn.Module, weights: list[nn.Parameter], images: Tensor, target: object) -> _Pass:
        """Count one training step on a batch."""
        recipe = self._space.recipe
        optimizer = make_optimizer(recipe, weights)
        with untouched(model), Meter() as meter, OnShapes(), guided(model, self._task.class_ids(target)):  # type: ignore[no-untyped-call]
            output = model(images)
            self._check(output, len(images))
            self._task.loss(output, target).backward()
            clip_gradients(recipe, weights)
            optimizer.step()
        copies = 1 + STATE_COPIES[recipe.optimizer]
        batch_bytes = sum(leaf.nbytes for leaf in tree_leaves((images, target)) if isinstance(leaf, Tensor))
        return _Pass(meter.metered.flop, meter.metered.peak_bytes + held_bytes(model, copies) + batch_bytes)

    def _step_on_values(self, model: nn.Module) -> _Pass:
        """Count real steps on the first batches: the mean of their FLOP, and the highest of their peaks."""
        model.to(self._device)
        batches = training_batches(self._space.recipe, self._data, self._task, 0, self._device)
        weights = [p for p in model.parameters() if p.requires_grad]
        with self._same_random_numbers():
            steps = [self._step(model, weights, *batches.at(number)) for number in range(_COUNTED_STEPS)]
        return _Pass(statistics.fmean(one.flop for one in steps), max(one.peak_bytes for one in steps))

    def _image_on_values(self, model: nn.Module) -> _Pass:
        """Count the passes in which the task scores real images."""
        model.to(self._device)
        images, tally, outputs = self._data.splits["val"].some(_COUNTED_IMAGES), Tally(), list[object]()
        passes, undefined = tally.passes(model, outputs.append), suppress(TrialError)  # of images without a score
        with untouched(model), self._same_random_numbers(), Meter() as meter, passes as costs, undefined:
            self._task.evaluate(model, images, 1, self._device)
        self._check(outputs[0], 1)
        return _Pass(statistics.fmean(costs), meter.metered.peak_bytes + held_bytes(model))

    def _cropped(self, target: object, size: tuple[int, int]) -> object:
        """Return a target as large as the windows of images that a training step sees."""

        def crop(leaf: Any) -> Any:
            maps = isinstance(leaf, Tensor) and tuple(leaf.shape[-2:]) == self._data.image_size
            return leaf[..., : size[0], : size[1]] if maps else leaf

        return tree_map(crop, target)

    def _built(self, candidate: Candidate) -> Built:
        """Build a network whose weights do not matter, or are always the same where they do."""
        with self._same_random_numbers():
            return build_network(self._space.with_(weights="none"), self._task, self._data, candidate)

    @contextmanager
    def _same_random_numbers(self) -> Iterator[None]:
        """Draw the same random numbers inside every time, and leave those outside as they are."""
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(0)
            yield

    def _check(self, output: Any, batch: int) -> None:
        self._task.check_output(output, batch, self._space.backbone)

    def _measured_rate(self) -> float:
        """Return FLOP per second over a few real steps, without the first one, which warms caches and counts."""
        loop = TrainingLoop(self._space, self._data, self._space.reference_candidate, seed=0, device=self._device)
        rates: list[float] = []
        began = time.perf_counter()
        for step in range(_TIMED_STEPS + 1):
            started = time.perf_counter()
            flop = loop.train_step(step % self._space.recipe.steps)  # a recipe may be shorter than what is timed
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            slow = time.perf_counter() - began > _TIMED_S
            if step or slow:
                rates.append(flop / (time.perf_counter() - started))
            if slow:
                break
        if self._device.type == "cuda":
            del loop
            torch.cuda.empty_cache()
        return statistics.median(rates)


def shapes_only(model: nn.Module) -> nn.Module:
    """Move a model to the `meta` device, its inflation factors and sample strides aside: sizes depend on them."""
    values = [(m, m.f.item(), m.bounds.clone()) for m in model.modules() if isinstance(m, InflationFactor)]
    strides = [(m, m.gamma.item(), m.bounds.clone()) for m in model.modules() if isinstance(m, SampleStride)]
    model = model.to("meta")
    for factor, value, bounds in values:
        factor.f = nn.Parameter(torch.tensor(value), requires_grad=False)
        factor.bounds = bounds
    for stride, value, bounds in strides:
        stride.gamma = nn.Parameter(torch.tensor(value), requires_grad=stride.learned)
        stride.bounds = bounds
    return model
