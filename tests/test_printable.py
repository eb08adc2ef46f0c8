"""Text of users is shown as it is, on every command's way to the terminal and to the pages: no markup, no codes."""

import builtins
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.table import Table
from rich.text import Text

from rfsearch import cli, printing, terminal
from rfsearch.ledger import Journal
from rfsearch.printable import PlainConsole, printable
from rfsearch.report.field_page import Pictured, write_page
from tests.report.made_up import examples, manifest, record
from tests.toys import toy_file

MARKUP = "[/x][red]r :smile:"
CODES = "\x1b]0;title\x07\x1b[31m\x9b2J\r"
SHOWN = "\\x1b]0;title\\x07\\x1b[31m\\x9b2J\\r".replace("\\r", "\\x0d")
HOSTILE = MARKUP + CODES


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Call the command line in this process: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def called(*words: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["rfsearch", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "400")
        for console in (printing.out_console, printing.err_console):
            monkeypatch.setattr(console, "_width", 400, raising=False)
        with pytest.raises(SystemExit) as leave:
            cli.main()
        told = capsys.readouterr()
        return leave.value.code, told.out, told.err

    return called


def harmless(text: str) -> None:
    assert not [character for character in text if printable(character) != character]


def told(*parts: object, **settings: object) -> str:
    console = PlainConsole(file=io.StringIO(), width=200, **settings)
    console.print(*parts)
    return console.file.getvalue()


def test_a_console_shows_markup_and_codes_literally():
    assert told(HOSTILE).strip() == MARKUP + SHOWN
    assert told(Text(HOSTILE)).strip().startswith(MARKUP + "\\x1b]0;title")
    harmless(told(Text(HOSTILE)))


@pytest.mark.parametrize("cell", [HOSTILE, Text("\x1b[31m" + MARKUP)])
def test_a_table_shows_markup_and_codes_literally(cell):
    table = Table(HOSTILE, title=HOSTILE, caption=HOSTILE)
    table.add_row(cell)
    harmless(told(table))
    assert told(table).count(MARKUP) == 4


def test_a_terminal_gets_the_codes_of_styles_and_no_others():
    shown = told(Text("a\x1b[2Jb", style="red"), force_terminal=True, color_system="standard")
    assert re.sub("\x1b\\[(31|0)m", "", shown) == "a\\x1b[2Jb\n"


def test_a_status_is_text():
    console = PlainConsole(file=io.StringIO(), width=80)
    assert console.status(HOSTILE).renderable.text.plain == MARKUP + SHOWN


@pytest.mark.parametrize("character", ["\u202e", "\u2066", "\udcff", "\x00", "\x7f", "\x85", "\u2028"])
def test_what_turns_text_around_or_breaks_a_stream_is_escaped(character):
    assert printable(f"a{character}b").isascii()
    told(character).encode()


def test_tabs_newlines_and_other_scripts_stay():
    assert printable("ä\t日本\nγ") == "ä\t日本\nγ"


def test_a_report_shows_texts_of_users_as_they_are(call, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    journal = Journal(folder)
    journal.finish(record("won", strategy="s" + HOSTILE))
    journal.finish(record("lost", val=None, test=None, status="failed", cause=HOSTILE, strategy="s" + HOSTILE))
    examples(folder / "checkpoints" / "won")
    names = {"name": "d" + HOSTILE, "classes": [HOSTILE, "eyes"]}
    body = manifest(data=names, space={"title": HOSTILE}, arms=[{"strategy": "s" + HOSTILE, "seed": 0}])
    (folder / "manifest.json").write_text(json.dumps(body))
    code, out, _ = call("report", folder)
    assert code == 0
    harmless(out)
    assert out.count(MARKUP) >= 4  # winner's strategy, data, cause, arm
    page = (folder / "report.html").read_text(encoding="utf-8").partition("plotly.js v")[0]
    harmless(page)
    assert SHOWN in page
    code, out, _ = call("report", folder, "--json")
    assert json.loads(out)["arms"][0]["strategy"] == "s" + HOSTILE


def pictures(root: Path) -> Path:
    draw = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (root / split / kind).mkdir(parents=True)
        Image.fromarray(draw.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(root / split / "images" / "0.jpg")
        Image.fromarray(draw.integers(0, 2, (48, 48), dtype=np.uint8)).save(root / split / "labels" / "0.png")
    (root / "classes.txt").write_text("background\n[/x]a\x1b[31m\n")
    return root


def test_a_plan_shows_titles_and_classes_as_they_are(call, tmp_path):
    text = toy_file(tmp_path).read_text().replace('metric = "helen-f"', 'metric = "mean-iou"')
    text = text.replace('default = "rendered-faces"\n', "").replace('layout = "helen"', 'layout = "folder"')
    text = text.replace("rendered = [12, 6, 6]\n", "").replace("image_size = [48, 48]\n", "")
    (tmp_path / "own.toml").write_text(text.replace("Toy faces", "Toy [/x]\\u001b[31m"))
    code, out, err = call(
        "plan", "--space", "own.toml", "--data", pictures(tmp_path / "data"), "--strategies", "random"
    )
    assert code == 0, err
    harmless(out)
    assert "Toy [/x]\\x1b[31m" in out
    assert "[/x]a" in out


def test_module_names_and_paths_are_shown_as_they_are(call, tmp_path):
    (tmp_path / "[").mkdir()
    (tmp_path / "[" / "x]net.py").write_text(
        "from torch import nn\n"
        "def make(num_classes, in_channels=3):\n"
        "    net = nn.Sequential(nn.Conv2d(in_channels, 4, 3, padding=1), nn.Conv2d(4, num_classes, 1))\n"
        "    return _Named(net)\n"
        "class _Named(nn.Module):\n"
        "    def __init__(self, net):\n"
        "        super().__init__()\n"
        "        self.add_module('[/y]', net)\n"
        "    def forward(self, x):\n"
        "        return self._modules['[/y]'](x)\n"
    )
    spec = f"{tmp_path}/[/x]net.py:make"
    code, out, err = call("sites", spec, "--input", "3x24x24", "--all")
    assert code == 0, err
    assert "[/y].0" in out
    code, out, err = call("rf", spec, "--input", "3x24x24", "--no-effective", "--out", "[/z]")
    assert code == 0, err
    assert "[/y].0" in out
    assert "Pictures and the whole table: [/z]" in out


def test_a_wrong_request_is_answered_as_it_was_asked(call):
    code, _, err = call("plan", "--space", HOSTILE)
    assert code == 2
    harmless(err)
    assert "[/x][red]r :smile:" in err


def test_the_page_of_a_field_shows_classes_as_they_are(tmp_path):
    objects = (np.array([1.0, 10.0, 100.0]), {"<b>[/x]%{y}\x1b": np.array([3, 4])})
    write_page(Pictured("m\x1b<i>", ["s\x1b<i>"], [20.0], None, None, objects), tmp_path / "rf.html")
    page = (tmp_path / "rf.html").read_text(encoding="utf-8")
    assert "<i>" not in page
    assert "m\\x1b&lt;i&gt;" in page
    assert "\\u001b" not in page.rpartition("Plotly.newPlot")[2]
    assert "&lt;b&gt;[/x]% {y}" in page.rpartition("Plotly.newPlot")[2].replace("\\u002f", "/")


def test_a_notebook_is_written_to_in_plain_lines(monkeypatch):
    class ZMQInteractiveShell:
        """What a notebook has, by whose name rich knows it."""

    class OutStream(io.StringIO):
        """What it writes to, which says that it is a terminal."""

        def isatty(self):
            return True

    OutStream.__module__ = "ipykernel.iostream"
    stream = OutStream()
    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    monkeypatch.setattr(sys, "stdout", stream)
    shown = terminal.console()
    with shown.status("Reading ..."):
        shown.print("one line")
    assert stream.getvalue() == "one line\n"
