"""The table of the headline benchmark, from made-up runs."""

import importlib
import sys
from pathlib import Path

import pytest

from tests.report.made_up import MakeRun, record

BENCHMARKS = Path(__file__).parents[2] / "baselines" / "benchmarks"


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_target_is_reached_in_the_spaces_direction(make_run: MakeRun, monkeypatch, direction: str) -> None:
    """A sweep of three trainings whose second one is the best, and a random search that finds it at once."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delitem(sys.modules, "provenance", raising=False)
    headline = importlib.import_module("headline")

    def trained(name: str, dilation: int, good: float, strategy: str):
        score = good if direction == "maximize" else 1 - good
        return record(name, dilation, score, score, strategy=strategy)

    run = make_run(
        [
            trained("e0", 1, 0.5, "exhaustive"),
            trained("e1", 2, 0.7, "exhaustive"),
            trained("e2", 4, 0.6, "exhaustive"),
            trained("r0", 2, 0.7, "random"),
            trained("r1", 1, 0.5, "random"),
        ],
        space={"direction": direction},
        arms=[{"strategy": name, "seed": 0} for name in ("exhaustive", "random")],
    )
    rows, said = headline.of_dataset([run.directory])
    best = 0.7 if direction == "maximize" else 0.3
    assert {row["strategy"]: row["compute_to_target"] for row in rows} == {"exhaustive": 0.6667, "random": 0.3333}
    assert {row["final_score"] for row in rows} == {best}
    assert said["target"] == best
