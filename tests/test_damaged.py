"""Whatever has become of a run's files: one message of ours, or a result. Never another exception."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rfsearch.choices import Candidate
from rfsearch.cli.report import summarise_arms
from rfsearch.errors import RfsearchError, RunDirectoryError, SpaceError
from rfsearch.ledger import read_history, read_run
from rfsearch.networks import trained
from rfsearch.planning.competition import contest_of
from rfsearch.planning.directory import reopen_run
from rfsearch.report import summarise, write
from tests.small_run import CPU, begin, train

WRONG: tuple[Any, ...] = (None, [], {}, "junk", -1, 10**40, 0, 1e300, [None], {"a": []}, True, [[1]])
DEEP = "[" * 5000 + "]" * 5000


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The files of a run with two finished trials and one in training, and its plan."""
    run_dir, plan = begin(tmp_path_factory.mktemp("damaged"))
    train(run_dir, plan, 2)
    return run_dir, plan


@pytest.fixture
def damaged(made, monkeypatch):
    """The run, whose manifest and ledger are put back afterwards; planning anew, which takes long, is left out."""
    run_dir, plan = made
    monkeypatch.setattr("rfsearch.planning.directory.make_plan", lambda *_: plan)
    monkeypatch.setattr("rfsearch.planning.directory.load_data", lambda *_: plan.data)
    whole = {name: (run_dir / name).read_bytes() for name in ("manifest.json", "ledger.jsonl")}
    yield run_dir
    for name, body in whole.items():
        (run_dir / name).write_bytes(body)


def resume(run_dir: Path) -> None:
    contest_of(reopen_run(run_dir, CPU), run_dir)


def report(run_dir: Path) -> None:
    found = read_run(run_dir)
    summarise(found)
    summarise_arms(found)


READERS = (resume, report, trained)


def complaint(reader: Any, run_dir: Path) -> str:
    """What a reader says of a run, or "" where it reads it."""
    try:
        reader(run_dir)
    except RfsearchError as error:
        return str(error)
    return ""


def places(body: Any, *at: Any) -> Iterator[tuple[Any, ...]]:
    """The path of every value in JSON, the first of each list."""
    if at:
        yield at
    items = body.items() if isinstance(body, dict) else enumerate(body[:1]) if isinstance(body, list) else ()
    for key, value in items:
        yield from places(value, *at, key)


def changed(text: str, at: tuple[Any, ...], how: Any) -> str:
    """JSON with another value at a path. how: the value, or a function of what holds it and its key."""
    body = json.loads(text)
    inner = body
    for key in at[:-1]:
        inner = inner[key]
    if callable(how):
        how(inner, at[-1])
    else:
        inner[at[-1]] = how
    return json.dumps(body)


def without(inner: Any, key: Any) -> None:
    del inner[key]


def test_the_files_as_they_are_can_be_read(damaged):
    assert [complaint(reader, damaged) for reader in READERS] == [""] * 3


def test_every_value_of_a_manifest_may_be_wrong_or_missing(damaged):
    path, draw = damaged / "manifest.json", random.Random(0)
    text = path.read_text()
    told = 0
    for at in places(json.loads(text)):
        for wrong in (without, *draw.sample(WRONG, 1)):
            path.write_text(changed(text, at, wrong))
            said = [complaint(reader, damaged) for reader in READERS]
            told += any(said)
    assert told > 50


def test_every_value_of_a_ledger_may_be_wrong_or_missing(damaged, made):
    def replay(run_dir: Path) -> None:
        contest_of(made[1], run_dir)

    path, draw = damaged / "ledger.jsonl", random.Random(0)
    lines = path.read_text().splitlines()
    told = 0
    for number, line in enumerate(lines):
        for at in places(json.loads(line)):
            for wrong in (without, *draw.sample(WRONG, 2)):
                path.write_text("\n".join([*lines[:number], changed(line, at, wrong), *lines[number + 1 :]]) + "\n")
                said = [complaint(reader, damaged) for reader in (replay, report)]
                told += any(said)
    assert told > 100


