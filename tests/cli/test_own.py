"""Searches in a user's own training from the shell: options, a space file, and what goes with neither."""

import json
from pathlib import Path

import pytest

from tests.own_loop import loops

OPTIONS = ("--train", "mine.py:train", "--backbone", "mine.py:make_model", "--input", "1x24x24", "--site", "2")


@pytest.fixture
def mine(tmp_path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(Path(loops.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    return file


def test_it_is_planned_run_resumed_reported_and_exported(call, mine, tmp_path, trained_here):
    asked = (*OPTIONS, "--dilations", "1,2,4", "--budget", "2x", "--strategies", "exhaustive,inflation")
    code, out, err = call("plan", *asked, "--json")
    assert code == 0, err
    planned = json.loads(out)
    assert [json.loads(row["candidate"])["2"]["dilation"] for row in planned["candidates"]] == [1, 2, 4] * 2
    assert "6 epochs of 6 steps" in planned["data"]
    code, out, err = call("run", *asked, "--out", "run", "--score", "R", "--json")
    assert code == 0, err
    assert json.loads(out)["verdict"]["best"]["status"] in ("completed", "cut")
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["space"]["primary"] == "R"
    assert call("resume", "run")[0] == 0
    code, out, err = call("export", "run")
    assert code == 0, err
    assert "rfsearch.apply(make_model(), 'run/export/patch.json')" in out
    for option in ("--integer", "--data=x"):
        code, _, err = call("export", "run", option)
        assert code == 2
        assert option.partition("=")[0] in err


def test_its_network_is_looked_at_without_arguments_too(call, mine):
    code, out, err = call("sites", "mine.py:make_model", "--input", "1x24x24", "--json")
    assert code == 0, err
    assert '"2"' in out


def test_a_space_file_says_the_same(call, mine, tmp_path, trained_here):
    (tmp_path / "mine.toml").write_text(
        'train = "mine.py:train"\nmodel = "mine.py:make_model"\ninput_shape = [1, 24, 24]\nsites = ["2"]\n'
        'dilations = [1, 2]\nbudget = "2x"\nstrategies = ["exhaustive"]\n'
    )
    code, out, err = call("plan", "--space", "mine.toml", "--json")
    assert code == 0, err
    assert len(json.loads(out)["candidates"]) == 2
    code, out, err = call("plan", "--space", "mine.toml", "--dilations", "1,4,6", "--json")
    assert len(json.loads(out)["candidates"]) == 3
    (tmp_path / "bad.toml").write_text('train = "mine.py:train"\nmodle = "mine.py:make_model"\ninput_shape = [24]\n')
    code, _, err = call("plan", "--space", "bad.toml")
    assert code == 2
    assert "line 2" in err
    assert "modle" in err
    assert "line 3" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--space"),
        (("--space", "helen", "--train", "mine.py:train"), "Give one of them"),
        (("--space", "helen", "--dilations", "1,2"), "--set dilations"),
        (("--train", "mine.py:train"), "--backbone"),
        (("--train", "mine.py:train", "--backbone", "mine.py:make_model"), "--input"),
        ((*OPTIONS, "--data", "."), "--data"),
        ((*OPTIONS, "--preset", "mini"), "--preset"),
        ((*OPTIONS, "--dilations", "1;2"), "1,2,3,4,6,8"),
        ((*OPTIONS, "--direction", "up"), "maximize or minimize"),
        (("--train", "mine.py:trian", *OPTIONS[2:]), "Did you mean 'train'"),
        (("--train", "mine.py:train", "--backbone", "torchvision:resnet18", *OPTIONS[4:]), "number of classes"),
    ],
)
def test_what_does_not_go_together_is_one_message(call, mine, words, said):
    code, _, err = call("plan", *words)
    assert code == 2
    assert said in " ".join(err.split())
    assert "Traceback" not in err
