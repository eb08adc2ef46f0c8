"""The loop of one training: a network, taken one optimiser step after another, with the cost of each known."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rfsearch.choices import Candidate
from rfsearch.data import ImageSet, Split
from rfsearch.errors import TrialError
from rfsearch.layers.host import on_host
from rfsearch.ledger import Cost
from rfsearch.space import Space
from rfsearch.surgery import Advancing, Undecayed, found_dilation
from rfsearch.tasks.base import Scores
from rfsearch.tasks.from_space import task_of
from rfsearch.training.batches import training_batches
from rfsearch.training.dilation_search import DilationSearch, held_out, prelude_steps
from rfsearch.training.evaluation import Evaluation
from rfsearch.training.memory import PeakMemory
from rfsearch.training.network import build_network
from rfsearch.training.optimisation import Optimisation, Scalar, value_of
from rfsearch.training.random_states import random_state, set_random_state
from rfsearch.training.step_costs import StepCosts, Work
from rfsearch.training.tally import Tally

_NAN_CHECK_STEPS = 10


class TrainingLoop:
    """Train one candidate's network, a step at a time.

    Args:
        space: Its network, task and recipe.
        data: The images.
        candidate: What the network's sites get.
        seed: Decides the order of the images, their augmentation, and which dilations are tried when.
        device: Where it trains.
        memory: Measures the peak of a step's memory. None: nobody does.

    Attributes:
        model: The network.
        learnable: What training can move in it.
        prelude: Steps before the recipe's in which dilations are found.
        evaluation: Scores the network.
        optimisation: Moves its weights.
        search: Searches dilations on the way, None where none are to be found.
        train_peak_bytes: Measured peak memory of the dearest step.
    """

    def __init__(
        self,
        space: Space,
        data: ImageSet,
        candidate: Candidate,
        seed: int,
        device: torch.device,
        memory: PeakMemory | None = None,
    ) -> None:
        """Build the network and its optimiser."""
        self._recipe, self._data, self._device, self._memory = space.recipe, data, device, memory
        self.task = task_of(space, data)
        model, self.learnable, trained = build_network(space, self.task, data, candidate)
        self.model = model.to(device)
        scalars: dict[str, Scalar] = {**self.learnable.factors, **self.learnable.strides}
        self._learned = {path: scalar for path, scalar in scalars.items() if value_of(scalar).requires_grad}
        layers = self.learnable.layers.values()
        undecayed = [p for layer in layers if isinstance(layer, Undecayed) for p in layer.undecayed()]
        self.optimisation = Optimisation(
            self.model, self.task, space.recipe, trained, list(self._learned.values()), undecayed
        )
        self._batches = training_batches(space.recipe, data, self.task, seed, device)
        self._tally, self._costs, self._work = Tally(), StepCosts(), Work(self.model)
        self.evaluation = Evaluation(
            self.model,
            self.task,
            data,
            space.recipe,
            device,
            self._tally,
            self._costs,
            lambda: self._kind(1, training=False),
        )
        self.prelude = prelude_steps(space.recipe, candidate)
        self.search: DilationSearch | None = None
        if self.learnable.dilations:
            self.search = DilationSearch(
                self.model,
                self.learnable,
                candidate,
                space.dilations,
                data,
                space.recipe,
                seed,
                self.optimisation,
                self._tally,
                self.evaluation.merit,
            )
        self._unchecked: list[tuple[int, Tensor]] = []  # steps and their losses, not yet read from the device
        self._losses: list[float] = []
        if not self.model.training:  # what its maker left in evaluation inside a network in training stays so
            self.model.train()
        self.train_peak_bytes: int | None = None

    @property
    def steps(self) -> int:
        """Steps of the whole training: the recipe's, and before them those in which dilations are found."""
        return self.prelude + self._recipe.steps

    @property
    def flop(self) -> float:
        """What everything that this loop ran has cost so far, what failed included."""
        return self._tally.flop + self.evaluation.estimating

    def train_step(self, step: int) -> float:
        """Take one optimiser step on batch number `step`; returns its FLOP."""
        started, before = time.perf_counter(), self._tally.flop
        if self.search:
            self.search.before_step(step)
        if self.learnable.layers:
            self._advance(step)
        looked = self._tally.flop - before
        self._set_rates(step)
        images, target = self._batches.at(step)
        kind = self._kind(images.shape[0])
        self._unchecked.append((step, self._optimise(images, target)))
        flop = self._tally.flop - before - looked
        if self._costs.add_step(kind, flop):
            self.train_peak_bytes = self._memory.bytes() if self._memory else None
        self._costs.step_s = time.perf_counter() - started
        if (step + 1) % _NAN_CHECK_STEPS == 0 or step + 1 == self.steps:
            self.check_losses()
        return flop + looked

    def check_losses(self) -> None:
        """Read the losses of the last steps.

        On a GPU this waits for the steps that were started, which is why no step does it by itself.

        Raises:
            TrialError: Names the first step whose loss was not finite.
        """
        steps, self._unchecked = self._unchecked, []
        if not steps:
            return
        for (step, _), value in zip(steps, torch.stack([loss.reshape(()) for _, loss in steps]).tolist(), strict=True):
            if not math.isfinite(value):
                raise TrialError(f"the loss became {value} by step {step + 1}")
            self._losses.append(value)

    def mean_loss(self) -> float | None:
        """Return the mean loss of the steps since this was asked before; None where there were none."""
        self.check_losses()
        losses, self._losses = self._losses, []
        return sum(losses) / len(losses) if losses else None

    def score(self, split: Split) -> tuple[Scores, float]:
        """Score the present weights, at the dilations that are best so far; see `Evaluation.score`."""
        if self.search:
            self.search.show_best()
        self.check_losses()
        return self.evaluation.score(split)

    def step_cost(self) -> Cost:
        """Return what the next step should cost."""
        flop = self._costs.step(self._kind(self._recipe.batch_size))
        return Cost(flop, self._costs.step_s, self.epochs(1))

    def look_cost(self, step: int) -> Cost:
        """Return what is scored before a step so that dilations are found, as a cost."""
        looks = self.search.shared.looks(step) if self.search else 0
        return self.evaluation.cost(looks * len(held_out(self._data, self._recipe))) if looks else Cost()

    def epochs(self, steps: int) -> float:
        """Return how many passes over the training images that many steps are."""
        return self._batches.epochs(steps)

    def settle(self) -> None:
        """Put plain convolutions where a dilation has become a whole number, at the end of training."""
        if self.search:
            self.search.settle()

    def f_values(self) -> dict[str, float]:
        """Return the inflation factor of every inflated path."""
        return {path: on_host(factor.f)[0] for path, factor in self.learnable.factors.items()}

    def gamma_values(self) -> dict[str, float]:
        """Return the sample stride of every LS-DFN block, px of its map."""
        return {path: on_host(stride.gamma)[0] for path, stride in self.learnable.strides.items()}

    def dilation_values(self) -> dict[str, float]:
        """Return the dilation, px of its map, of every path whose dilation training finds or moves."""
        found = self.search.found() if self.search else {}
        for path, layer in self.learnable.layers.items():
            if (dilation := found_dilation(layer)) is not None:
                found[path] = dilation
        return found

    def learned_values(self) -> dict[str, float]:
        """Return the f, gamma or dilation of every path whose training moves it."""
        moved = {path: on_host(value_of(scalar))[0] for path, scalar in self._learned.items()}
        return moved | self.dilation_values()

    def state(self) -> dict[str, Any]:
        """Return everything that a training needs to go on as if it had never stopped."""
        if self.search:
            self.search.show_best()
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimisation.state(),
            "random": random_state(self._device),
            "costs": self._costs.state(),
            "map_sizes": self._work.state(),
            **(self.search.state() if self.search else {}),
        }

    def load_state(self, state: Mapping[str, Any], step_flop: float) -> None:
        """Go on from what `state` gave.

        Args:
            state: Of this version or an earlier one.
            step_flop: What a step had cost then, until the next one is metered.
        """
        self._costs.last_flop = step_flop
        if self.search:
            self.search.load_state(state)
        self._costs.load_state(state.get("costs", {}))
        self._work.load_state(state.get("map_sizes", {}))
        self.model.load_state_dict(state["model"])
        self.optimisation.load_state(state["optimizer"])
        set_random_state(state["random"], self._device)

    def _advance(self, step: int) -> None:
        """Let the layers in the place of convolutions change before a step."""
        with torch.no_grad(), self._tally.counting("advance"):
            for layer in self.learnable.layers.values():
                if isinstance(layer, Advancing):
                    layer.advance(step, self.steps)

    def _set_rates(self, step: int) -> None:
        """Set the recipe's learning rate at this step, and whether f and gamma may move yet."""
        self.optimisation.set_rates(step - self.prelude if step >= self.prelude else step)
        self.optimisation.free(step - self.prelude >= self._recipe.f_delay * self._recipe.steps)

    def _optimise(self, images: Tensor, target: object) -> Tensor:
        self.optimisation.clear()
        with self._tally.counting("step"):
            loss = self.optimisation.find_gradients(images, target, self._tally.backward)
        self._tally.repeated(self.optimisation.work, self.optimisation.move)
        return loss

    def _kind(self, batch: int, training: bool = True) -> str:
        """Describe a training step on that many images, or a pass in evaluation, as the network is now."""
        moving = self.search.moving.values() if self.search else ()
        return self._work.kind(batch, (*self.learnable.layers.values(), *moving), training)
