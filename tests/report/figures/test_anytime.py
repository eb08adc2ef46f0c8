from __future__ import annotations

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
