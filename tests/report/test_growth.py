"""A report of many trials: every candidate is read once, and four times the trials take four times the work."""

import json
import random
import time
from pathlib import Path

import pytest

from rfsearch.choices import Candidate, Inflated, candidate
from rfsearch.ledger import Assignment, Journal, Record, read_run
from rfsearch.report import summarise, write
from tests.growth import lines_run
from tests.report.made_up import manifest, record

STRATEGIES = ("exhaustive", "random", "inflation")


def trials(count: int) -> list[Record]:
    """Several arms; fixed, drawn and learned candidates, most of them distinct; incumbents that keep changing."""
    draw, found = random.Random(count), []
    for i in range(count):
        strategy, seed = STRATEGIES[i % 3], i // 3 % 2
        learned = strategy == "inflation"
        choice = Inflated(2, round(draw.uniform(0.5, 2.0), 6), learned)
        val, latency = i / count + draw.uniform(0, 0.1), draw.uniform(1, 9)
        found.append(
            record(f"{strategy}-{seed}-{i}", val=val, test=val, strategy=strategy, seed=seed, train_seed=i,
                   candidate=Candidate({"conv6": choice}).to_json(), rf_px=draw.randint(30, 90),
                   ends={"conv6": draw.uniform(0.5, 2.0)} if learned else {},
                   trace=((0, "conv6", 1.0), (9, "conv6", 1.1)),
                   status="failed" if i % 10 == 7 else "completed", cause="NaN loss" if i % 10 == 7 else "",
                   infer_latency_ms=latency, infer_latency_spread_ms=(0.9 * latency, 1.1 * latency))
        )  # fmt: skip
    return found


def directory(folder: Path, records: list[Record]) -> Path:
    folder.mkdir()
    journal = Journal(folder)
    for r in records:
        journal.start(Assignment(r.trial, r.strategy, r.seed, r.candidate, r.train_seed, 1e12))
        journal.finish(r)
    arms = [{"strategy": s, "seed": seed} for s in STRATEGIES for seed in range(2)]
    (folder / "manifest.json").write_text(json.dumps(manifest(arms=arms)))
    return folder


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rfsearch.ledger.journal.os.fsync", lambda _: None)


@pytest.mark.parametrize("work", [write, lambda folder: summarise(read_run(folder))], ids=["write", "verdict"])
def test_work_grows_as_the_trials_do(tmp_path: Path, work) -> None:
    few, many = (directory(tmp_path / str(count), trials(count)) for count in (60, 240))
    assert lines_run(lambda: work(many)) < 4.4 * lines_run(lambda: work(few))


def test_a_candidate_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    of = candidate.read_choice
    monkeypatch.setattr(candidate, "read_choice", lambda body: read.append(body) or of(body))
    records = trials(61)  # texts of its own, which no other test has read
    run = directory(tmp_path / "run", records)
    write(run)
    summarise(read_run(run))
    distinct = {r.candidate for r in records}
    assert sum(json.dumps(body) in text for text in distinct for body in read) <= len(distinct)
    texts = distinct | {r.outcome for r in records}
    assert len(read) <= len(texts) + 1  # and the hand default


def test_a_page_of_many_trials_is_small(tmp_path: Path) -> None:
    """300 trials of three strategies, a third of which learned: 2 MB at most."""
    page = write(directory(tmp_path / "run", trials(300)))
    assert page.stat().st_size < 2e6


@pytest.mark.slow
def test_a_page_of_thousands_of_trials_is_small_and_soon_there(tmp_path: Path) -> None:
    began = time.process_time()
    page = write(directory(tmp_path / "run", trials(5000)))
    assert page.stat().st_size < 8e6
    assert time.process_time() - began < 20
