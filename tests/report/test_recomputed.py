"""Numbers of the verdict and the page, worked out again from ledger.jsonl without any code of the report."""

from __future__ import annotations

import json
import math
import random
import re
import statistics as st
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from rfsearch.choices import Candidate, Searched
from rfsearch.ledger import Cost, Record
from rfsearch.report import summarise
from rfsearch.report.page import write
from tests.report.made_up import REFERENCE_FLOP, MakeRun, candidate, record

SEEDS = 5
MEANS = {1: 0.60, 3: 0.701, 4: 0.705, 8: 0.66}


def ledger() -> list[Record]:
    """Five seeds of a sweep, of a random search and of trainings that find their dilation, with failures and cuts."""
    draw, records = random.Random(7), []
    searched = Candidate({"conv6": Searched(2)}).to_json()
    for seed in range(SEEDS):
        for d, level in MEANS.items():
            val = level + draw.gauss(0, 0.004)
            records.append(
                record(f"exhaustive-{seed}-{d}", d, val=val, test=val - 0.01 + draw.gauss(0, 0.004), seed=seed,
                       train_seed=1000 * seed, cost=Cost(1e12 + draw.uniform(0, 1e10), draw.uniform(28, 32), 4.0),
                       infer_latency_ms=2.0 + d / 10, infer_latency_spread_ms=(1.9 + d / 10, 2.1 + d / 10))
            )  # fmt: skip
        val = 0.69 + draw.gauss(0, 0.01)
        records += [
            record(f"random-{seed}-0", 8, val=None, test=None, status="failed", cause="NaN loss", strategy="random",
                   seed=seed, cost=Cost(0.2e12, 5.0, 1.0)),
            record(f"random-{seed}-1", 2, val=val, test=val - 0.02, strategy="random", seed=seed,
                   train_seed=1000 * seed, cost=Cost(1.1e12, 33.0, 4.0)),
        ]  # fmt: skip
        val = 0.703 + draw.gauss(0, 0.004)
        records.append(
            record(f"fractional-{seed}-0", 2, val=val, test=val, strategy="fractional", seed=seed, steps=125,
                   train_seed=1000 * seed, candidate=searched, ends={"conv6": 3.4 + 0.05 * seed}, rf_px=114,
                   cost=Cost(1.4e12, 40.0, 5.0))
        )  # fmt: skip
    return records


@pytest.fixture
def told(make_run: MakeRun) -> tuple[str, list[dict[str, Any]], str]:
    """The verdict as text, the records of the ledger as JSON, and the page."""
    arms = [{"strategy": s, "seed": k} for k in range(SEEDS) for s in ("exhaustive", "random", "fractional")]
    run = make_run(ledger(), arms=arms, budget={"limit": 6e12, "text": "6x"}, space={"dilations": [1, 2, 3, 4, 8]})
    lines = [json.loads(line) for line in (run.directory / "ledger.jsonl").read_text().splitlines()]
    page = Path(write(run.directory)).read_text(encoding="utf-8")
    return str(summarise(run)), [line for line in lines if line["event"] == "finish"], page


def numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in re.findall(r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]\d+)?", text)]


def sentence(text: str, begin: str) -> str:
    return text[text.index(begin) :].split(". ")[0]


def of(rows: list[dict[str, Any]], split: str, dilation: int) -> list[float]:
    return [r[split] for r in rows if r["candidate"] == candidate(dilation) and r["status"] == "completed"]


def close(found: list[float], expected: list[float], places: float = 0.0006) -> None:
    assert found == pytest.approx(expected, abs=places), (found, expected)


def t_interval(values: list[float]) -> list[float]:
    half = stats.t.ppf(0.975, len(values) - 1) * st.stdev(values) / math.sqrt(len(values))
    return [st.mean(values), len(values), 95, st.mean(values) - half, st.mean(values) + half]


def test_numbers_of_the_verdict_follow_from_the_ledger(told) -> None:
    text, rows, _ = told
    means = {d: st.mean(of(rows, "val", d)) for d in MEANS}
    best = max(means, key=means.get)
    assert text.startswith(f"Use dilation {best} at conv6 ({60 + 16 * best} px).")  # 2 numbers
    tests = {d: stats.ttest_ind(of(rows, "val", d), of(rows, "val", best)).pvalue for d in MEANS}
    alike = {d: of(rows, "test", d) for d, p in tests.items() if p > 0.05}
    found = [[r[split] for r in rows if r["strategy"] == "fractional"] for split in ("val", "test")]
    assert stats.ttest_ind(found[0], of(rows, "val", best)).pvalue > 0.05
    gains = [st.mean(scores) - st.mean(of(rows, "test", 1)) for scores in (*alike.values(), found[1])]
    beat = sentence(text, "Both beat the hand default" if len(gains) == 2 else "All beat the hand default")
    close(numbers(beat), [min(gains), max(gains), 100, 125], 0.0051)  # 4, the lengths among them
    scored = sentence(text, "It scored")
    ours = of(rows, "test", best)
    close(numbers(scored)[:5], t_interval(ours))  # 5
    close(numbers(scored)[-1:], [means[best]])  # 1
    winner = max(rows, key=lambda r: r["val"] or 0)
    if winner["candidate"] != candidate(best):
        close(numbers(sentence(text, "The best single training"))[-1:], [winner["val"]])
    default = of(rows, "test", 1)
    against = numbers(sentence(text, "The hand default (dilation 1"))
    pooled = math.sqrt((st.variance(ours) + st.variance(default)) / 2)
    least = stats.t.ppf(0.975, 8) * pooled * math.sqrt(2 / 5)
    close(against[3:8], t_interval(default))  # 5
    close(against[8:10], [st.mean(ours) - st.mean(default), least], 0.006)  # 2


