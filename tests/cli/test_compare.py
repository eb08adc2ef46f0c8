"""The command `compare`, as it is called."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rfsearch.cli.app import app
from rfsearch.errors import RequestError
from tests.report.made_up import manifest

RUN = Path(__file__).parents[1] / "ledger" / "searched_schema_1.jsonl"


def run_directory(folder: Path, **changes: object) -> Path:
    folder.mkdir()
    shutil.copy(RUN, folder / "ledger.jsonl")
    (folder / "manifest.json").write_text(json.dumps(manifest(**changes)))
    return folder


def test_two_runs_become_a_table_and_a_page(tmp_path: Path) -> None:
    runs = [run_directory(tmp_path / "a"), run_directory(tmp_path / "b", data={"name": "b", "fingerprint": "b"})]
    page = tmp_path / "side.html"
    done = CliRunner().invoke(app, ["compare", *map(str, runs), "--out", str(page)])
    assert done.exit_code == 0, done.output
    assert "Mean rank over 2 problems" in done.output
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    done = CliRunner().invoke(app, ["compare", *map(str, runs), "--out", str(page), "--json"])
    body = json.loads(done.output)
    assert {problem["name"] for problem in body["problems"]} == {"rendered-faces", "b"}
    assert body["mean_ranks"].keys() == {entry["strategy"] for entry in body["problems"][0]["strategies"]}
    assert body["page"] == str(page)


def test_a_refusal_writes_no_page(tmp_path: Path) -> None:
    runs = [run_directory(tmp_path / "a"), run_directory(tmp_path / "b", budget={"limit": 9e12, "text": "9x"})]
    done = CliRunner().invoke(app, ["compare", *map(str, runs), "--out", str(tmp_path / "side.html")])
    assert isinstance(done.exception, RequestError)
    assert "equal budgets" in str(done.exception)
    assert not (tmp_path / "side.html").exists()


def test_another_comparison_is_replaced_with_a_word_and_anything_else_is_kept(tmp_path: Path) -> None:
    runs = [run_directory(tmp_path / "a"), run_directory(tmp_path / "b", data={"name": "b", "fingerprint": "b"})]
    page, notes = tmp_path / "side.html", tmp_path / "notes.html"
    words = ["compare", *map(str, runs), "--out"]
    first, again = (CliRunner().invoke(app, [*words, str(page)]) for _ in range(2))
    assert "earlier comparison" not in first.output
    assert "in the place of an earlier comparison" in " ".join(again.output.split())
    notes.write_text("<title>My notes</title>")
    for taken, said in ((notes, "something else than a comparison"), (tmp_path, "is a folder. Name a file in it")):
        refused = CliRunner().invoke(app, [*words, str(taken)])
        assert isinstance(refused.exception, RequestError)
        assert said in str(refused.exception)
    assert notes.read_text() == "<title>My notes</title>"


@pytest.mark.parametrize("words", [[], ["--out", "x.html"]])
def test_runs_must_be_named(words: list[str]) -> None:
    assert CliRunner().invoke(app, ["compare", *words]).exit_code == 2
