"""A training that searches its own dilations: first with weights that all dilations share, then along the gradient.

A dilation changes the shape of no weight and no map, so a network can be trained with another dilation at every step,
at the cost of one.

1. A prelude a quarter as long as a training does that. A look at held-out images then tells how well each dilation
   scores with those weights.
2. A full training follows, from them, which the best dilation shares with its two neighbours for a while, until a
   second look decides. Where the search starts does not matter, and no gradient has to see farther than a pixel.
3. What was found is near enough for one: from then on the dilation is a real number that training moves
   (`rfsearch.layers.FractionalConv2d`), wherever it is that of one convolution whose output keeps its size. Where a
   candidate gives a dilation to start from, training begins here.
4. In the end, a dilation that has become a whole number is that of a plain convolution again.

A look comes while the rate is still high, when two things shake a network: every step moves the weights about, and the
running statistics of batch normalisation lag behind them. So a look is at weights averaged over the last steps,
normalised by the statistics of the batch at hand: they show what the training has learned so far.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from rfsearch.choices import Candidate
from rfsearch.data import ImageSet, Split
from rfsearch.layers import FractionalConv2d
from rfsearch.space import Recipe
from rfsearch.surgery import Learnable, set_dilation
from rfsearch.training.optimisation import Optimisation
from rfsearch.training.tally import Tally
from rfsearch.untouched import restored

# Of a full training's steps: the prelude, and what of the training itself is still shared between neighbours. After the
# prelude alone, rendered faces look best at larger dilations than they do in the end.
_PRELUDE = 0.25
_SHARED = 0.15
# Of a training's steps, how many the averaged weights reach back over.
_REACH = 0.04


class DilationSearch:
    """Search the dilations of a training's paths on its way.

    Args:
        model: The network in training.
        learnable: What training can move in it; its `dilations` are those to find, or to move from where they are.
        candidate: What was built into it.
        dilations: What each path may get, px of its map.
        data: Its validation images are held out for the looks.
        recipe: Of the training.
        seed: Of the draws.
        optimisation: Moves the dilations that were found.
        tally: Is charged with the averaging of weights.
        merit: How good the network is on some images, as it stands; higher is better.
    """

    def __init__(
        self,
        model: nn.Module,
        learnable: Learnable,
        candidate: Candidate,
        dilations: Sequence[int],
        data: ImageSet,
        recipe: Recipe,
        seed: int,
        optimisation: Optimisation,
        tally: Tally,
        merit: Callable[[Split], float],
    ) -> None:
        """Begin with all dilations left on every path."""
        self._model, self._learnable, self._optimisation = model, learnable, optimisation
        self._tally, self._merit, self._data, self._recipe = tally, merit, data, recipe
        self._starts = starts_of(learnable, candidate)
        self._bounds = bounds_of(dilations, self._starts)
        self.shared = SharedDilations(candidate.searched, dilations, recipe.steps, seed)
        self._decided = decided_from(recipe, candidate)
        self._average = AveragedWeights(model, recipe.steps)
        self.moving: dict[str, FractionalConv2d] = {}
        """The layers whose dilation the gradient moves, by path."""

    def before_step(self, step: int) -> None:
        """Set the dilations of a step, after a look where one is due."""
        if self.shared.sharing(step):
            self._tally.flop += self._average.update()
        if self.shared.due(step):
            images = held_out(self._data, self._recipe)
            with self._average.shown():
                self.shared.look(step, lambda dilations: self._merit_of(dilations, images))
        self._dilate(self.shared.at(step))
        if step == self._decided:
            self._let_move()

    def show_best(self) -> None:
        """Set the dilations that are best so far, where training is still trying others."""
        self._dilate(self.shared.best)

    def found(self) -> dict[str, float]:
        """Return the dilation of every path that is searched or moved, the best so far, px of its map."""
        return {**self._starts, **self.shared.best, **{path: layer.value for path, layer in self.moving.items()}}

    def settle(self) -> None:
        """Put plain convolutions where the dilation has become a whole number."""
        for path, layer in list(self.moving.items()):
            if layer.value.is_integer():
                conv, _ = self._learnable.dilations[path].parts[0]
                set_dilation(conv, int(layer.value))
                self._model.set_submodule(self._learnable.modules[path], conv)
                self.shared.best[path] = int(layer.value)
                del self.moving[path]

    def state(self) -> dict[str, Any]:
        """Return what to go on from; the network's own state is apart."""
        return {"prelude": self.shared.state(), "average": self._average.state(), "moves": bool(self.moving)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave. Call it before the states of the network and of its optimisation are loaded."""
        self.shared.load_state(state["prelude"])
        self._average.load_state(state["average"])
        if state.get("moves"):
            self.show_best()
            self._let_move()

    def _merit_of(self, dilations: Mapping[str, int], images: Split) -> float:
        self._dilate(dilations)
        return self._merit(images)

    def _let_move(self) -> None:
        """Let the gradient move dilations from where they are, between the space's smallest and largest."""
        self.moving.update(self._learnable.let_move(self._model, self._bounds))
        if self.moving:
            self._optimisation.add_dilations(self.moving.values())

    def _dilate(self, dilations: Mapping[str, int]) -> None:
        for path, dilation in dilations.items():
            if path not in self.moving:
                self._learnable.dilations[path].set(dilation)


class SharedDilations:
    """Decide which dilations share the weights at each step, and which are left after each look.

    Args:
        paths: Of the candidate, those to search.
        dilations: What each may get.
        steps: Of a full training.
        seed: Of the draws.
    """

    def __init__(self, paths: Sequence[str], dilations: Sequence[int], steps: int, seed: int) -> None:
        """Begin with all dilations left on every path."""
        self._dilations, self._seed = sorted(dilations), seed
        self._looks = _share(_PRELUDE, steps), decided_step(steps)
        self._open = dict.fromkeys(paths, self._dilations)
        self.best = dict.fromkeys(paths, self._dilations[(len(self._dilations) - 1) // 2])
        """The dilations that scored best; before the first look, the middle of the space's."""

    def due(self, step: int) -> bool:
        """Return whether there is something to look at before a step."""
        return step in self._looks and self.sharing(step)

    def looks(self, step: int) -> int:
        """Return how many times held-out images are scored before a step."""
        return sum(len(found) for found in self._open.values() if len(found) > 1) if self.due(step) else 0

    def sharing(self, step: int) -> bool:
        """Return whether several dilations still share the weights that go into a step."""
        return step <= self._looks[-1] and any(len(dilations) > 1 for dilations in self._open.values())

    def at(self, step: int) -> dict[str, int]:
        """Return the dilations to train with at a step: any that are left, the same for the same step and seed."""
        chance = random.Random(f"{self._seed}/{step}")
        return {path: chance.choice(dilations) for path, dilations in self._open.items()}

    def look(self, step: int, merit: Callable[[Mapping[str, int]], float]) -> None:
        """Set each path to the dilation with the most merit, one after the other, the other paths at their best so far.

        Args:
            step: Before which the look is.
            merit: How good given dilations are on held-out images, with the weights as they are.
        """
        for path, dilations in self._open.items():
            found = {d: merit(self.best | {path: d}) for d in dilations} if len(dilations) > 1 else {dilations[0]: 0.0}
            best = self.best[path] = max(found, key=lambda dilation: found[dilation])
            place = self._dilations.index(best)
            near = self._dilations[max(0, place - 1) : place + 2] if step < self._looks[-1] else [best]
            self._open[path] = [dilation for dilation in dilations if dilation in near]

    def state(self) -> dict[str, Any]:
        """Return what to go on from."""
        return {"best": dict(self.best), "open": dict(self._open)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.best, self._open = dict(state["best"]), dict(state["open"])


class AveragedWeights:
    """Average a model's parameters over the last 4 % of a training of `steps` steps, exponentially."""

    def __init__(self, model: nn.Module, steps: int) -> None:
        """Begin with the weights as they are."""
        self._model, self._share = model, 1 / max(1.0, _REACH * steps)
        self._values = [parameter.detach().clone() for parameter in model.parameters()]

    @torch.no_grad()
    def update(self) -> float:
        """Take in the weights as they are; returns the FLOP of that."""
        for value, parameter in zip(self._values, self._model.parameters(), strict=True):
            value.lerp_(parameter, self._share)
        return 2.0 * sum(value.numel() for value in self._values)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Let the model hold the average, evaluate and normalise by the batch within; afterwards it is as before."""
        with restored(self._model):
            # What trains with its running statistics, as frozen ones do, goes on so.
            norms = [module for module in self._model.modules() if isinstance(module, _NormBase) and module.training]
            self._model.eval()
            for norm in norms:
                norm.momentum = 0.0
                norm.register_forward_pre_hook(_normalise_by_batch)
            with torch.no_grad():
                for parameter, value in zip(self._model.parameters(), self._values, strict=True):
                    parameter.copy_(value)
            yield

    def state(self) -> list[Tensor]:
        """Return the averages, in the order of the parameters."""
        return self._values

    def load_state(self, values: Sequence[Tensor]) -> None:
        """Go on from what `state` gave."""
        self._values = [value.clone() for value in values]


def _normalise_by_batch(norm: _NormBase, args: tuple[Any, ...]) -> None:
    """Let a layer normalise by the map at hand.

    It uses its running statistics where that has one value per channel, as a globally pooled map of one image has.
    """
    shape = args[0].shape
    values = math.prod(shape[2:]) * (shape[0] if isinstance(norm, _BatchNorm) else 1)
    norm.train(values > 1)


def prelude_steps(recipe: Recipe, candidate: Candidate) -> int:
    """Return the steps before a candidate's training in which its dilations are found; none where there are none."""
    return _share(_PRELUDE, recipe.steps) if candidate.searched else 0


def decided_from(recipe: Recipe, candidate: Candidate) -> int:
    """Return the index of the first training step at which no dilation is to be found any more, and all may move."""
    return decided_step(recipe.steps) if candidate.searched else math.ceil(recipe.f_delay * recipe.steps)


def starts_of(learnable: Learnable, candidate: Candidate) -> dict[str, int]:
    """Return the dilations that training moves from where they start, px, by path."""
    return {
        name: path.choice.whole_dilation
        for name, path in candidate
        if name in learnable.dilations and not path.choice.searched and path.choice.whole_dilation is not None
    }


def bounds_of(dilations: Sequence[int], starts: Mapping[str, int]) -> tuple[float, float]:
    """Return the smallest and the largest dilation that training may move to, px."""
    known = [*dilations, *starts.values()]
    return float(min(known)), float(max(known))


def looked_at(dilations: int, paths: int) -> int:
    """Return how many times held-out images are scored at most to find the dilations of so many paths."""
    return (dilations + min(3, dilations)) * paths if dilations > 1 else 0


def held_out(data: ImageSet, recipe: Recipe) -> Split:
    """Return the validation images of a look: whole batches, since they are normalised by their own statistics."""
    val = data.splits["val"]
    most = min(recipe.rung_images, len(val))
    return val.some(max(most // recipe.batch_size * recipe.batch_size, min(most, recipe.batch_size)))


def _share(share: float, steps: int) -> int:
    return max(1, round(share * steps))


def decided_step(steps: int) -> int:
    """Return the step, from the prelude's first, from which a training of so many holds what was found."""
    return _share(_PRELUDE, steps) + _share(_SHARED, steps)
