"""The ledger: append-only, on disk at once, forgiving of a torn last line, readable for ever."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rfsearch.choices import Candidate, Guest, Inflated, Sampled, SitePath
from rfsearch.errors import RunDirectoryError
from rfsearch.ledger import (
    Assignment,
    Journal,
    Latency,
    read_history,
    read_run,
)
from rfsearch.ledger.journal import LEDGER_FILE
from rfsearch.ledger.manifest import MANIFEST_FILE
from rfsearch.ledger.run_directory import create
from rfsearch.ledger.schema import SCHEMA
from rfsearch.report.rows import trials_table
from tests.ledger.records import RECORD

SEARCHED = Path(__file__).parent / "searched_schema_1.jsonl"  # learned and found values, before `outcome`
OLD_LEDGERS = sorted(Path(__file__).parent.glob("ledger_schema_*.jsonl"))

ASSIGNMENT = Assignment("exhaustive-0-000", "exhaustive", 0, RECORD.candidate, 0, 1e10)


def test_what_is_written_is_read_back_equal(tmp_path):
    journal = Journal(tmp_path)
    journal.start(ASSIGNMENT)
    journal.finish(RECORD)
    history = read_history(tmp_path)
    assert history.assignments == {ASSIGNMENT.trial: ASSIGNMENT}
    assert history.records == {RECORD.trial: RECORD}
    assert history.unfinished == []


def test_an_heir_is_written_down_and_what_is_none_reads_as_ever(tmp_path):
    journal, heir = Journal(tmp_path), replace(ASSIGNMENT, trial="heir", heir_of=ASSIGNMENT.trial)
    journal.start(ASSIGNMENT)
    journal.start(heir)
    journal.finish(replace(RECORD, trial="heir", heir_of=ASSIGNMENT.trial))
    plain, *_ = [line for line in (tmp_path / LEDGER_FILE).read_text().splitlines() if '"start"' in line]
    assert "heir_of" not in plain  # a version without heirs can read it
    history = read_history(tmp_path)
    assert history.assignments["heir"] == heir
    assert history.assignments[ASSIGNMENT.trial] == ASSIGNMENT
    assert history.records["heir"].heir_of == ASSIGNMENT.trial


def test_the_first_line_names_the_schema(tmp_path):
    Journal(tmp_path)
    first = (tmp_path / LEDGER_FILE).read_text().splitlines()[0]
    assert json.loads(first) == {"event": "ledger", "schema": SCHEMA}


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_a_torn_last_line_costs_only_itself(tmp_path, cut):
    journal = Journal(tmp_path)
    journal.start(ASSIGNMENT)
    journal.finish(RECORD)
    path = tmp_path / LEDGER_FILE
    path.write_bytes(path.read_bytes()[:-cut])
    assert [a.trial for a in read_history(tmp_path).unfinished] == [ASSIGNMENT.trial]
    Journal(tmp_path).finish(RECORD)  # a new event starts on a line of its own
    assert read_history(tmp_path).records == {RECORD.trial: RECORD}


def test_a_fault_in_the_middle_is_an_error_with_its_line(tmp_path):
    Journal(tmp_path).start(ASSIGNMENT)
    path = tmp_path / LEDGER_FILE
    path.write_text(path.read_text().replace('"event":"ledger"', '"event":'))
    with pytest.raises(RunDirectoryError, match="line 1: not a ledger event"):
        read_history(tmp_path)


@pytest.mark.parametrize(
    "name", ["../../evil", "/tmp/abs", "..", ".", "a/b", "a\\b", "a\x00b", "a\nb", "\ud800", "a" * 201]
)
@pytest.mark.parametrize("key", ["trial", "heir_of"])
@pytest.mark.parametrize("event", ["start", "finish"])
def test_a_trial_is_called_as_a_folder_may_be(tmp_path, name, key, event):
    """Its checkpoints are written to a folder of its name, and deleted there."""
    Journal(tmp_path)
    given = ASSIGNMENT.to_json() if event == "start" else RECORD.to_json()
    with (tmp_path / LEDGER_FILE).open("a") as file:
        file.write(json.dumps({"event": event, **given, key: name}) + "\n")
    with pytest.raises(RunDirectoryError, match=rf"ledger\.jsonl, line 2\.{key}: .*no slash and is not '\.\.'\. Got '"):
        read_history(tmp_path)


@pytest.mark.parametrize("name", ["inflation@bi-0-000", "MyStrategy-2@tri-11-1000", "Wählerin 2.0-0-000", "...", "~x"])
def test_whatever_a_strategy_is_called_names_its_trials(tmp_path, name):
    journal = Journal(tmp_path)
    journal.start(replace(ASSIGNMENT, trial=name))
    journal.finish(replace(RECORD, trial=name, heir_of=name))
    assert list(read_history(tmp_path).records) == [name]


def test_a_ledger_from_the_future_is_refused_in_words(tmp_path):
    (tmp_path / LEDGER_FILE).write_text(json.dumps({"event": "ledger", "schema": SCHEMA + 1}) + "\n")
    with pytest.raises(RunDirectoryError, match="newer rfsearch"):
        read_history(tmp_path)


def test_there_is_an_old_ledger_of_every_schema():
    assert [int(path.stem.rpartition("_")[2]) for path in OLD_LEDGERS] == list(range(1, SCHEMA + 1))


@pytest.mark.parametrize("old", OLD_LEDGERS, ids=lambda path: path.stem)
def test_old_ledgers_stay_readable(tmp_path, old):
    shutil.copy(old, tmp_path / LEDGER_FILE)
    history = read_history(tmp_path)
    assert len(history.assignments) == 3
    assert {r.status for r in history.records.values()} == {"completed", "failed"}
    assert len(history.unfinished) == 1


def test_records_of_schema_1_are_read_with_their_outcome(tmp_path):
    shutil.copy(SEARCHED, tmp_path / LEDGER_FILE)
    records = read_history(tmp_path).records
    found = records["fractional-0-000"]
    assert found.f == {}
    assert found.found["conv6"].numbers == pytest.approx({"dilation": 1.3139521178})
    assert [value for _, _, value in found.trace] == pytest.approx([2, 2, 1.3137931, 1.3139521], abs=1e-6)
    assert [rung.f for rung in found.rungs] == [{}, {}, {}]
    outcomes = {name: Candidate.from_json(record.outcome) for name, record in records.items()}
    assert outcomes["fractional-0-000"] == Candidate(found.found)
    assert outcomes["inflation-0-000"] == Candidate({"conv6": Inflated(1, 0.6275898218154907)})
    assert outcomes["inflation@bi-0-000"] == Candidate(
        {
            "conv6": [
                SitePath(Inflated(1, 1.2849960327148438), ("left eye", "right eye")),
                Inflated(1, 1.243524193763733),
            ]
        }
    )
    assert outcomes["lsdfn-0-000"] == Candidate({"conv6": Sampled(1, 0.9980185627937317, 5)})
    assert records["exhaustive-0-000"].outcome == records["exhaustive-0-000"].candidate


def test_a_layers_dilation_of_schema_2_is_what_it_found_and_not_rounded(tmp_path):
    candidate = Candidate({"conv6": [Guest(2, "a.b:c"), Inflated(4, learned=True)]}).to_json()
    event = {**RECORD.to_json(), "candidate": candidate, "f": {"conv6/2": 0.9}, "gamma": {}}
    outcome = '{"conv6": [{"dilation": 6, "layer": "a.b:c"}, {"dilation": 4, "f": 0.9}]}'
    event |= {"event": "finish", "dilation": {"conv6/1": 5.5}, "outcome": outcome, "trace": [[5, "conv6/1", 5.5]]}
    lines = [{"event": "ledger", "schema": 2}, event]
    (tmp_path / LEDGER_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (record,) = read_history(tmp_path).records.values()
    assert record.ended == Candidate({"conv6": [Guest(2, "a.b:c", found=5.5), Inflated(4, 0.9)]})
    assert record.trace == ((5, "conv6/1", 5.5),)


def test_rows_of_schema_1_are_as_before_but_for_f(tmp_path):
    """`f` was also the dilation that a search had started from over the one that it had found."""
    shutil.copy(SEARCHED, tmp_path / LEDGER_FILE)
    table = trials_table(read_history(tmp_path).records.values()).set_index("trial")
    assert dict(table.dilation) == {
        "fractional-0-000": "conv6=1.31395",
        "inflation-0-000": "conv6=1",
        "exhaustive-0-000": "conv6=1",
        "inflation@bi-0-000": "conv6/1=1;conv6/2=1",
        "lsdfn-0-000": "conv6=1",
    }
    assert dict(table.f) == {
        "fractional-0-000": "",
        "inflation-0-000": "conv6=0.62759",
        "exhaustive-0-000": "",
        "inflation@bi-0-000": "conv6/1=1.285;conv6/2=1.24352",
        "lsdfn-0-000": "",
    }
    assert list(table.gamma) == ["", "", "", "", "conv6=0.998019"]


def test_a_resumed_ledger_of_schema_1_says_that_what_follows_is_newer(tmp_path):
    shutil.copy(SEARCHED, tmp_path / LEDGER_FILE)
    before = read_history(tmp_path).records
    for _ in range(2):  # opened once or twice, it says so once
        Journal(tmp_path)
    lines = (tmp_path / LEDGER_FILE).read_text().splitlines()
    assert [json.loads(line)["schema"] for line in lines if '"event":"ledger"' in line] == [1, SCHEMA]
    new = replace(RECORD, outcome='{"conv6": {"dilation": 2}}')
    Journal(tmp_path).finish(new)
    assert read_history(tmp_path).records == {**before, new.trial: new}


def test_a_full_disk_leaves_the_ledger_whole(tmp_path, monkeypatch):
    journal = Journal(tmp_path)
    before = (tmp_path / LEDGER_FILE).read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rfsearch.ledger.journal.os.fsync", full)
    with pytest.raises(RunDirectoryError, match="No space left on device.*rfsearch resume"):
        journal.start(ASSIGNMENT)
    assert (tmp_path / LEDGER_FILE).read_bytes() == before


def test_a_directory_that_holds_a_run_is_not_overwritten(tmp_path):
    Journal(tmp_path)
    with pytest.raises(RunDirectoryError, match="already holds a run"):
        create(tmp_path)


def test_other_peoples_files_are_not_written_among(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(RunDirectoryError, match="not an empty folder"):
        create(tmp_path)


def test_a_file_in_the_way_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="cannot be written"):
        create(tmp_path / "file" / "run")


LATENCY = Latency(2.0, 1.9, 2.2, "a processor, 1 thread", "cafe")


def test_a_latency_is_read_into_the_records_of_its_trials(tmp_path):
    journal = Journal(tmp_path)
    for name in ("a", "b", "c"):
        journal.finish(replace(RECORD, trial=name, infer_latency_ms=40.0 if name == "c" else None))
    journal.latency(["a", "b"], LATENCY)
    (tmp_path / MANIFEST_FILE).write_text("{}")
    run = read_run(tmp_path)
    assert run.latencies == {"a": LATENCY, "b": LATENCY}
    assert [r.infer_latency_ms for r in run.records] == [2.0, 2.0, 40.0]
    assert [r.infer_latency_spread_ms for r in run.records] == [(1.9, 2.2), (1.9, 2.2), None]
    assert list(trials_table(run.records).infer_latency_ms) == [2.0, 2.0, 40.0]
    assert all(r.infer_latency_spread_ms is None for r in read_history(tmp_path).records.values())


def test_latencies_of_another_device_give_way(tmp_path):
    journal = Journal(tmp_path)
    journal.latency(["a", "b"], LATENCY)
    elsewhere = replace(LATENCY, where="a GPU")
    journal.latency(["b"], elsewhere)
    assert read_history(tmp_path).latencies == {"b": elsewhere}


def test_fields_of_a_later_version_are_passed_over_and_unknown_events_are_refused(tmp_path):
    Journal(tmp_path).latency(["a"], LATENCY)
    with (tmp_path / LEDGER_FILE).open("a") as file:
        later = {"event": "latency", "trials": ["b"], **vars(LATENCY), "watts": 3}
        file.write(json.dumps(later) + "\n")
    assert read_history(tmp_path).latencies == {"a": LATENCY, "b": LATENCY}
    with (tmp_path / LEDGER_FILE).open("a") as file:
        file.write(json.dumps({"event": "dream", "of": "sheep"}) + "\n")
    with pytest.raises(
        RunDirectoryError, match=r"ledger\.jsonl, line 4: an event 'dream', which this rfsearch does not"
    ):
        read_history(tmp_path)


def test_a_record_with_a_spread_survives_json(tmp_path):
    timed = replace(RECORD, infer_latency_ms=2.0, infer_latency_spread_ms=(1.9, 2.2))
    Journal(tmp_path).finish(timed)
    assert read_history(tmp_path).records == {RECORD.trial: timed}