def test_prices_of_the_verdict_follow_from_the_ledger(told) -> None:
    text, rows, _ = told
    means = {d: st.mean(of(rows, "val", d)) for d in MEANS}
    best = max(means, key=means.get)
    own = max((r for r in rows if r["candidate"] == candidate(best)), key=lambda r: r["val"])
    arm = [r for r in rows if (r["strategy"], r["seed"]) == (own["strategy"], own["seed"])]
    until = arm[: arm.index(own) + 1]
    flop, seconds = sum(r["cost"]["flop"] for r in until), sum(r["cost"]["device_s"] for r in until)
    price = numbers(sentence(text, "Its training cost"))
    assert price == pytest.approx([own["cost"]["flop"] / 1e12, own["cost"]["flop"] / REFERENCE_FLOP,
                                   own["cost"]["device_s"]], rel=0.006)  # fmt: skip
    said = numbers(sentence(text, "Including everything it had tried"))
    assert said[:2] == pytest.approx([flop / 1e12, flop / REFERENCE_FLOP], rel=0.006)
    assert 60 * said[2] + said[3] == pytest.approx(seconds, abs=0.6)
    total = numbers(sentence(text, "All 15 arms together"))
    assert total[1] == pytest.approx(sum(r["cost"]["flop"] for r in rows) / 1e12, rel=0.006)


def test_comparisons_of_strategies_follow_from_the_ledger(told) -> None:
    text, rows, _ = told
    ends: dict[str, dict[int, float]] = {}
    for r in rows:
        best = max((x for x in rows if (x["strategy"], x["seed"]) == (r["strategy"], r["seed"])),
                   key=lambda x: x["val"] or 0)  # fmt: skip
        ends.setdefault(r["strategy"], {})[r["seed"]] = best["test"]
    ranking = sentence(text, "Where each strategy ended")
    for strategy, values in ends.items():
        part = ranking[ranking.index(f"{strategy} 0.") :].split(";")[0]
        close(numbers(part)[:5], t_interval(list(values.values())))
    leader = max(ends, key=lambda s: st.mean(ends[s].values()))
    chance = sentence(text, f"Probability that {leader}")
    for strategy, values in ends.items():
        if strategy != leader:
            wins = [(a > b) + (a == b) / 2 for a in ends[leader].values() for b in values.values()]
            assert float(re.search(rf"{strategy} ([\d.]+)", chance)[1].rstrip(".")) == pytest.approx(
                st.mean(wins), abs=0.006
            )
    failed = [r for r in rows if r["status"] == "failed"]
    assert numbers(sentence(text, "5 trials of")) == [len(failed), len(rows)]
    assert "5 found 3.4 to 3.6" in text


def test_the_curve_of_the_page_is_that_of_the_incumbents(told) -> None:
    _, rows, page = told
    payload = json.loads(re.search(r'id="payload">(.*?)</script>', page, re.DOTALL)[1])
    figure = next(f for f in payload["figures"] if f["name"] == "anytime")
    trace = next(t for t in figure["data"] if t.get("name") == "exhaustive (5 seeds)" and t["visible"])
    x, y = (payload["arrays"][trace[k]["$"]] if isinstance(trace[k], dict) else trace[k] for k in "xy")
    curves = []
    for seed in range(SEEDS):
        spent, best, points = 0.0, None, []
        for r in rows:
            if (r["strategy"], r["seed"]) == ("exhaustive", seed):
                spent += r["cost"]["flop"] / REFERENCE_FLOP
                best = r if best is None or r["val"] > best["val"] else best
                points.append((spent, best["test"]))
        curves.append(points)
    for (at, level), (after, _) in pairwise(zip(x, y, strict=True)):
        here = (at + after) / 2
        expected = st.mean(next(v for s, v in reversed(points) if s <= here) for points in curves)
        assert level == pytest.approx(expected, abs=1e-4)
