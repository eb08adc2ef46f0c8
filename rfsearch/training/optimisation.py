"""One optimiser step after another: parameter groups with rates of their own, gradients, clipping and bounds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rfsearch.layers import FractionalConv2d, InflationFactor, SampleStride, guided
from rfsearch.space import Recipe
from rfsearch.tasks.base import Task
from rfsearch.training.optimisers import clip_gradients, make_optimizer, prime
from rfsearch.training.relative import RelativeSteps
from rfsearch.training.schedule import learning_rate, relative_step

Scalar = InflationFactor | SampleStride


def value_of(scalar: Scalar) -> nn.Parameter:
    """Return the parameter of an inflation factor, f, or of a sample stride, gamma."""
    return scalar.f if isinstance(scalar, InflationFactor) else scalar.gamma


class Optimisation:
    """Move a network's weights along the gradient of its task's loss, as a recipe says.

    A learned f, gamma or dilation takes relative steps, or has its own rate and no weight
    decay; weights that a backbone brings trained have their own rate.

    Args:
        model: The network.
        task: Gives the loss.
        recipe: Rates, momentum, weight decay and schedule.
        trained: Parameters that came with trained weights.
        learned: The inflation factors and sample strides that training moves.
        undecayed: Parameters without weight decay.

    Attributes:
        optimizer: Moves the weights.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task[object],
        recipe: Recipe,
        trained: Iterable[nn.Parameter] = (),
        learned: Collection[Scalar] = (),
        undecayed: Sequence[nn.Parameter] = (),
    ) -> None:
        """Sort the parameters into groups with rates of their own."""
        self._model, self._task, self._recipe, self._learned = model, task, recipe, learned
        self._dilations: list[FractionalConv2d] = []
        kinds = {id(value_of(scalar)): "f" if isinstance(scalar, InflationFactor) else "gamma" for scalar in learned}
        if recipe.f_step:
            kinds = dict.fromkeys(kinds, "relative")
        kinds |= {id(parameter): "undecayed" for parameter in undecayed}
        names = ("new", "trained", "f", "gamma", "undecayed", "relative")
        groups: dict[str, list[nn.Parameter]] = {name: [] for name in names}
        before = {id(parameter) for parameter in trained}
        for parameter in model.parameters():
            if id(parameter) in kinds:
                groups[kinds[id(parameter)]].append(parameter)
            elif id(parameter) in before:
                groups["trained"].append(parameter)
            elif parameter.requires_grad:
                groups["new"].append(parameter)
        multipliers = {"new": 1.0, "trained": recipe.pretrained_lr_multiplier, "f": recipe.f_lr_multiplier}
        multipliers |= {"gamma": recipe.gamma_lr_multiplier, "undecayed": 1.0}
        relative = groups.pop("relative")
        self._relative = RelativeSteps([{"params": relative}], recipe.f_step) if recipe.f_step else None
        self._weights = [p for kind in ("new", "trained", "undecayed") for p in groups[kind]]
        self.optimizer = make_optimizer(
            recipe,
            [
                {
                    "params": parameters,
                    "multiplier": multipliers[kind],
                    "weight_decay": 0.0 if kind in ("f", "gamma", "undecayed") else recipe.weight_decay,
                }
                for kind, parameters in groups.items()
                if parameters or kind == "new"  # which may be frozen, but no optimiser is without a group
            ],
        )

    def set_rates(self, step: int) -> None:
        """Give every group its rate at a step of the recipe."""
        rate = learning_rate(self._recipe, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["multiplier"]
        for group in self._relative.param_groups if self._relative else ():
            group["lr"] = relative_step(self._recipe, step)

    def free(self, moving: bool) -> None:
        """Let f and gamma move, or hold them for now."""
        for scalar in self._learned:
            value_of(scalar).requires_grad_(moving)

    def add_dilations(self, layers: Iterable[FractionalConv2d]) -> None:
        """Move real dilations too from now on, by relative steps or at the rate of weights, without weight decay."""
        self._dilations += layers
        moved = [layer.log_dilation for layer in self._dilations]
        if self._relative:
            self._relative.add_param_group({"params": moved, "logarithms": True})
            return
        self.optimizer.add_param_group({"params": moved, "multiplier": 1.0, "weight_decay": 0.0})
        prime(self.optimizer)

    def clear(self) -> None:
        """Forget the last batch's gradients."""
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)

    def find_gradients(
        self, images: Tensor, target: object, backward: Callable[[Tensor], None] = Tensor.backward
    ) -> Tensor:
        """Find the gradient of a batch's loss; returns the loss, detached.

        Args:
            images: B x C x H x W.
            target: As the task takes it.
            backward: Runs the backward pass of the loss.
        """
        with guided(self._model, self._task.class_ids(target)):
            with torch.autocast(images.device.type, torch.bfloat16, enabled=self._recipe.precision == "bf16"):
                loss = self._task.loss(self._model(images), target)
            backward(loss)
        return loss.detach()

    @property
    def work(self) -> Hashable:
        """What the cost of `move` depends on: which parameters have a gradient."""
        groups = [group for optimizer in self._optimizers for group in optimizer.param_groups]
        return tuple([parameter.grad is None for group in groups for parameter in group["params"]])

    def move(self) -> None:
        """Move the weights along their gradients, and f, gamma and dilations within their bounds."""
        clip = self._recipe.f_clip
        for scalar in self._learned:
            grad = value_of(scalar).grad
            if clip is not None and grad is not None:
                grad.clamp_(-clip, clip)
        clip_gradients(self._recipe, self._weights)
        for optimizer in self._optimizers:
            optimizer.step()
        for layer in (*self._learned, *self._dilations):
            layer.project_()

    def state(self) -> dict[str, object]:
        """Return the optimiser's state."""
        relative = {"relative": self._relative.state_dict()} if self._relative else {}
        return {**self.optimizer.state_dict(), **relative}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.optimizer.load_state_dict({key: state[key] for key in ("state", "param_groups")})
        if self._relative:
            self._relative.load_state_dict(state["relative"])

    @property
    def _optimizers(self) -> list[torch.optim.Optimizer]:
        return [self.optimizer, *([self._relative] if self._relative else [])]
