"""Where a run comes from, and how the page says to make it once more."""

from __future__ import annotations

import html
import shlex
from pathlib import Path

import pytest

from rfsearch.report.page import write
from rfsearch.report.provenance import repeat_command
from tests.report.made_up import MakeRun, record
from tests.report.test_page import Page
from tests.small_run import run_in_process
from tests.toys import toy_file


def test_the_printed_command_makes_the_run_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typed as it stands, from the folder in which the run was started."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my spaces"
    folder.mkdir()
    space = toy_file(folder, budget="60x", steps=2)
    run_in_process("run", "--space", space, "--strategies", "random", "--out", "runs/it's mine")
    page = (tmp_path / "runs" / "it's mine" / "report.html").read_text(encoding="utf-8")
    printed = html.unescape(page.partition("into a new directory:<pre><code>")[2].partition("</code>")[0])
    program, *words = shlex.split(printed)
    assert program == "rfsearch"
    run_in_process(*words)
    one, other = sorted((path for path in (tmp_path / "runs").iterdir()), key=lambda path: path.stat().st_ctime)
    assert (one.name, other.name.startswith("toy-")) == ("it's mine", True)
    assert (one / "trials.csv").read_text().count("\n") == (other / "trials.csv").read_text().count("\n")


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        ("rfsearch run --space helen", "rfsearch run --space helen"),
        ("rfsearch run --space helen --out runs/a --seeds 2", "rfsearch run --space helen --seeds 2"),
        ("rfsearch run --out=runs/a --space 'a b.toml'", "rfsearch run --space 'a b.toml'"),
        ("rfsearch run --space x --set 'a=\"--out\"' --out 'my runs/a'", "rfsearch run --space x --set 'a=\"--out\"'"),
        ("rfsearch run --space x --out s3://b/a", "rfsearch run --space x --out s3://b/a-again"),
        ("rfsearch run --out 's3://b/a?region=x'", "rfsearch run --out 's3://b/a-again?region=x'"),
        ("rfsearch run --address auto --out /nfs/a", "rfsearch run --address auto --out /nfs/a-again"),
        ("rfsearch reproduce wei-table2", "rfsearch reproduce wei-table2 --out runs/wei-table2-again"),
        ("rfsearch reproduce wei-table2 --out x/", "rfsearch reproduce wei-table2 --out x-again"),
        ("rfsearch run --space 'unclosed", "rfsearch run --space 'unclosed"),
        ("python search.py --out runs/a", "python search.py --out runs/a"),
        ("rfsearch.search(...)", "rfsearch.search(...)"),
    ],
)
def test_no_directory_that_is_taken_is_named(command: str, printed: str) -> None:
    assert repeat_command(command, Path("runs/wei-table2/vgg"))[0] == printed


def test_of_a_script_nothing_is_promised_that_only_its_author_can_keep(make_run: MakeRun) -> None:
    page = Page(write(make_run([record("a")], command="python search.py").directory))
    assert "Where that names this directory as its out, name another one there:" in page.text
    assert "The whole run once more" not in page.text
