"""What the command line says of itself and of this installation, on a terminal and in a pipe."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import shellingham

import rfsearch
from rfsearch import terminal
from rfsearch.cli.app import app
from tests.toys import toy_file

ROOT = Path(__file__).resolve().parents[2]


def test_list_names_everything_that_can_be_asked_for(call):
    code, out, _ = call("list", "--json")
    rows = {(row["kind"], row["name"]) for row in json.loads(out)}
    assert code == 0
    assert {("space", "helen"), ("space", "camvid"), ("strategy", "inflation"), ("backbone", "wei-small")} <= rows
    assert all(row["about"] for row in json.loads(out))


def test_doctor_finds_this_installation_sound(call):
    code, out, _ = call("doctor", "--json")
    assert code == 0, out
    assert {check["name"] for check in json.loads(out)} >= {"packages", "devices", "a training step"}


def test_the_version_is_printed(call):
    assert call("--version") == (0, f"rfsearch {rfsearch.__version__}\n", "")


COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands]


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=" ".join)
def test_every_command_takes_the_short_and_the_long_option_for_help(call, command):
    short, long = call(*command, "-h"), call(*command, "--help")
    assert short == long
    assert short[0] == 0
    assert "Usage: rfsearch" in short[1]


def test_help_in_a_pipe_is_neither_folded_nor_cut(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    code, out, _ = call("-h")
    assert code == 0
    lines = out.splitlines()
    for name, command in zip(COMMANDS, app.registered_commands, strict=True):
        said = " ".join((command.callback.__doc__ or "").split()).partition(". ")[0].rstrip(".")
        assert any(line.split(maxsplit=1) == [name, f"{said}."] for line in lines), name
    code, out, _ = call("run", "--help")
    assert code == 0
    end = "plan says how many trainings a budget has room for."
    assert any("--budget" in line and line.endswith(end) for line in out.splitlines())


def test_run_and_plan_take_the_same_request(call):
    told = [call(command, "--help")[1] for command in ("run", "plan")]
    for option in ("--space", "--preset", "--data", "--backbone", "--site", "--strategies", "--paths", "--budget",
                   "--seeds", "--set", "--address", "--cpus-per-trial", "--gpus-per-trial"):  # fmt: skip
        lines = [[line for line in text.splitlines() if line.split()[:1] == [option]] for text in told]
        assert lines[0] == lines[1] != [], option


@pytest.mark.parametrize("option", ["--install-completion", "--show-completion"])
@pytest.mark.parametrize(("shell", "said"), [("tcsh", "Got tcsh, which has none"), (None, "a shell that is not recog")])
def test_a_shell_without_completion_is_one_message(call, monkeypatch, option, shell, said):
    def detected(*_):
        if shell is None:
            raise shellingham.ShellDetectionFailure
        return shell, f"/bin/{shell}"

    monkeypatch.setattr("shellingham.detect_shell", detected)
    code, out, err = call(option)
    assert (code, out) == (2, "")
    assert err.startswith(f"{option} is for bash, zsh, fish, powershell. ")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_completion(call, shell, monkeypatch):
    monkeypatch.setattr("shellingham.detect_shell", lambda *_: (shell, f"/bin/{shell}"))
    code, script, _ = call("--show-completion")
    assert code == 0
    assert "_RFSEARCH_COMPLETE" in script


def test_a_shell_completes_commands_and_options(monkeypatch, tmp_path):
    def completed(words: str) -> str:
        env = {**os.environ, "_RFSEARCH_COMPLETE": "complete_bash", "COMP_WORDS": words}
        env |= {"COMP_CWORD": str(len(words.split(" ")) - 1), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", "from rfsearch.cli import main; main()"]
        return subprocess.run(command, capture_output=True, text=True, env=env).stdout

    assert "reproduce" in completed("rfsearch repro").split()
    assert "--strategies" in completed("rfsearch run --str").split()


def test_in_a_pipe_no_table_and_no_sentence_is_folded_or_cut(call, tmp_path, monkeypatch):
    """Whatever a shell says of its terminal's width."""
    monkeypatch.setenv("COLUMNS", "40")
    long = "a_name_much_longer_than_any_terminal_is_wide_" * 4
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, classes, channels):\n"
        "        super().__init__()\n"
        f"        self.add_module({long!r}, nn.Conv2d(channels, classes, 3, padding=1))\n"
        "    def forward(self, x):\n"
        f"        return getattr(self, {long!r})(x)\n"
    )
    space, backbone = toy_file(tmp_path), f"{tmp_path / 'mine.py'}:Net"
    code, out, err = call(
        "plan", "--space", space, "--backbone", backbone, "--site", long, "--strategies", "exhaustive"
    )
    assert code == 0, err
    rows = [line for line in out.splitlines() if line.startswith(f"{long}: d=")]
    assert rows
    assert all("FLOP" in row and row.rstrip().endswith("B") for row in rows)
    code, out, err = call("sites", backbone, "--input", "3x32x32", "--all")
    assert code == 0, err
    assert sum(long in line and "32x32" in line for line in out.splitlines()) == 1
    code, out, err = call("rf", backbone, "--input", "3x32x32", "--no-effective", "--out", tmp_path / "rf")
    assert code == 0, err
    assert sum(long in line and "Conv2d" in line for line in out.splitlines()) == 1
    code, out, err = call("list")
    assert code == 0, err
    assert sum(line.startswith("space ") and "Presets: mini" in line for line in out.splitlines()) >= 4


def test_a_terminal_keeps_its_width(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert terminal.console().width == 80
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert terminal.console().width > 10_000
