"""A training that finds its own dilations before it begins, with weights that all dilations share.

A dilation changes the shape of no weight and no map, so a network can be trained with another dilation at every step,
at the cost of one. A prelude a quarter as long as a training does that; a look at held-out images then tells how well
each dilation scores with those weights. A full training follows, from them, which the best dilation shares with its two
neighbours for a while, until a second look decides. Where the search starts does not matter, and no gradient has to see
farther than a pixel. What was found is near enough for one: from then on the dilation is a real number that training
moves (`rfsearch.layers.FractionalConv2d`), wherever it is that of one convolution whose output keeps its size.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rfsearch.data import ImageSet, Split
from rfsearch.space import Candidate, Recipe

# Of a full training's steps: the prelude, and what of the training itself is still shared between neighbours. After the
# prelude alone, rendered faces look best at larger dilations than they do in the end.
_PRELUDE = 0.25
_SHARED = 0.15


class Prelude:
    """The dilations that a training's searched paths have, step by step.

    paths: of the candidate. dilations: that each may get. steps: of a full training. seed: of the draws.
    """

    def __init__(self, paths: Sequence[str], dilations: Sequence[int], steps: int, seed: int) -> None:
        self._dilations, self._seed = sorted(dilations), seed
        self._looks = _share(_PRELUDE, steps), _decided(steps)
        self._open = dict.fromkeys(paths, self._dilations)
        self.best = dict.fromkeys(paths, self._dilations[(len(self._dilations) - 1) // 2])
        """The dilations that scored best; before the first look, the middle of the space's."""

    def due(self, step: int) -> bool:
        """Whether there is something to look at before a step."""
        return step in self._looks and self.sharing(step)

    def looks(self, step: int) -> int:
        """How many times held-out images are scored before a step."""
        return sum(len(found) for found in self._open.values() if len(found) > 1) if self.due(step) else 0

    @property
    def over(self) -> int:
        """The first step whose dilations are decided."""
        return self._looks[-1]

    def sharing(self, step: int) -> bool:
        """Whether several dilations still share the weights that go into a step."""
        return step <= self._looks[-1] and any(len(dilations) > 1 for dilations in self._open.values())

    def at(self, step: int) -> dict[str, int]:
        """The dilations to train with at a step: any that are left, the same for the same step and seed."""
        chance = random.Random(f"{self._seed}/{step}")
        return {path: chance.choice(dilations) for path, dilations in self._open.items()}

    def look(self, step: int, score: Callable[[Mapping[str, int]], float]) -> None:
        """Set each path to the dilation that scores best, one after the other, the other paths at their best so far.

        score: of given dilations on held-out images, with the weights as they are; higher is better.
        """
        for path, dilations in self._open.items():
            found = {d: score(self.best | {path: d}) for d in dilations} if len(dilations) > 1 else {dilations[0]: 0.0}
            best = self.best[path] = max(found, key=lambda dilation: found[dilation])
            place = self._dilations.index(best)
            near = self._dilations[max(0, place - 1) : place + 2] if step < self._looks[-1] else [best]
            self._open[path] = [dilation for dilation in dilations if dilation in near]

    def state(self) -> dict[str, Any]:
        return {"best": dict(self.best), "open": dict(self._open)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.best, self._open = dict(state["best"]), dict(state["open"])


def _share(share: float, steps: int) -> int:
    return max(1, round(share * steps))


def _decided(steps: int) -> int:
    return _share(_PRELUDE, steps) + _share(_SHARED, steps)


def decided_from(recipe: Recipe) -> int:
    """The first step of a training that finds its dilations in which they are found."""
    return _decided(recipe.steps)


def prelude_steps(recipe: Recipe, candidate: Candidate) -> int:
    """The steps of a candidate's training in which its dilations are found; none where there are none to find."""
    return _share(_PRELUDE, recipe.steps) if any(choice.to_find for _, choice in candidate) else 0


def looked_at(dilations: int, paths: int) -> int:
    """How many times held-out images are scored at most to find the dilations of so many paths."""
    return (dilations + min(3, dilations)) * paths if dilations > 1 else 0


def held_out(data: ImageSet, recipe: Recipe) -> Split:
    """The validation images of a look: whole batches, since they are normalised by their own statistics."""
    val = data.splits["val"]
    most = min(recipe.rung_images, len(val))
    return val.some(max(most // recipe.batch_size * recipe.batch_size, min(most, recipe.batch_size)))
