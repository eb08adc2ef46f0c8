"""The benchmark of planted answers, in small: what learns a receptive field finds the one that was hidden."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

SLOW = pytest.mark.slow
BENCHMARKS = Path(__file__).resolve().parents[2] / "baselines" / "benchmarks"


@pytest.fixture(scope="module")
def planted() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("planted")


@pytest.mark.parametrize(
    ("start", "maps"),
    [(2.0, "rough"), pytest.param(3.0, "rough", marks=SLOW), pytest.param(2.0, "smooth", marks=SLOW)],
)
def test_inflation_finds_a_planted_dilation(planted: ModuleType, start: float, maps: str) -> None:
    row = planted.run(planted.Case(planted.ONE_SITE, "inflation continuous exact", "known", maps, start))
    assert row["error"] < 0.05


def test_from_a_smaller_dilation_inflation_finds_the_one_of_least_loss(planted: ModuleType) -> None:
    row = planted.run(planted.Case(planted.ONE_SITE, "inflation continuous exact", "known", "rough", 0.5))
    assert float(row["found"]) == pytest.approx(float(row["best"]), rel=0.05)


@SLOW
def test_inflation_finds_a_planted_dilation_while_weights_are_learned(planted: ModuleType) -> None:
    rows = {
        arm: planted.run(planted.Case(planted.ONE_SITE, arm, "learned", "rough", 2.0))
        for arm in ("answer", "inflation continuous exact")
    }
    assert rows["inflation continuous exact"]["error"] < 0.15
    assert rows["inflation continuous exact"]["loss"] < 1.5 * rows["answer"]["loss"]


@pytest.mark.slow
def test_every_case_runs_and_repeats(planted: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planted, "SIDE", 16)
    few = {"steps": 4, "f_step": 0.005}  # which keeps what moves near its start
    short = {weights: recipe.model_copy(update=few) for weights, recipe in planted.RECIPES.items()}
    kinds = {(case.arm, case.planted.name, case.weights): case for case in planted.cases() if case.maps == "rough"}
    named = {case.planted.name for case in kinds.values()}
    assert named == {"one site", "two sites", "two paths", "real-valued", "anisotropic", "gamma"}
    for case in kinds.values():
        row = planted.run(replace(case, start=1.0), short[case.weights])
        assert row["loss"] >= 0, case
        assert row["arm"] in ("answer", "fractional") or row["error"] < 0.7, case
        if case.arm == "answer" and case.weights == "known":
            assert row["loss"] == 0, case
    again = [planted.run(case, short[case.weights]) for _ in range(2)]
    assert {**again[0], "seconds": 0} == {**again[1], "seconds": 0}
