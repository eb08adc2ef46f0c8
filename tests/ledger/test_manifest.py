"""The manifest of a run: one writer and one reader, which also reads what earlier versions wrote."""

import json
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from rfsearch.choices import Candidate
from rfsearch.errors import RunDirectoryError
from rfsearch.ledger import Budget, Cost
from rfsearch.ledger.manifest import MANIFEST_FILE, Manifest, read_manifest, write_manifest
from rfsearch.ledger.schema import SCHEMA
from rfsearch.ledger.typed_json import Damaged, known, sound
from rfsearch.report.facts import read_facts
from rfsearch.space import TaskSpec

FOLDER = Path(__file__).parent
GOLDEN = sorted(FOLDER.glob("manifest_*.json"), key=lambda path: int(path.stem.rpartition("_")[2]))
LATEST = GOLDEN[-1]
# What versions before the one that first wrote it read as.
DEFAULTS = {
    "space.form": "single",
    "space.gamma_bounds": (0.25, 16.0),
    "network": None,
    "budget.full_training": None,
}


def damaged(part: Any, at: str = "") -> dict[str, str]:
    """The damaged parts of a manifest, by their keys."""
    if isinstance(part, Damaged):
        return {at: part.why}
    if not is_dataclass(part) or isinstance(part, type):
        return {}
    found: dict[str, str] = {}
    for field in fields(part):
        found |= damaged(getattr(part, field.name), f"{at}.{field.name}".lstrip("."))
    return found


def stored(folder: Path, body: Any) -> Manifest:
    (folder / MANIFEST_FILE).write_text(json.dumps(body) if not isinstance(body, str) else body)
    return read_manifest(folder)


def test_there_is_a_manifest_of_every_version():
    assert [path.stem for path in GOLDEN] == [f"manifest_{number}" for number in range(1, len(GOLDEN) + 1)]
    assert len(GOLDEN) == 10


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_manifest_of_every_version_is_read_whole(tmp_path, path):
    body = json.loads(path.read_text())
    found = stored(tmp_path, body)
    assert damaged(found) == {}
    assert sound(found.request).strategies == ("exhaustive", "inflation")
    assert sound(found.resolved_space).sites == ("conv6",)
    assert sound(found.resolved_space).task == TaskSpec(metric="helen-f", class_weights="sqrt")
    assert sound(found.resolved_space).recipe.border == "paper"  # none of them says so: they knew no other
    assert found.budget.of_an_arm == Budget("3x", "flop", body["budget"]["limit"])
    assert [(arm.strategy, arm.seed) for arm in sound(found.arms)] == [("exhaustive", 0), ("inflation", 0)]
    assert [row.rf_px for row in sound(found.forecast)] == [row["rf_px"] for row in body["forecast"]]
    facts = read_facts(found)
    assert (facts.reference, facts.metric) == (found.space.reference, "f_classmean_pooled")
    for key, default in DEFAULTS.items():
        table, _, name = key.rpartition(".")
        written = name in (body[table] if table else body)
        part = getattr(getattr(found, table) if table else found, name)
        assert written or part == default, key


def test_the_border_of_a_run_is_the_one_that_it_was_trained_with(tmp_path):
    body = json.loads(LATEST.read_text())
    body["resolved_space"]["recipe"]["border"] = "continuous"
    found = stored(tmp_path, body)
    assert sound(found.resolved_space).recipe.border == "continuous"
    write_manifest(tmp_path, stored(tmp_path, LATEST.read_text()))
    assert json.loads((tmp_path / MANIFEST_FILE).read_text())["resolved_space"]["recipe"]["border"] == "paper"


def test_a_manifest_is_written_as_it_was_read(tmp_path):
    found = stored(tmp_path, LATEST.read_text())
    write_manifest(tmp_path, found)
    before, after = json.loads(LATEST.read_text()), json.loads((tmp_path / MANIFEST_FILE).read_text())
    assert list(before) == list(after)
    added = {"track", "trial_timeout", "processes_per_trial", "confirm", "objectives", "replay", "memory_per_trial"}
    # of later versions
    after["request"] = {key: value for key, value in after["request"].items() if key not in added}
    assert after["data"].pop("noun") == "object"
    assert after["space"].pop("costs") == []
    for key in before.keys() - {"resolved_space"}:  # to which a later version adds keys of its own
        assert json.dumps(before[key]) == json.dumps(after[key]), key
    assert read_manifest(tmp_path) == found
    assert sound(found.budget.full_training) == Cost(**json.loads(LATEST.read_text())["budget"]["full_training"])


