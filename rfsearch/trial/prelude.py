"""A training that finds its own dilations before it begins, with weights that all dilations share.

A dilation changes the shape of no weight and no map, so a network can be trained with another dilation at every step,
at the cost of one. A prelude a quarter as long as a training does that; a look at held-out images then tells how well
each dilation scores with those weights, and a full training of the best one follows, from them. Where the search starts
does not matter, and no gradient has to see farther than a pixel.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rfsearch.data import ImageSet, Split
from rfsearch.space import Candidate, Recipe

# Of a full training's steps. Shorter ones did not always tell dilations apart on rendered faces.
_SHARE = 0.25


class Prelude:
    """The dilations that a training's searched paths have, step by step.

    paths: of the candidate. dilations: that each may get. steps: of the prelude. seed: of the draws.
    """

    def __init__(self, paths: Sequence[str], dilations: Sequence[int], steps: int, seed: int) -> None:
        self.steps = steps
        self._dilations, self._seed = sorted(dilations), seed
        self.best = dict.fromkeys(paths, self._dilations[(len(self._dilations) - 1) // 2])
        """The dilations that scored best; before the look, the middle of the space's."""

    def at(self, step: int) -> dict[str, int]:
        """The dilations to train with at a step: any in the prelude, the same for the same step and seed."""
        if step >= self.steps:
            return self.best
        chance = random.Random(f"{self._seed}/{step}")
        return {path: chance.choice(self._dilations) for path in self.best}

    def look(self, score: Callable[[Mapping[str, int]], float]) -> None:
        """Set each path to the dilation that scores best, one after the other, the other paths at their best so far.

        score: of given dilations on held-out images, with the weights as they are; higher is better.
        """
        for path in self.best if len(self._dilations) > 1 else ():
            found = {dilation: score(self.best | {path: dilation}) for dilation in self._dilations}
            self.best[path] = max(found, key=lambda dilation: found[dilation])

    def state(self) -> dict[str, Any]:
        return {"best": dict(self.best)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.best = dict(state["best"])


def prelude_steps(recipe: Recipe, candidate: Candidate) -> int:
    """The steps of a candidate's training in which its dilations are found; none where there are none to find."""
    return max(1, round(_SHARE * recipe.steps)) if any(choice.fractional for _, choice in candidate) else 0


def looked_at(dilations: int, paths: int) -> int:
    """How many times held-out images are scored to find the dilations of so many paths."""
    return dilations * paths if dilations > 1 else 0


def held_out(data: ImageSet, recipe: Recipe) -> Split:
    """The validation images of a look: whole batches, since they are normalised by their own statistics."""
    val = data.splits["val"]
    most = min(recipe.rung_images, len(val))
    return val.some(max(most // recipe.batch_size * recipe.batch_size, min(most, recipe.batch_size)))
