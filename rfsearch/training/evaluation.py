"""Passes of a network in training that teach it nothing: scores, pictures and weighing, and what each costs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rfsearch.data import ImageSet, Split
from rfsearch.direction import merit
from rfsearch.errors import TrialError
from rfsearch.ledger import Cost
from rfsearch.space import Recipe
from rfsearch.tasks.base import Scores, Task
from rfsearch.tasks.pictures import Pictures
from rfsearch.training.meter import Meter, Metered
from rfsearch.training.step_costs import StepCosts
from rfsearch.training.tally import Tally
from rfsearch.untouched import restored

# Images whose passes say what one costs, where that depends on values.
_WEIGHED_IMAGES = 4


def weighed_images(task: Task[object], data: ImageSet) -> int:
    """Return how many images say what a pass of one costs."""
    return 1 if task.by_shapes else min(_WEIGHED_IMAGES, len(data.splits["val"]))


def check_weights(model: nn.Module) -> None:
    """Check that training has not diverged.

    Raises:
        TrialError: A weight is not finite.
    """
    weights = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    if weights and not bool(torch.stack([weight.isfinite().all() for weight in weights]).all()):
        raise TrialError("a weight is not finite: training diverged; lower its rate.")


class Evaluation:
    """Score a network, and meter what that costs.

    Args:
        model: The network, left as it was by every method.
        task: What it is scored for.
        data: Its images.
        recipe: The sizes of batches.
        device: Where it runs.
        tally: Is charged with every pass.
        costs: What passes have cost so far.
        image_kind: Describes the pass of one image, as the network is now.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task[object],
        data: ImageSet,
        recipe: Recipe,
        device: torch.device,
        tally: Tally,
        costs: StepCosts,
        image_kind: Callable[[], str],
    ) -> None:
        """Measure nothing yet."""
        self._model, self._task, self._data, self._recipe, self._device = model, task, data, recipe, device
        self._tally, self._costs, self._image_kind = tally, costs, image_kind
        self.estimating = 0.0
        """FLOP of the passes that showed what scoring would cost, not charged yet."""

    def score(self, split: Split) -> tuple[Scores, float]:
        """Score the present weights on a split; returns the scores and the FLOP of finding them.

        Raises:
            TrialError: Training has diverged: a weight is not finite, or the network gives no numbers any more.
        """
        check_weights(self._model)
        before = self._tally.flop
        with restored(self._model), torch.no_grad(), self._passes(split):
            self._model.eval()
            started = time.perf_counter()
            scores = self._task.evaluate(self._model, split, self._recipe.eval_batch_size, self._device)
            self._costs.image_s = (time.perf_counter() - started) / len(split)
        return scores, self._tally.flop - before

    def merit(self, split: Split) -> float:
        """Return how good the network is on a split, in the mode that it is in; the worst where that is undefined."""
        with self._passes(split):
            score = self._task.evaluate(self._model, split, self._recipe.batch_size, self._device).primary
        return merit(score, self._task.direction) if math.isfinite(score) else -math.inf

    def cost(self, images: int) -> Cost:
        """Return what scoring that many images should cost.

        It is metered on one image, and again when a map changes its size.
        """
        kind = self._image_kind()
        if self._costs.image(kind) is None:
            tally = Tally()
            with restored(self._model), tally.counting("pass"):
                self._model.eval()
                images_sent = self._forward_some()
            kind = self._image_kind()
            self._costs.add_image(kind, tally.flop / images_sent)
            self.estimating += tally.flop
        return Cost((self._costs.image(kind) or 0.0) * images, self._costs.image_s * images)

    def charge_estimates(self) -> None:
        """Charge the passes that showed what scoring would cost.

        One pass is charged at least: a training that goes on from another, which knows already, costs as much.
        """
        one = self.cost(1).flop
        self._tally.flop += max(self.estimating, one)
        self.estimating = 0.0

    def weigh(self, timing: int) -> Metered:
        """Return FLOP and peak bytes of one image's pass.

        Args:
            timing: Number of passes that measure its latency; they are charged here too.
        """
        with restored(self._model), Meter() as meter:
            self._model.eval()
            sent = self._forward_some()
        self._tally.flop += (sent + timing) * meter.flop / sent
        return Metered(meter.flop / sent, meter.metered.peak_bytes)

    def pictures(self, split: Split) -> Pictures:
        """Return what the network makes of a few images, for the report."""
        with restored(self._model), torch.no_grad(), self._passes(split):
            self._model.eval()
            return self._task.pictures(self._model, split, self._device)

    @contextmanager
    def _passes(self, split: Split) -> Iterator[None]:
        """Count the passes of the model over a split, and raise a TrialError where what it gives is not a number."""
        nan: list[Tensor] = []

        def watch(output: object) -> None:
            given = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
            nan.extend(leaf.isnan().any() for leaf in given)

        with self._tally.passes(self._model, watch) as costs:
            yield
        if costs and not self._task.by_shapes:  # what comes next may cost as much as the dearest so far
            kind = self._image_kind()
            self._costs.add_image(kind, max(self._costs.image(kind) or 0.0, sum(costs) / len(split)))
        if not costs:  # a task that takes the model apart
            self._tally.flop += self.cost(len(split)).flop
        if nan and bool(torch.stack(nan).any()):
            raise TrialError("the trained network gives NaN: its training diverged; lower its rate.")

    def _forward_some(self) -> int:
        """Send an empty image through, or some of validation where costs depend on values; returns how many."""
        if self._task.by_shapes:
            with torch.no_grad():
                self._model(torch.zeros(*self._data.input_shape, device=self._device))
            return 1
        some = self._data.splits["val"].some(weighed_images(self._task, self._data))
        with suppress(TrialError):  # of images that define no score
            self._task.evaluate(self._model, some, 1, self._device)
        return len(some)