def test_a_manifest_of_a_newer_schema_is_named_as_newer(tmp_path):
    body = {**json.loads(LATEST.read_text()), "schema": SCHEMA + 1}
    with pytest.raises(RunDirectoryError, match=rf"written by a newer rfsearch \(schema {SCHEMA + 1}; this one reads"):
        stored(tmp_path, body)


def test_keys_of_a_later_version_are_passed_over(tmp_path):
    body = json.loads(LATEST.read_text())
    before = stored(tmp_path, body)
    later = {**body, "weather": "fine", "data": {**body["data"], "colour": "red"}}
    later["request"] = {**body["request"], "mood": 3}
    assert stored(tmp_path, later) == before


@pytest.mark.parametrize(
    ("change", "key", "message"),
    [
        ({"request": 3}, "request", r"manifest\.json: damaged: request: Input should be .* Got 3\."),
        ({"flop_per_s": "fast"}, "flop_per_s", r"damaged: flop_per_s: Input should be a valid number.* Got 'fast'\."),
        ({"arms": [{"strategy": "random"}]}, "arms", r"damaged: arms\.0\.seed: Field required"),
        ({"network": []}, "network", r"damaged: network: "),
    ],
)
def test_a_damaged_part_is_reported_where_it_is_needed_and_leaves_the_others(tmp_path, change, key, message):
    found = stored(tmp_path, json.loads(LATEST.read_text()) | change)
    assert list(damaged(found)) == [key]
    with pytest.raises(RunDirectoryError, match=message):
        sound(getattr(found, key))
    assert known(getattr(found, key), "unknown") == "unknown"


def test_every_part_of_an_empty_manifest_says_that_it_is_missing(tmp_path):
    found = stored(tmp_path, {})
    said = damaged(found)
    assert said["data.folder"].endswith("manifest.json: damaged: it has no data.folder.")
    assert not {*DEFAULTS} & {*said}
    facts = read_facts(found)
    assert (facts.title, facts.metric, facts.arms) == ("a search of the receptive field", "score", ())
    with pytest.raises(RunDirectoryError, match="it has no budget.text"):
        _ = found.budget.of_an_arm


def test_a_budget_of_nothing_is_damaged(tmp_path):
    body = json.loads(LATEST.read_text())
    body["budget"]["limit"] = 0
    with pytest.raises(RunDirectoryError, match=r"damaged: budget\.limit: Input should be greater than 0. Got 0\."):
        _ = stored(tmp_path, body).budget.of_an_arm


def test_candidates_of_the_forecast_can_be_read(tmp_path):
    found = stored(tmp_path, LATEST.read_text())
    texts = [text for row in sound(found.forecast) for text in (row.candidate, *row.alike)]
    assert all(Candidate.from_json(text).to_json() == text for text in texts)


def test_a_manifest_of_changed_parts_is_written(tmp_path):
    found = replace(stored(tmp_path, LATEST.read_text()), notices=("One.", "Two."), network=None)
    write_manifest(tmp_path, found)
    body = json.loads((tmp_path / MANIFEST_FILE).read_text())
    assert (body["notices"], body["network"]) == (["One.", "Two."], None)


def test_where_there_is_no_run_the_nearest_one_is_named(tmp_path):
    for name in ("faces-1", "faces-2", "motion"):
        (tmp_path / name).mkdir()
        (tmp_path / name / MANIFEST_FILE).write_text("{}")
    (tmp_path / "motions").mkdir()
    with pytest.raises(RunDirectoryError) as error:
        read_manifest(tmp_path / "moton")
    assert str(error.value) == f"{tmp_path / 'moton'}: does not exist. Did you mean '{tmp_path / 'motion'}'?"
    with pytest.raises(RunDirectoryError) as error:
        read_manifest(tmp_path / "zzz")
    assert str(error.value) == f"{tmp_path / 'zzz'}: does not exist. Runs in {tmp_path}: faces-1, faces-2, motion."
    with pytest.raises(RunDirectoryError, match=r"does not exist. Runs in .*absent: none\.$"):
        read_manifest(tmp_path / "absent" / "run")
    with pytest.raises(RunDirectoryError, match="motions: not a run: it has no manifest.json"):
        read_manifest(tmp_path / "motions")