@pytest.mark.parametrize("name", ["manifest.json", "ledger.jsonl"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]\n",
        b"null\n",
        b"3\n",
        b'"run"\n',
        b"{}\n",
        b"\xff\xfe\x00\n",
        b"{\n",
        DEEP.encode() + b"\n",
        b'{"a": ' * 5000 + b"\n",
    ],
    ids=lambda body: repr(body[:8]),
)
def test_a_file_that_is_something_else_is_named(damaged, name, body):
    (damaged / name).write_bytes(body)
    if body and (name, body) != ("ledger.jsonl", b""):
        assert name in complaint(report, damaged)
    complaint(resume, damaged)
    complaint(trained, damaged)


@pytest.mark.parametrize(
    ("event", "parts"),
    [
        ("[1]", ["line 2", "not a ledger event"]),
        ('"start"', ["line 2", "not a ledger event"]),
        (DEEP, ["line 2", "nested too deeply"]),
        ('{"event": "ledger"}', ["line 2", "schema"]),
        ('{"event": "ledger", "schema": []}', ["line 2", "schema"]),
        ('{"event": "start", "trial": "a"}', ["line 2", "strategy"]),
        ('{"event": "finish", "trial": ["a"]}', ["line 2", "trial"]),
        ('{"event": "finish", "trial": "a", "strategy": "s", "seed": 0, "status": "lost", "candidate": "{}", '
         '"rf_px": 1, "rf_init_px": 1, "cost": {}}', ["line 2", "status: Input should be 'completed'", "Got 'lost'"]),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)  # fmt: skip
def test_a_damaged_line_of_a_ledger_is_reported_by_its_number(damaged, event, parts):
    path = damaged / "ledger.jsonl"
    path.write_text(path.read_text().replace("\n", f"\n{event}\n", 1))
    for reader in (resume, report):
        said = complaint(reader, damaged)
        assert all(part in said for part in ("ledger.jsonl", *parts)), said


def test_keys_that_a_newer_version_adds_are_passed_over(damaged):
    before = read_history(damaged)
    path = damaged / "ledger.jsonl"
    lines = [json.dumps(json.loads(line) | {"colour": "red"}) for line in path.read_text().splitlines()]
    path.write_text("\n".join([*lines, ""]))
    assert read_history(damaged) == before


def test_a_trial_of_an_arm_that_the_run_does_not_have_is_reported(damaged):
    path = damaged / "ledger.jsonl"
    path.write_text(path.read_text().replace('"strategy":"exhaustive"', '"strategy":"exhausting"'))
    assert "of arm exhausting/0, which this run does not have. Its arms: exhaustive/0, optuna/0" in complaint(
        resume, damaged
    )
    assert complaint(report, damaged) == ""


@pytest.mark.parametrize("cost", ["NaN", "Infinity", "-1.0"])
def test_a_cost_that_is_no_amount_is_not_gone_on_from(damaged, cost):
    path = damaged / "ledger.jsonl"
    event = json.loads(next(line for line in path.read_text().splitlines() if '"finish"' in line))
    path.write_text(path.read_text().replace(f'"cost":{{"flop":{event["cost"]["flop"]}', f'"cost":{{"flop":{cost}'))
    assert "a cost that is no amount" in complaint(resume, damaged)


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_damaged_checkpoint_is_reported_by_its_file(damaged, keep):
    best = max(read_run(damaged).records, key=lambda record: record.val or 0)
    path = damaged / "checkpoints" / best.trial / "model.pt"
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:keep])
        with pytest.raises(RunDirectoryError, match=r"model\.pt: damaged: no checkpoint can be read"):
            trained(damaged)
        torch.save([1], path)
        with pytest.raises(RunDirectoryError, match=r"model\.pt: damaged"):
            trained(damaged)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "3", '{"a": 3}', '{"a": {}}', '{"a": {"dilation": null}}', '{"a": {"dilation": 1e999}}', DEEP,
     '{"a": ' + DEEP + "}", '{"a": {"dilation": 1, "f": NaN}}', '{"a": {"dilation": 1, "gamma": 2}}',
     '{"a": {"dilation": 1, "labels": 7}}', '{"a": [[]]}', '{"a": {"dilation": [4]}}'],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_a_candidate_that_is_none_is_a_space_error(text):
    with pytest.raises(SpaceError):
        Candidate.from_json(text)


def test_a_report_of_the_whole_run_is_written(damaged):
    assert write(damaged).exists()
