"""Latencies: measured after a run, each shape of network once, and never lost."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rfsearch import cli, plugins, timing
from rfsearch.choices import Candidate, Choice, Dilated, Fractional, Guest, Inflated, Sampled, Searched, SitePath
from rfsearch.errors import ModelError
from rfsearch.interrupt import Interrupted
from rfsearch.ledger import Journal, Record, Request, read_run
from rfsearch.planning.directory import start_run
from rfsearch.planning.plan import Plan, make_plan
from rfsearch.planning.request import check_request
from rfsearch.surgery import assemble
from rfsearch.timing import time_networks
from rfsearch.training import settings_of
from rfsearch.training.latency import shape_of
from tests.report.made_up import record
from tests.toys import CLIMBING, toy_faces, toy_file, toy_space

CPU = torch.device("cpu")
SHAPE = (1, 3, 48, 48)


def nothing() -> None:
    pass


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    folder = tmp_path_factory.mktemp("plan")
    return make_plan(check_request(Request(space=str(toy_file(folder)), strategies=("exhaustive",))), toy_faces(), CPU)


def finished(plan: Plan, folder: Path, *records: Record) -> Path:
    start_run(plan, folder, "rfsearch run", 1, "cpu")
    for one in records:
        Journal(folder).finish(replace(one, infer_latency_ms=None))
    return folder


def given(name: str, choice: Choice | list[Choice], **changes: object) -> Record:
    return record(name, candidate=Candidate({"conv6": choice}).to_json(), **changes)


@pytest.fixture
def measured(monkeypatch) -> list[str]:
    """How often passes were timed, without timing any: each network takes 1 ms more than the one before."""
    times = itertools.count(1)
    seen: list[str] = []

    def passes(model, size, device, check):
        check()
        seen.append("network")
        median = float(next(times))
        return median, median - 0.1, median + 0.1

    monkeypatch.setattr(timing, "time_passes", passes)
    return seen


def test_each_shape_of_network_is_measured_once(plan, tmp_path, measured):
    folder = finished(
        plan,
        tmp_path,
        given("a", Dilated(2)),
        given("b", Dilated(2), seed=1, train_seed=1),
        given("learned", Inflated(2, learned=True), ends={"conv6": 1.0}),
        given("found", Searched(2), ends={"conv6": 2}),
        given("other", Dilated(4)),
        given("failed", Dilated(1), status="failed", val=None),
        given("pruned", Dilated(1), status="pruned"),
    )
    assert time_networks(plan, folder, CPU, nothing) == []
    assert len(measured) == 2
    found = {r.trial: (r.infer_latency_ms, r.infer_latency_spread_ms) for r in read_run(folder).records}
    assert found["a"] == found["b"] == found["learned"] == found["found"] != found["other"]
    assert found["a"][1] == pytest.approx((found["a"][0] - 0.1, found["a"][0] + 0.1))
    assert found["failed"] == found["pruned"] == (None, None)


def shape(choice: Choice | list[Choice]) -> str:
    space = toy_space(Path(shape.folder))
    backbone = plugins.make_backbone(space.backbone, 11, 3)
    model, _ = assemble(backbone, Candidate({"conv6": choice}), settings_of(space, toy_faces().classes))
    return shape_of(model.eval(), SHAPE, CPU)


@pytest.fixture(autouse=True)
def space_folder(tmp_path):
    shape.folder = tmp_path


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (Dilated(2), Dilated(2), True),
        (Dilated(2), Dilated(4), False),
        (Dilated(2), [Dilated(2), Dilated(4)], False),
        (Inflated(2, 1.5), Dilated(2), False),
        (Inflated(2, 1.51), Inflated(2, 1.5101), True),  # the same maps
        (Inflated(2, 1.5, learned=True), Inflated(2, 1.5), True),
        (Fractional(2.6), Fractional(2.7), True),  # between the same pixels
        (Fractional(2.6), Fractional(3.6), False),
        (Fractional(2.6), Dilated(3), False),
        (Sampled(1, 1.0, 3), Sampled(1, 2.0, 3), False),
        (Sampled(1, 1.3, 3), Sampled(1, 1.4, 3), True),
        (Sampled(1, 1.0, 3), Sampled(1, 1.0, 5), False),
        (Guest(2, CLIMBING), Dilated(2), False),
        (SitePath(Dilated(2), ("skin",)), Dilated(2), True),
    ],
)
def test_what_makes_a_shape(one, other, same):
    if isinstance(one, SitePath):
        one = replace(one, labels=(toy_faces().classes[1],))
    assert (shape(one) == shape(other)) is same


def test_a_shape_knows_the_work_of_a_layer():
    space = toy_space(shape.folder)
    backbone = plugins.make_backbone(space.backbone, 11, 3)
    candidate = Candidate({"conv6": Guest(1, CLIMBING)})
    model, learnable = assemble(backbone, candidate, settings_of(space, toy_faces().classes))
    before = shape_of(model.eval(), SHAPE, CPU)
    learnable.layers["conv6"].twice = False
    assert shape_of(model, SHAPE, CPU) != before


def test_what_was_measured_before_an_interrupt_stays(plan, tmp_path, measured):
    folder = finished(plan, tmp_path, *(given(f"d{d}", Dilated(d), val=d / 10) for d in (1, 2, 4)))

    def stop_after_one():
        if measured:
            raise Interrupted

    with pytest.raises(Interrupted):
        time_networks(plan, folder, CPU, stop_after_one)
    first = dict(read_run(folder).latencies)
    assert len(first) == 1
    assert time_networks(plan, folder, CPU, nothing) == []
    assert len(measured) == 3
    assert read_run(folder).latencies.keys() == {"d1", "d2", "d4"}
    assert first.items() <= read_run(folder).latencies.items()
    before = (folder / "ledger.jsonl").read_bytes()
    assert time_networks(plan, folder, CPU, nothing) == []
    assert (folder / "ledger.jsonl").read_bytes() == before


def test_a_shape_that_was_measured_earlier_is_not_measured_again(plan, tmp_path, measured):
    folder = finished(plan, tmp_path, given("a", Dilated(2)))
    time_networks(plan, folder, CPU, nothing)
    Journal(folder).finish(given("late", Dilated(2), seed=1, infer_latency_ms=None))
    time_networks(plan, folder, CPU, nothing)
    assert len(measured) == 1
    latencies = read_run(folder).latencies
    assert latencies["late"] == latencies["a"]


def test_another_number_of_threads_measures_all_again(plan, tmp_path, measured, monkeypatch):
    folder = finished(plan, tmp_path, given("a", Dilated(2)), given("b", Dilated(4)))
    time_networks(plan, folder, CPU, nothing)
    Journal(folder).finish(given("c", Dilated(1), infer_latency_ms=None))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    time_networks(plan, folder, CPU, nothing)
    assert len(measured) == 5
    assert {latency.where.rpartition(", ")[2] for latency in read_run(folder).latencies.values()} == {"64 threads"}


def test_time_that_is_up_leaves_the_least_important_and_says_so(plan, tmp_path, measured, monkeypatch):
    leaders = [given("best", Dilated(4), val=0.9, rf_px=90), given("other-arm", Dilated(2), val=0.1, seed=1, rf_px=80)]
    rest = [given(f"f{i}", Inflated(2, 1 + i / 10), val=0.2 + i / 100, rf_px=95) for i in range(1, 5)]
    cheap = given("small-field", Dilated(1), val=0.15, rf_px=20)
    folder = finished(plan, tmp_path, *rest, *leaders, cheap)
    clock = itertools.count()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(clock)))
    (said,) = time_networks(plan, folder, CPU, nothing, most_s=5)
    assert read_run(folder).latencies.keys() == {"best", "other-arm", "small-field", "f4"}
    assert said.startswith("3 trials left without a latency after 5 s")
    assert f"rfsearch resume {folder}" in said


def test_a_network_that_is_gone_is_said_and_the_others_are_measured(plan, tmp_path, measured, monkeypatch):
    folder = finished(plan, tmp_path, given("a", Dilated(2)), given("gone", Guest(1, "absent.package:layer")))
    (said,) = time_networks(plan, folder, CPU, nothing)
    assert said.startswith("No latency of gone: conv6: layer 'absent.package:layer'")
    assert read_run(folder).latencies.keys() == {"a"}

    def missing(*_):
        raise ModelError("no module named mynet")

    monkeypatch.setattr(plugins, "make_backbone", missing)
    Journal(folder).finish(given("b", Dilated(4)))
    assert time_networks(plan, folder, CPU, nothing) == ["No latency of gone, b: no module named mynet"]


def test_a_layer_whose_cost_changed_in_training_needs_its_checkpoint(plan, tmp_path, measured):
    folder = finished(plan, tmp_path, given("climbed", Guest(1, CLIMBING), ends={"conv6": 2}))
    (said,) = time_networks(plan, folder, CPU, nothing)
    assert said == (
        f"No latency of climbed: what {CLIMBING} costs changes in training, and only an arm's leader keeps its "
        "checkpoint"
    )


def test_passes_are_timed_for_real(plan, tmp_path):
    folder = finished(plan, tmp_path, given("a", Dilated(2)))
    time_networks(plan, folder, CPU, nothing)
    (latency,) = read_run(folder).latencies.values()
    assert 0 < latency.low_ms <= latency.median_ms <= latency.high_ms < 10_000


def test_networks_are_timed_after_the_engine_has_ended(tmp_path, monkeypatch):
    """And an interrupt there still leaves the tables, and says how to go on."""
    happened: list[str] = []

    class Idle:
        workers = 1

        def __enter__(self):
            return self

        def __exit__(self, *_):
            happened.append("engine ended")

        def run(self, *_):
            happened.append("engine ran")

    def timed(*_):
        happened.append("timed")
        raise Interrupted

    monkeypatch.setattr("rfsearch.conduct.start_engine", lambda request: Idle())
    monkeypatch.setattr(timing, "time_networks", timed)
    words = ["rfsearch", "run", "--space", str(toy_file(tmp_path)), "--strategies", "exhaustive", "--out", "out"]
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 130
    assert happened == ["engine ran", "engine ended", "timed"]
    assert (tmp_path / "out" / "report.html").exists()
