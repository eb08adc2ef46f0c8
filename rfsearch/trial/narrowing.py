"""One training that finds its own dilation: weights shared by all dilations first, then a bracket that narrows.

A dilation changes the shape of no weight and no map, so a network can be trained with another dilation at every step,
at the cost of one. While it is, a look at held-out images tells how well each dilation serves the weights as they are:
at first all of the space's, then those next to the best, then its neighbours. Where training starts does not matter,
and no gradient has to see farther than a pixel.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Looks, as shares of the training, and how many places on either side of the best stay in the bracket after each.
# Before about a sixth of a short training, losses do not tell dilations apart yet; what comes after the last look is
# left for the dilation that was found.
LOOKS = ((0.17, 2), (0.25, 1), (0.33, 0))


class Narrowing:
    """The brackets of a training's sites.

    paths: of the candidate, those whose dilation is searched. dilations: that each may get. steps: of the training.
    seed: of the draws.
    """

    def __init__(self, paths: Sequence[str], dilations: Sequence[int], steps: int, seed: int) -> None:
        self._paths, self._dilations, self._seed = tuple(paths), sorted(dilations), seed
        self._reach = {max(1, round(share * steps)): reach for share, reach in LOOKS}
        self._brackets = {path: (0, len(self._dilations) - 1) for path in paths}
        self._best = {path: (len(self._dilations) - 1) // 2 for path in paths}

    def due(self, step: int) -> bool:
        """Whether the brackets are to be narrowed before that step."""
        return step in self._reach and any(low < high for low, high in self._brackets.values())

    def draw(self, step: int) -> dict[str, int]:
        """The dilations to train with at a step: any of the brackets', the same for the same step and seed."""
        chance = random.Random(f"{self._seed}/{step}")
        return {path: self._dilations[chance.randint(*self._brackets[path])] for path in self._paths}

    @property
    def best(self) -> dict[str, int]:
        """The dilations that served best at the last look; before the first, the middle of the space's."""
        return {path: self._dilations[place] for path, place in self._best.items()}

    def narrow(self, step: int, loss: Callable[[Mapping[str, int]], float]) -> None:
        """Look at every dilation of every bracket, one path after the other, the other paths at their best so far.

        loss: of given dilations on held-out images, with the weights as they are.
        """
        for path, (low, high) in self._brackets.items():
            if low == high:
                continue
            found = {place: loss(self.best | {path: self._dilations[place]}) for place in range(low, high + 1)}
            self._best[path] = min(found, key=lambda place: found[place])
            reach = self._reach[step]
            self._brackets[path] = max(low, self._best[path] - reach), min(high, self._best[path] + reach)

    def state(self) -> dict[str, Any]:
        return {"brackets": dict(self._brackets), "best": dict(self._best)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._brackets = {path: (low, high) for path, (low, high) in state["brackets"].items()}
        self._best = dict(state["best"])


def most_looks(dilations: int, paths: int) -> int:
    """How many dilations a whole training looks at, at most."""
    sizes, left = [dilations], dilations
    for _, reach in LOOKS[:-1]:
        left = min(left, 2 * reach + 1)
        sizes.append(left)
    return paths * sum(size for size in sizes if size > 1)
