"""A prelude that finds the dilations of a training: its draws and its look by hand, and a network that needs one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping

import pytest

from rfsearch.choices import Candidate, Dilated, Searched
from rfsearch.data import rendered_faces
from rfsearch.space import Recipe
from rfsearch.training.dilation_search import SharedDilations, held_out, looked_at, prelude_steps

DILATIONS = (1, 2, 3, 4, 6, 8, 11)


def by_distance(best: Mapping[str, int], asked: list[dict[str, int]]) -> Callable[[Mapping[str, int]], float]:
    """A score that falls with the distance, in octaves, of every path from its best dilation."""

    def score(dilations: Mapping[str, int]) -> float:
        asked.append(dict(dilations))
        return -sum(abs(math.log2(dilation / best[path])) for path, dilation in dilations.items())

    return score


def run(
    best: Mapping[str, int], steps: int = 400, seed: int = 0
) -> tuple[SharedDilations, list[dict[str, int]], list[dict]]:
    """A prelude of a quarter and a training of `steps`: what was looked at, and the dilations of every step."""
    prelude, asked, drawn = SharedDilations(list(best), DILATIONS, steps, seed), [], []
    for step in range(round(1.25 * steps)):
        if prelude.due(step):
            prelude.look(step, by_distance(best, asked))
        drawn.append(prelude.at(step))
    return prelude, asked, drawn


@pytest.mark.parametrize("best", DILATIONS)
def test_it_ends_at_the_best_dilation_wherever_that_is(best: int) -> None:
    prelude, asked, drawn = run({"conv": best})
    assert prelude.best == {"conv": best}
    place = DILATIONS.index(best)
    near = DILATIONS[max(0, place - 1) : place + 2]
    assert {d["conv"] for d in drawn[:100]} == set(DILATIONS)
    assert {d["conv"] for d in drawn[100:160]} == set(near)
    assert {d["conv"] for d in drawn[160:]} == {best}
    assert len(asked) == 7 + len(near) <= looked_at(len(DILATIONS), 1)


def test_the_second_look_may_turn_to_a_neighbour_only() -> None:
    prelude = SharedDilations(["a"], DILATIONS, 400, 0)
    prelude.look(100, by_distance({"a": 6}, []))
    asked: list[dict[str, int]] = []
    prelude.look(160, by_distance({"a": 3}, asked))
    assert (prelude.best, [d["a"] for d in asked]) == ({"a": 4}, [4, 6, 8])


def test_paths_are_looked_at_one_after_the_other() -> None:
    prelude, asked, _ = run({"a": 2, "b": 8})
    assert prelude.best == {"a": 2, "b": 8}
    assert [d["a"] for d in asked] == [*DILATIONS, *[2] * 7, 1, 2, 3, *[2] * 3]
    assert [d["b"] for d in asked] == [*[4] * 7, *DILATIONS, *[8] * 3, 6, 8, 11]  # first the middle, not looked at yet
    assert len(asked) == looked_at(len(DILATIONS), 2)


def test_all_dilations_are_drawn_alike_and_the_same_again() -> None:
    prelude = SharedDilations(["a", "b"], DILATIONS, 100_000, seed=3)
    drawn = [prelude.at(step) for step in range(3500)]
    assert drawn == [SharedDilations(["a", "b"], DILATIONS, 100_000, seed=3).at(step) for step in range(3500)]
    assert drawn != [SharedDilations(["a", "b"], DILATIONS, 100_000, seed=4).at(step) for step in range(3500)]
    counts = Counter((d["a"], d["b"]) for d in drawn)
    assert len(counts) == 49
    assert 30 < min(counts.values()) <= max(counts.values()) < 120  # 71 expected


def test_it_goes_on_from_its_state() -> None:
    prelude, again = (SharedDilations(["a"], DILATIONS, 400, 0) for _ in range(2))
    prelude.look(100, by_distance({"a": 8}, []))
    again.load_state(prelude.state())
    assert again.best == {"a": 8}
    assert [again.at(step) for step in range(100, 160)] == [prelude.at(step) for step in range(100, 160)]


def test_one_dilation_needs_no_look() -> None:
    prelude = SharedDilations(["a"], [3], 400, 0)
    assert not any(prelude.due(step) or prelude.sharing(step) for step in range(500))
    assert (prelude.best, prelude.at(5), looked_at(1, 1)) == ({"a": 3}, {"a": 3}, 0)


def test_a_score_that_is_no_number_is_never_best() -> None:
    prelude = SharedDilations(["a"], DILATIONS, 400, 0)
    prelude.look(100, lambda dilations: -math.inf if dilations["a"] < 6 else -dilations["a"])
    assert prelude.best == {"a": 6}


@pytest.mark.parametrize(("images", "most", "batch", "looked"), [
    (101, 64, 8, 64), (101, 101, 8, 96), (20, 64, 8, 16), (5, 64, 8, 5), (101, 4, 8, 4), (9, 64, 8, 8),
])  # fmt: skip
def test_a_look_is_at_whole_batches(images: int, most: int, batch: int, looked: int) -> None:
    data = rendered_faces(1, images, 1, (32, 32))
    recipe = Recipe(steps=10, lr=0.1, rung_images=most, batch_size=batch)
    assert len(held_out(data, recipe)) == looked


def test_only_what_is_to_be_found_gets_a_prelude() -> None:
    recipe = Recipe(steps=300, lr=0.1, batch_size=8)
    plain, searched = Dilated(4), Searched(4)
    assert prelude_steps(recipe, Candidate({"a": plain})) == 0
    assert prelude_steps(recipe, Candidate({"a": plain, "b": [plain, searched]})) == 75
