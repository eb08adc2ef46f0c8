from __future__ import annotations

import pandas as pd
import pytest

from rfsearch.ledger import Record
from rfsearch.report import write
from tests.report.figures.specs import spec
from tests.report.made_up import MakeRun, record


def test_pareto_switch_moves_points_and_front_together(make_run: MakeRun) -> None:
    figure = spec("pareto", make_run([record("a", 1, val=0.5), record("b", 4, val=0.6)]))
    cost = figure["switches"][0]
    assert [o["label"] for o in cost["options"]] == [
        "receptive field", "training FLOP", "inference MAC", "inference peak memory", "inference latency",
    ]  # fmt: skip
    mac = cost["options"][2]["traces"]
    assert mac["x"][0] == [2.0]  # on one vertical line only the best is on the front
    assert mac["x"][1] == [2.0, 2.0]
    assert cost["options"][0]["traces"]["x"][0] == [76.0, 124.0] == figure["data"][0]["x"]
    assert figure["layout"]["xaxis"]["title"]["text"] == "receptive field, px"


def timed(name: str, dilation: int, median: float, spread: float = 0.2, **changes: object) -> Record:
    ends = (median - spread, median + spread)
    return record(name, dilation, infer_latency_ms=median, infer_latency_spread_ms=ends, **changes)


def test_latencies_whose_spreads_overlap_are_ties_on_the_page_and_in_the_table(make_run: MakeRun) -> None:
    run = make_run(
        [timed("a", 1, 2.0, val=0.5), timed("b", 2, 2.3, val=0.6), timed("c", 4, 9.0, val=0.7), record("old", 8)]
    )
    table = pd.read_csv(write(run.directory).parent / "pareto.csv")
    assert list(table[table.axis == "infer_latency_ms"].trial) == ["b", "c"]
    figure = spec("pareto", run)
    latency = next(o for o in figure["switches"][0]["options"] if o["label"] == "inference latency")
    assert latency["traces"]["x"][0] == [2.3, 9.0]
    assert latency["traces"]["x"][1] == [2.0, 2.3, 9.0, None]  # another way of measuring does not compare
    assert latency["traces"]["error_x"][1]["array"] == pytest.approx([0.2] * 3 + [0.0])
    assert figure["switches"][0]["options"][0]["traces"]["error_x"][1] == {"visible": False}
    assert "latency 2.30 ms (2.10 to 2.50)" in figure["data"][1]["text"][1]
