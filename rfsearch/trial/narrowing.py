"""A training that finds its own dilations before it begins: weights shared by all of them, then a bracket that narrows.

A dilation changes the shape of no weight and no map, so a network can be trained with another dilation at every step,
at the cost of one. A prelude a quarter as long as a training does that, its rate falling to zero. On the way, looks at
held-out images tell how well each dilation scores with the weights that all share: at first all of the space's, then
those next to the best, then its neighbours. A full training of what was found follows, from those weights. Where the
search starts does not matter, and no gradient has to see farther than a pixel.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rfsearch.data import ImageSet, Split
from rfsearch.space import Candidate, Recipe

# The length of the prelude, as a share of a full training.
PRELUDE = 0.25
# Looks, as shares of the prelude, and how many places on either side of the best stay in the bracket after each.
LOOKS = ((0.4, 2), (0.7, 1), (1.0, 0))


class Narrowing:
    """The brackets of a training's sites.

    paths: of the candidate, those whose dilation is searched. dilations: that each may get. steps: of the prelude.
    seed: of the draws.
    """

    def __init__(self, paths: Sequence[str], dilations: Sequence[int], steps: int, seed: int) -> None:
        self._paths, self._dilations, self._seed = tuple(paths), sorted(dilations), seed
        self._reach = {max(1, round(share * steps)): reach for share, reach in LOOKS}
        self._brackets = {path: (0, len(self._dilations) - 1) for path in paths}
        self._best = {path: (len(self._dilations) - 1) // 2 for path in paths}

    @property
    def open(self) -> bool:
        """Whether any bracket still holds more than one dilation."""
        return any(low < high for low, high in self._brackets.values())

    def due(self, step: int) -> bool:
        """Whether the brackets are to be narrowed before that step."""
        return step in self._reach and self.open

    def draw(self, step: int) -> dict[str, int]:
        """The dilations to train with at a step: any of the brackets', the same for the same step and seed."""
        chance = random.Random(f"{self._seed}/{step}")
        return {path: self._dilations[chance.randint(*self._brackets[path])] for path in self._paths}

    @property
    def best(self) -> dict[str, int]:
        """The dilations that served best at the last look; before the first, the middle of the space's."""
        return {path: self._dilations[place] for path, place in self._best.items()}

    def narrow(self, step: int, score: Callable[[Mapping[str, int]], float]) -> None:
        """Look at every dilation of every bracket, one path after the other, the other paths at their best so far.

        score: of given dilations on held-out images, with the weights as they are; higher is better.
        """
        for path, (low, high) in self._brackets.items():
            if low == high:
                continue
            found = {place: score(self.best | {path: self._dilations[place]}) for place in range(low, high + 1)}
            self._best[path] = max(found, key=lambda place: found[place])
            reach = self._reach[step]
            self._brackets[path] = max(low, self._best[path] - reach), min(high, self._best[path] + reach)

    def state(self) -> dict[str, Any]:
        return {"brackets": dict(self._brackets), "best": dict(self._best)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._brackets = {path: (low, high) for path, (low, high) in state["brackets"].items()}
        self._best = dict(state["best"])


def prelude_steps(recipe: Recipe, candidate: Candidate) -> int:
    """The steps of a candidate's training in which its dilations are found; none where there are none to find."""
    return max(1, round(PRELUDE * recipe.steps)) if any(choice.fractional for _, choice in candidate) else 0


def most_looks(dilations: int, paths: int) -> int:
    """How many dilations are looked at, at most."""
    sizes, left = [dilations], dilations
    for _, reach in LOOKS[:-1]:
        left = min(left, 2 * reach + 1)
        sizes.append(left)
    return paths * sum(size for size in sizes if size > 1)


def held_out(data: ImageSet, recipe: Recipe) -> Split:
    """The validation images of a look: whole batches, since they are normalised by their own statistics."""
    val = data.splits["val"]
    most = min(recipe.rung_images, len(val))
    return val.some(max(most // recipe.batch_size * recipe.batch_size, min(most, recipe.batch_size)))
