"""Files and command lines that Hypothesis has changed at random: a result, or one message of ours. Nothing else."""

import io
import json
import os
import string
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import nn

import rfsearch
from rfsearch import cli, plugins
from rfsearch.choices import Candidate
from rfsearch.data import read_folder
from rfsearch.errors import RfsearchError
from rfsearch.ledger import read_history, read_run
from rfsearch.report import summarise, write
from rfsearch.space import read_space
from tests.fuzzed_inputs import CANDIDATE, PATCH, write_images
from tests.small_run import run_in_process
from tests.toys import toy_file

# As many as a few seconds hold; with FUZZ=rfsearch-long it goes on for an hour.
settings.register_profile("rfsearch", max_examples=60, deadline=None, derandomize=True,
                          suppress_health_check=list(HealthCheck))  # fmt: skip
settings.register_profile("rfsearch-long", max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile(os.environ.get("FUZZ", "rfsearch"))

JUNK = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["null", "[]", "{}", "-1", "1e999", "NaN", '"', "\\u0000", "\x00", "\n", "=", "'", "é", "9" * 5000]
    ),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def edits(draw, count=3):
    """Edits of a text: where, as a share of its length, how much is cut out there, and what is put in."""
    share = st.floats(0, 1, allow_nan=False)
    return [(draw(share), draw(st.integers(0, 30)), draw(JUNK)) for _ in range(draw(st.integers(1, count)))]


def edited(text, changes):
    for share, cut, junk in changes:
        place = int(share * len(text))
        text = text[:place] + junk + text[place + cut :]
    return text


def said(action, *arguments, **options):
    """What a reader says of its input; "" where it takes it. Any other exception than ours leaves this function."""
    try:
        action(*arguments, **options)
    except RfsearchError as error:
        text = str(error)
        assert text.strip()
        assert "Traceback" not in text
        return text
    return ""


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzzed")
    words = ["--strategies", "exhaustive,inflation", "--out", folder / "run"]
    run_in_process("run", "--space", toy_file(folder, budget="3x", steps=4), *words)
    return folder / "run"


@pytest.fixture
def restored(run_dir):
    """The run; its files are as they were afterwards."""
    whole = {name: (run_dir / name).read_bytes() for name in ("manifest.json", "ledger.jsonl")}
    yield run_dir
    for name, body in whole.items():
        (run_dir / name).write_bytes(body)


@pytest.mark.parametrize("name", ["helen", "motions", "folder"])
@given(changes=edits())
def test_space_files(tmp_path_factory, name, changes):
    path = tmp_path_factory.mktemp("space") / "space.toml"
    path.write_text(edited(plugins.space_file(name).read_text(encoding="utf-8"), changes), encoding="utf-8")
    assert said(read_space, path, None) is not None


@given(key=st.text(string.ascii_lowercase + "._", min_size=1, max_size=20), value=VALUES)
@example(key="recipe.steps", value=float("nan"))
@example(key="", value=None)
def test_changes_of_a_space(key, value):
    said(read_space, plugins.space_file("helen"), None, (f"{key}={value}",))


@given(body=st.dictionaries(st.text(max_size=8), VALUES, max_size=3))
def test_candidates(body):
    said(Candidate.from_json, json.dumps(body))


@given(changes=edits())
def test_candidates_of_edited_text(changes):
    said(Candidate.from_json, edited(CANDIDATE, changes))


@contextmanager
def edited_file(path, changes):
    """The file with edits, in this context."""
    before = path.read_bytes()
    path.write_text(edited(before.decode(), changes), encoding="utf-8", errors="surrogatepass")
    yield
    path.write_bytes(before)


@given(changes=edits())
def test_ledgers(restored, changes):
    with edited_file(restored / "ledger.jsonl", changes):
        said(read_history, restored)
        said(lambda: summarise(read_run(restored)))


@given(changes=edits())
def test_manifests(restored, changes):
    with edited_file(restored / "manifest.json", changes):
        said(lambda: summarise(read_run(restored)))


@settings(max_examples=8)
@given(changes=edits())
def test_pages_of_edited_ledgers(restored, changes):
    with edited_file(restored / "ledger.jsonl", changes):
        said(write, restored)


@given(changes=edits())
def test_patches(changes):
    said(rfsearch.apply, nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)), edited(json.dumps(PATCH), changes))


@given(value=VALUES)
def test_values_of_patches(value):
    patch = {"format": "rfsearch-patch", "version": 1, "backbone": "wei-small", "classes": [], "settings": {}}
    said(rfsearch.apply, nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)), {**patch, "sites": {"0": value}})
    said(rfsearch.apply, nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)), {**patch, "sites": value})


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    write_images(root)
    return root


@given(place=st.integers(0, 200), body=st.binary(max_size=40), kind=st.sampled_from(["images", "labels"]))
def test_images(images, tmp_path_factory, place, body, kind):
    file = images / "train" / kind / "0.png"
    before = file.read_bytes()
    file.write_bytes(before[:place] + body + before[place + len(body) :])
    said(read_folder, images, size=(8, 8), cache=tmp_path_factory.mktemp("cache"))
    file.write_bytes(before)


OPTIONS = ["--space", "--preset", "--json", "--set", "--budget", "--strategies", "--seeds", "--site", "--backbone",
           "--paths", "--objectives", "--replay-of", "--address", "--trial-timeout", "--data", "--input", "--train",
           "--out", "--size", "--all", "--at", "--trial", "--batch"]  # fmt: skip
WORDS = st.one_of(
    st.sampled_from([*OPTIONS, "helen", "toy.toml", "nowhere", "7x", "0x", "-1", "1e99", "nan", "@", ":", "a.py:b"]),
    st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=10),
)


@given(
    command=st.sampled_from(
        ["plan", "report", "compare", "rf", "sites", "export", "reproduce", "list", "resume", "no"]
    ),
    words=st.lists(WORDS, max_size=5),
)
def test_command_lines(monkeypatch, tmp_path, command, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("rfsearch.planning.plan.make_plan", _no_plan)
    monkeypatch.setattr("rfsearch.conduct.start_engine", _no_plan)
    monkeypatch.setattr(sys, "argv", ["rfsearch", command, *words])
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as leave:
        cli.main()
    assert leave.value.code in (None, 0, 1, 2), (words, leave.value.code)
    assert "Traceback" not in err.getvalue(), err.getvalue()


def _no_plan(*_):
    raise rfsearch.RequestError("nothing is planned or trained here.")
