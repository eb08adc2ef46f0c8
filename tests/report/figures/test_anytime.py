from __future__ import annotations

import itertools

import pytest

from tests.report.figures.specs import spec
from tests.report.made_up import MakeRun, record


def test_anytime_curve_is_the_mean_over_seeds_with_its_band(make_run: MakeRun) -> None:
    values = {0: (0.5, 0.6), 1: (0.4, 0.7)}
    records = [
        record(f"{seed}-{i}", i + 1, val=v, test=v, seed=seed) for seed, vs in values.items() for i, v in enumerate(vs)
    ]
    figure = spec("anytime", make_run(records))
    curve = next(t for t in figure["data"] if t.get("name") == "exhaustive (2 seeds)")
    assert curve["x"] == [1.0, 2.0]
    assert curve["y"] == pytest.approx([0.45, 0.65])
    low, high = (t for t in figure["data"][1:3])
    assert (low["y"], high["y"]) == ([0.4, 0.6], [0.5, 0.7])
    seconds = figure["switches"][0]["options"][1]["traces"]["x"][figure["data"].index(curve)]
    assert seconds == pytest.approx([30.0, 60.0])


def test_band_begins_where_every_seed_has_an_incumbent(make_run: MakeRun) -> None:
    late = [record("1-0", 1, seed=1, val=0.9, status="pruned"), record("1-1", 2, seed=1, val=0.6, test=0.6)]
    figure = spec("anytime", make_run([record("0-0", 1, val=0.5, test=0.5), *late]))
    curve = next(t for t in figure["data"] if t.get("name") == "exhaustive (2 seeds)")
    assert (curve["x"], curve["y"]) == ([2.0], pytest.approx([0.55]))


def test_incumbent_is_chosen_on_validation_in_the_test_curve_too(make_run: MakeRun) -> None:
    figure = spec("anytime", make_run([record("a", 1, val=0.5, test=0.9), record("b", 2, val=0.6, test=0.4)]))
    assert next(t for t in figure["data"] if t.get("name") == "exhaustive" and t["visible"])["y"] == [0.9, 0.4]


def test_names_at_the_ends_of_close_curves_lie_apart_and_within_the_plot(make_run: MakeRun) -> None:
    ends = {"a": 0.711, "b": 0.712, "c": 0.717, "d": 0.718, "e": 0.732}
    low = record("low", 1, val=0.6, test=0.6, strategy="a")
    run = make_run([low, *(record(name, 2, val=v, test=v, strategy=name) for name, v in ends.items())])
    figure = spec("anytime", run)
    labels = {a["text"]: a["y"] for a in figure["layout"]["annotations"] if a["text"] in ends}
    bottom, top = figure["layout"]["yaxis"]["range"]
    assert sorted(labels, key=labels.get) == list(ends)
    heights = sorted(labels.values())
    assert heights[0] >= bottom
    assert heights[-1] <= top
    assert min(b - a for a, b in itertools.pairwise(heights)) >= 0.05 * (top - bottom)
