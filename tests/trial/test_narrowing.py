"""One training that finds its own dilation: the bracket by hand, and a network that needs one dilation and gets it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import pytest

from rfsearch.data import rendered_faces
from rfsearch.space import Candidate, Choice, Recipe
from rfsearch.trial.narrowing import LOOKS, Narrowing, held_out, most_looks, prelude_steps

DILATIONS = (1, 2, 3, 4, 6, 8, 11)


def by_distance(best: Mapping[str, int], asked: list[dict[str, int]]):
    """A score that falls with the distance, in octaves, of every path from its best dilation."""

    def score(dilations: Mapping[str, int]) -> float:
        asked.append(dict(dilations))
        return -sum(abs(math.log2(dilation / best[path])) for path, dilation in dilations.items())

    return score


def run(best: Mapping[str, int], steps: int = 100, seed: int = 0) -> tuple[Narrowing, list[dict[str, int]], list[dict]]:
    narrowing, asked, drawn = Narrowing(list(best), DILATIONS, steps, seed), [], []
    for step in range(steps + 20):  # and a while of what follows the prelude
        if narrowing.due(step):
            narrowing.narrow(step, by_distance(best, asked))
        drawn.append(narrowing.draw(step))
    return narrowing, asked, drawn


@pytest.mark.parametrize("best", DILATIONS)
def test_it_ends_at_the_best_dilation_wherever_that_is(best: int) -> None:
    narrowing, asked, drawn = run({"conv": best})
    assert narrowing.best == {"conv": best}
    first, second, third = (round(100 * share) for share, _ in LOOKS)
    assert {d["conv"] for d in drawn[:first]} == set(DILATIONS)
    place = DILATIONS.index(best)
    assert {d["conv"] for d in drawn[first:second]} <= set(DILATIONS[max(0, place - 2) : place + 3])
    assert {d["conv"] for d in drawn[second:third]} <= set(DILATIONS[max(0, place - 1) : place + 2])
    assert {d["conv"] for d in drawn[third:]} == {best}
    assert len(asked) <= most_looks(len(DILATIONS), 1) == 7 + 5 + 3


def test_paths_are_looked_at_one_after_the_other() -> None:
    narrowing, asked, _ = run({"a": 2, "b": 8})
    assert narrowing.best == {"a": 2, "b": 8}
    assert [d["a"] for d in asked[:7]] == list(DILATIONS)
    assert {d["b"] for d in asked[:7]} == {4}  # the middle, until it has been looked at
    assert {d["a"] for d in asked[7:14]} == {2}
    assert len(asked) <= most_looks(len(DILATIONS), 2)


def test_all_dilations_are_drawn_alike_and_the_same_again() -> None:
    narrowing = Narrowing(["a", "b"], DILATIONS, 100_000, seed=3)
    drawn = [narrowing.draw(step) for step in range(3500)]
    assert drawn == [Narrowing(["a", "b"], DILATIONS, 100_000, seed=3).draw(step) for step in range(3500)]
    assert drawn != [Narrowing(["a", "b"], DILATIONS, 100_000, seed=4).draw(step) for step in range(3500)]
    counts = Counter((d["a"], d["b"]) for d in drawn)
    assert len(counts) == 49
    assert 30 < min(counts.values()) <= max(counts.values()) < 120  # 71 expected


def test_it_goes_on_from_its_state() -> None:
    narrowing, steps = Narrowing(["a"], DILATIONS, 100, 0), range(100)
    again = Narrowing(["a"], DILATIONS, 100, 0)
    for step in steps:
        if step == 20:
            again.load_state(narrowing.state())
        for one in [narrowing, again] if step >= 20 else [narrowing]:
            if one.due(step):
                one.narrow(step, by_distance({"a": 8}, []))
        if step >= 20:
            assert narrowing.draw(step) == again.draw(step)
    assert again.best == narrowing.best == {"a": 8}


def test_one_dilation_needs_no_look() -> None:
    narrowing = Narrowing(["a"], [3], 100, 0)
    assert not any(narrowing.due(step) for step in range(100))
    assert (narrowing.best, narrowing.draw(5)) == ({"a": 3}, {"a": 3})
    assert most_looks(1, 1) == 0


def test_a_score_that_is_no_number_is_never_best() -> None:
    narrowing = Narrowing(["a"], DILATIONS, 100, 0)
    narrowing.narrow(40, lambda dilations: -math.inf if dilations["a"] < 6 else -dilations["a"])
    assert narrowing.best == {"a": 6}


@pytest.mark.parametrize(("images", "most", "batch", "looked_at"), [
    (101, 64, 8, 64), (101, 101, 8, 96), (20, 64, 8, 16), (5, 64, 8, 5), (101, 4, 8, 4), (9, 64, 8, 8),
])  # fmt: skip
def test_a_look_is_at_whole_batches(images: int, most: int, batch: int, looked_at: int) -> None:
    data = rendered_faces(1, images, 1, (32, 32))
    recipe = Recipe(steps=10, lr=0.1, rung_images=most, batch_size=batch)
    assert len(held_out(data, recipe)) == looked_at


def test_only_what_is_to_be_found_gets_a_prelude() -> None:
    recipe = Recipe(steps=300, lr=0.1, batch_size=8)
    plain, searched = Choice(4), Choice(4, fractional=True)
    assert prelude_steps(recipe, Candidate.of({"a": plain})) == 0
    assert prelude_steps(recipe, Candidate.of({"a": plain, "b": [plain, searched]})) == 75
