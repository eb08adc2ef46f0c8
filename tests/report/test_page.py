from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest
from PIL import Image

from rfsearch.choices import Candidate, Searched
from rfsearch.ledger import Cost, Journal, Latency, Record, Rung
from rfsearch.ledger.record import TRIAL_COLUMNS
from rfsearch.report import write
from rfsearch.report.rows import ANYTIME_COLUMNS
from tests.report.made_up import MakeRun, candidate, examples, manifest, record

_VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """A page as its reader sees it: text outside of scripts and styles, rows of tables, and what it points to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.points_to: list[str] = []
        self.tags: list[str] = []
        self.payload = ""
        self.rows: list[list[str]] = []
        self._script = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.points_to += [str(found[key]) for key in ("src", "href", "srcset", "action", "data") if key in found]
        self._script = found.get("id") or "" if tag == "script" else self._script
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        if inside == "script":
            self.payload += data if self._script == "payload" else ""
        elif inside != "style":
            self.text += data + " "
            if {"td", "th"} & set(self.open):
                self.rows[-1][-1] += data

    @property
    def figures(self) -> dict[str, dict]:
        held = json.loads(self.payload or '{"arrays": [], "figures": []}')
        return {figure["name"]: _whole(figure, held["arrays"]) for figure in held["figures"]}

    def row(self, first: str) -> list[str]:
        return next(row for row in self.rows if row and row[0].startswith(first))


def _whole(value, arrays: list):
    """Put the arrays of a payload into their places."""
    if isinstance(value, dict):
        return arrays[value["$"]] if "$" in value else {key: _whole(one, arrays) for key, one in value.items()}
    return [_whole(one, arrays) for one in value] if isinstance(value, list) else value


def rich() -> list[Record]:
    """Three strategies, two seeds, every status, a learned f with its trace, holes in the numbers."""
    records = []
    for seed in range(2):
        records += [
            record(f"exhaustive-{seed}-{d}", d, val=0.6 + 0.01 * d + 0.003 * seed, test=0.6 + 0.01 * d, seed=seed,
                   train_seed=1000 * seed)
            for d in (1, 2, 4)
        ]  # fmt: skip
        records.append(
            record(f"inflation-{seed}", 2, val=0.63, test=0.66, seed=seed, strategy="inflation", learned=True,
                   ends={"conv6": 0.7}, rf_px=120, trace=tuple((s, "conv6", 1 - 0.003 * s) for s in range(0, 101, 5)),
                   rungs=(Rung(50, 0.5, {"conv6": 0.8}, Cost(1.0, 1.0, 1.0)),))
        )  # fmt: skip
        records += [
            record(f"random-{seed}-0", 8, val=0.4, test=None, scores={}, status="pruned", strategy="random",
                   seed=seed),
            record(f"random-{seed}-1", 8, val=None, test=None, status="failed", cause="NaN loss", strategy="random",
                   seed=seed, infer_mac=None, infer_latency_ms=None, infer_peak_bytes=None, train_peak_bytes=None,
                   forecast=None, forecast_peak_bytes=None),
            record(f"random-{seed}-2", 4, val=0.5, test=0.5, status="cut", strategy="random", seed=seed,
                   cost=Cost(0.5e12, 12.0, 2.0)),
        ]  # fmt: skip
    return records


def arms(seeds: int) -> list[dict[str, object]]:
    return [{"strategy": s, "seed": k} for k in range(seeds) for s in ("exhaustive", "inflation", "random")]


def hostile(text: str) -> str:
    return f"</script><script>alert(1)</script><img src=x onerror=alert('{text}')>\"'&{{{{7*7}}}}%{{x}}"


CASES: dict[str, tuple[list[Record], dict[str, object]]] = {
    "rich": (rich(), {"arms": arms(2)}),
    "nothing": ([], {}),
    "one trial": ([record("only")], {}),
    "unfinished": ([record("a"), record("b", 4, val=0.6)], {"open_trials": 1}),
    "all failed": ([record("a", val=None, test=None, status="failed", cause="out of memory")], {}),
    "all pruned": ([record("a", status="pruned")], {}),
    "cut only": ([record("a", status="cut", cost=Cost(1.0, 0.0, 0.0))], {}),
    "no test": ([record("a", test=None), record("b", 4, val=0.8, test=None)], {}),
    "winner without test": ([record("a", val=0.9, test=None), record("b", 4, val=0.5, test=0.4)], {}),
    "no costs": (
        [record("a", infer_mac=None, infer_latency_ms=None, infer_peak_bytes=None, cost=Cost(), forecast=Cost())],
        {"budget": None},
    ),
    "bare manifest": (rich(), dict.fromkeys(("space", "budget", "data", "arms", "versions", "machine", "request"))),
    "odd manifest": (
        rich(),
        {"space": [1], "budget": "8x", "data": 3, "arms": [None, "x"], "forecast": [{}, 1], "notices": 7},
    ),
    "not finite": ([record("a", val=float("nan")), record("b", test=float("inf"))], {}),
    "negative scores": ([record("a", val=-2.0, test=-2.1), record("b", 4, val=-1.0, test=-1.1)], {}),
    "two sites": ([record("a", candidate='{"a.b": {"dilation": 2}, "c": {"dilation": 4, "f": 1.5}}')], {}),
    "unknown choice": ([record("a", candidate='{"conv6": {"gamma": 2.0}}')], {}),
    "device seconds": (rich(), {"budget": {"text": "1min", "currency": "device_s", "limit": 60.0}}),
}


@pytest.fixture(params=CASES, ids=lambda name: name.replace(" ", "-"))
def case(request: pytest.FixtureRequest, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> Path:
    records, changes = CASES[request.param]
    if request.param == "not finite":  # the journal refuses such numbers; an old or foreign ledger may hold them
        dumps = json.dumps
        monkeypatch.setattr("rfsearch.ledger.journal.json.dumps", lambda x, **k: dumps(x, **{**k, "allow_nan": True}))
    run = make_run(records, **changes)
    for r in records:
        if r.status in ("completed", "cut"):
            examples(run.directory / "checkpoints" / r.trial)
    return write(run.directory)


def test_page_stands_alone(case: Path) -> None:
    assert case.name == "report.html"
    page = Page(case)
    assert "is not shown" not in page.text
    assert all(target.startswith("data:") for target in page.points_to), page.points_to
    assert not {"iframe", "object", "embed", "form", "base"} & set(page.tags)
    style = re.search(r"<style>(.*?)</style>", case.read_text(encoding="utf-8"), re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_page_has_no_number_that_is_none(case: Path) -> None:
    page = Page(case)
    told = page.text.replace("NaN loss", "")  # a cause that a trial gave
    assert not re.search(r"\b(nan|inf|infinity|undefined)\b", told, re.IGNORECASE)
    assert not re.search(r"\b(None|null)\b", told)
    assert "NaN" not in page.payload
    assert "Infinity" not in page.payload


def test_figures_are_plotly_figures_with_points(case: Path) -> None:
    for name, figure in Page(case).figures.items():
        go.Figure({"data": figure["data"], "layout": figure["layout"]})  # raises on what plotly does not know
        assert any(len(trace["x"]) for trace in figure["data"] if trace.get("visible", True)), name
        for switch in figure["switches"]:
            assert len(switch["options"]) > 1
            for option in switch["options"]:
                assert all(len(values) == len(figure["data"]) for values in option["traces"].values())


def test_rich_page_tells_everything(make_run: MakeRun) -> None:
    run = make_run(rich(), arms=arms(2))
    examples(run.directory / "checkpoints" / "exhaustive-1-4")
    page = Page(write(run.directory))
    for heading in ("Verdict", "How sure", "To keep in mind", "Into a model", "Trials", "Budget",
                    "Score for what was spent", "Score against receptive field", "Score against cost",
                    "The learned factor", "What it sees", "How good the forecast was",
                    "Provenance"):  # fmt: skip
        assert heading in page.text
    assert set(page.figures) == {
        "anytime", "against-rf", "pareto", "class-scores", "validation-curves", "learned-f", "budget-use", "forecasts",
    }  # fmt: skip
    # Table 2: status, initial dilation, initial RF, f, new RF, val, test, skin, eyes, cost, seconds
    assert page.row("inflation-0") == [
        "inflation-0", "completed", "2", "92", "0.700", "120", "0.630", "0.660", "1.00×", "30.0 s", "0.760", "0.560",
    ]  # fmt: skip
    assert page.row("exhaustive-1-4")[0].endswith("★")
    assert sum("★" in row[0] for row in page.rows if row) == 1
    assert page.row("random-0-1")[6:8] == page.row("random-0-1")[10:12] == ["–"] * 2
    assert "rendered images of the test split: drawings, no photographs" in page.text.lower()
    assert page.points_to.count("data:,") == 1
    assert len(page.points_to) == 1 + 3 * 2
    assert len(set(page.points_to)) == len(page.points_to)  # image, truth and prediction are three pictures
    for target in page.points_to[1:]:
        assert Image.open(io.BytesIO(base64.b64decode(target.partition(",")[2]))).size == (20, 16)
    assert "abc123" in page.text
    # measured over forecast: 1e12 / 0.9e12, and 30 / 33
    assert page.row("training FLOP")[1:4] == ["8", "1.11×", "1.11×"]
    assert page.row("device time")[2] == "0.909×"


def test_scores_are_headed_by_their_classes(make_run: MakeRun) -> None:
    scores = {"miou_dataset": 0.6, "iou_1": 0.5, "iou_7": 0.4}
    run = make_run([record("a", scores=scores)], space={"primary": "miou_dataset", "metric": "mean-iou"})
    page = Page(write(run.directory))
    assert page.row("trial")[8:12] == ["cost", "device time", "iou eyes", "iou 7"]
    assert "(miou_dataset; chosen on validation, 0.700)" in page.text
    assert "mean-iou, miou_dataset" in page.text


def test_a_search_of_dilations_has_no_start(make_run: MakeRun) -> None:
    searched = Candidate({"conv6": Searched(2)}).to_json()
    found = record("searched", 8, candidate=searched, ends={"conv6": 8}, rf_init_px=92)
    learned = record("learned", 2, learned=True, ends={"conv6": 0.7}, rf_px=120)
    page = Page(write(make_run([found, learned]).directory))
    assert page.row("searched")[2:4] == ["found 8", "–"]
    assert page.row("learned")[2:4] == ["2", "92"]
    (way,) = [t for t in page.figures["against-rf"]["data"] if t["name"].startswith("way") and t["visible"]]
    assert way["x"][:2] == [92, 120]
    assert len(way["x"]) == 3  # of the other one only


def test_data_notice_is_given_once(make_run: MakeRun) -> None:
    run = make_run([record("a")], data={"notice": "Drawn by hand."}, notices=["Drawn by hand.", "From scratch."])
    page = Page(write(run.directory))
    assert page.text.count("Drawn by hand.") == 1
    assert page.text.count("From scratch.") == 1


def test_that_a_network_trains_from_scratch_is_no_warning(make_run: MakeRun) -> None:
    asked, missed = "Backbone wei-small: trains from scratch.", "Backbone x: The model trains from scratch: no file."
    page = write(make_run([record("a")], notices=[asked, missed]).directory)
    text = page.read_text(encoding="utf-8")
    assert asked not in text
    assert "<dt>Weights</dt><dd>none, trained from scratch</dd>" in text
    assert f'<p class="notice">{missed}</p>' in text


def test_budget_table_shows_overshoot_and_what_is_left(make_run: MakeRun) -> None:
    spent = [record(f"a{i}", d) for i, d in enumerate((1, 2, 4))]
    other = record("b0", 2, strategy="random", status="cut", cost=Cost(0.5e12, 3.0, 1.0))
    run = make_run([*spent, other], budget={"limit": 2.5e12, "text": "2.5x"})
    page = Page(write(run.directory))
    rows = {row[0]: row for row in page.rows if row and len(row) == 11}
    assert rows["exhaustive"][2:] == [
        "2.50 TFLOP", "3.00 TFLOP", "20 %", "none", "3.00×", "1 min 30 s", "3 completed", "0.700", "0.690",
    ]  # fmt: skip
    assert rows["random"][4:6] == ["none", "80 %"]
    assert rows["random"][8] == "1 cut"


def test_the_terminal_says_of_a_budget_what_the_page_says(make_run: MakeRun, call: Callable) -> None:
    over = [record(f"a{i}", d) for i, d in enumerate((1, 2, 4))]
    under = record("b0", 2, strategy="random", cost=Cost(2.4985e12, 3.0, 1.0))
    run = make_run([*over, under], budget={"limit": 2.5e12, "text": "2.5x"})
    code, out, err = call("report", run.directory)
    assert code == 0, err
    page = Page(run.directory / "report.html")
    rows = {row[0]: row[4:6] for row in page.rows if row and len(row) == 11}
    assert rows["strategy"] == ["overshoot", "unspent"]
    assert (rows["exhaustive"], rows["random"]) == (["20 %", "none"], ["none", "0.060 %"])
    table = {line.split()[0]: re.split("  +", line.strip())[3:] for line in out.splitlines() if line.strip()}
    assert table["arm"] == rows["strategy"]
    assert (table["exhaustive/0"], table["random/0"]) == (rows["exhaustive"], rows["random"])


def test_hostile_text_stays_text(make_run: MakeRun) -> None:
    names = [hostile("class"), "eyes"]
    trial = record("a", val=0.9, scores={hostile("score"): 0.5}, cause=hostile("cause"))
    moving = record("b", 2, learned=True, strategy=hostile("strategy"), ends={"conv6": 0.8},
                    trace=((0, "conv6", 1.0), (9, "conv6", 0.8)))  # fmt: skip
    run = make_run(
        [trial, moving, record("c", candidate=json.dumps({hostile("site"): {"dilation": 2}}))],
        data={"classes": names, "name": hostile("data"), "notice": hostile("notice"), "summary": hostile("summary")},
        space={"title": hostile("title"), "metric": hostile("metric")},
        versions={hostile("version"): hostile("number")},
        request={"space": hostile("request")},
        notices=[hostile("weights")],
        command=hostile("command"),
    )
    examples(run.directory / "checkpoints" / "a")
    page = Page(write(run.directory))
    assert page.tags.count("script") == 4
    assert page.tags.count("img") == 3 * 2
    for what in ("class", "score", "cause", "strategy", "data", "notice", "title", "metric", "command", "request"):
        assert f"alert('{what}')" in page.text, what
    assert "49" not in page.row("a")[0]
    drawn = json.dumps([(trace.get("name"), trace.get("text")) for f in page.figures.values() for trace in f["data"]])
    assert "<script" not in drawn
    assert "&lt;script" in drawn
    assert "%{x}" not in drawn
    assert "<" not in page.payload


def test_no_text_of_a_table_is_a_formula(make_run: MakeRun) -> None:
    trial = record("=cmd|' C calc'!A0", strategy="@SUM(1)", cause="-1+1\ttext", val=-0.5, test=-0.6)
    write_dir = write(make_run([trial]).directory).parent
    for name in ("trials", "anytime", "pareto"):
        rows = list(csv.reader((write_dir / f"{name}.csv").open(encoding="utf-8")))
        for cell in (cell for row in rows for cell in row):
            assert not cell.startswith(("=", "@", "+", "\t")), cell
            assert not cell.startswith("-") or float(cell) < 0
    (row,) = csv.DictReader((write_dir / "trials.csv").open(encoding="utf-8"))
    assert (row["trial"], row["val"]) == ("'=cmd|' C calc'!A0", "-0.5")


def test_many_classes_do_not_widen_the_table(make_run: MakeRun) -> None:
    classes = [f"class {k}" for k in range(150)]

    def scores(best: int) -> dict[str, float]:
        return {f"iou_{k}": 0.9 if k == best else 0.5 for k in range(150)}

    default = record("a", 1, val=0.5, scores=scores(7))
    run = make_run([default, record("b", 4, val=0.8, scores=scores(149))], data={"classes": classes})
    page = Page(write(run.directory))
    assert len(page.row("trial")) < 12
    assert "The 150 scores of classes are in ledger.jsonl." in page.text
    rows = page.figures["class-scores"]["data"][0]["y"]
    assert len(rows) == 40
    assert (rows[0], rows[-1]) == ("class 149", "class 7")  # by the difference to the hand default


def test_losses_stand_below_validation_scores_where_they_are_known(make_run: MakeRun) -> None:
    rungs = [Rung(step, 0.01 * step, {}, Cost(1e11 * step, 1.0, 1.0), loss=2 / step) for step in (25, 50, 75)]
    page = Page(write(make_run([record("a", rungs=tuple(rungs))]).directory))
    lines = page.figures["validation-curves"]["data"]
    below = [line["y"] for line in lines if line.get("yaxis") == "y2"]
    assert below
    assert below[0] == pytest.approx([2 / 25, 2 / 50, 2 / 75], rel=1e-5)
    assert "Below: the mean training loss" in page.text


def test_classes_of_the_hand_default_alone_are_compared_with_nothing(make_run: MakeRun) -> None:
    page = Page(write(make_run([record("a", dilation=1)]).directory))
    assert "over the hand default" not in page.text
    assert "from the highest score of the recommendation to the lowest" in page.text


def test_unfinished_run_says_so(make_run: MakeRun) -> None:
    page = Page(write(make_run([record("a")], open_trials=1).directory))
    assert "This run is unfinished: the page shows what it holds so far." in page.text


def test_tables_have_the_contracts_columns(make_run: MakeRun) -> None:
    run = make_run(rich(), arms=arms(2))
    write(run.directory)
    trials, curve, front = (pd.read_csv(run.directory / f"{name}.csv") for name in ("trials", "anytime", "pareto"))
    assert tuple(trials.columns) == TRIAL_COLUMNS
    assert tuple(curve.columns) == ANYTIME_COLUMNS
    assert tuple(front.columns) == ("axis", "trial", "strategy", "candidate", "cost", "val", "test")
    assert len(trials) == len(curve) == len(run.records)
    assert set(front["trial"]) <= set(trials["trial"])


@pytest.mark.parametrize("test", [0.69, None])
def test_the_score_that_the_search_went_by_is_reported_once(make_run: MakeRun, test: float | None) -> None:
    told = record("a", val=0.7, test=test, scores={"f_eye_pooled": 0.6, "f_classmean_pooled": test or 0.7})
    page = Page(write(make_run([told], space={"primary": "f_classmean_pooled"}).directory))
    head = page.row("trial")
    assert ("test" in head, "f eye pooled" in head, "f classmean pooled" in head) == (test is not None, True, False)
    assert len(page.row("a")) == len(head)
    assert "The metric, f_classmean_pooled, on the validation split" in page.text


def test_page_says_how_latency_was_measured(make_run: MakeRun) -> None:
    old = make_run([record("a"), record("b", 4)])
    text = Page(write(old.directory)).text
    assert "measured them while other trials trained" in text
    assert "One image takes" not in text
    Journal(old.directory).latency(["a"], Latency(2.0, 1.9, 2.1, "a device, 1 thread", "x"))
    text = Page(write(old.directory)).text
    assert "while other trials trained" not in text
    assert "when nothing else of it runs (a device, 1 thread)" in text
    assert "Not measured: 1 scored trial of 2." in text


def test_no_latency_is_not_talked_about(make_run: MakeRun) -> None:
    text = Page(write(make_run([record("a", infer_latency_ms=None)]).directory)).text
    assert "nothing else of it runs" not in text


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04torn"])
def test_pictures_that_cannot_be_read_are_left_out(make_run: MakeRun, content: bytes) -> None:
    run = make_run([record("a")])
    folder = run.directory / "checkpoints" / "a"
    folder.mkdir(parents=True)
    (folder / "examples.npz").write_bytes(content)
    assert "or none that can be read" in Page(write(run.directory)).text


def test_report_imports_neither_torch_nor_ray() -> None:
    code = "import sys, rfsearch.report; print({'torch', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_writing_twice_gives_the_same_page(make_run: MakeRun) -> None:
    run = make_run([record("a"), record("b", 4, candidate=candidate(4))])
    first = write(run.directory).read_bytes()
    assert write(run.directory).read_bytes() == first


def test_the_page_of_a_run_of_schema_1_is_as_it_was(tmp_path: Path) -> None:
    """Rows as the last version wrote them whose `f` was also what stood for a dilation found in training."""
    shutil.copy(Path(__file__).parents[1] / "ledger" / "searched_schema_1.jsonl", tmp_path / "ledger.jsonl")
    (tmp_path / "manifest.json").write_text(json.dumps(manifest()))
    page = Page(write(tmp_path))
    rows = [
        ["fractional-0-000", "completed", "found 1.31", "–", "1", "–", "26", "0.056", "0.007"],
        ["inflation-0-000", "completed", "1", "23", "0.628", "–", "28", "0.048", "0.043"],
        ["exhaustive-0-000", "completed", "1", "23", "1", "–", "23", "0.061", "0.047"],
        ["inflation@bi-0-000 ★", "completed", "1 | 1", "23", "1.285 | 1.244", "left eye, right eye | –", "21 (21 | 21)",
         "0.071", "0.052"],
        ["lsdfn-0-000", "completed", "1", "47", "γ 0.998", "–", "47", "0.061", "0.048"],
    ]  # fmt: skip
    assert [page.row(row[0].split()[0])[:9] for row in rows] == rows
