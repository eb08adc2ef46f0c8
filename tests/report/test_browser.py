"""The page in a real browser: nothing is complained of, and every figure is drawn."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from rfsearch.report import write
from tests.report.made_up import MakeRun, examples, record
from tests.report.test_page import CASES, arms, hostile, rich

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


def opened(page: Path, folder: Path) -> tuple[str, list[str]]:
    """Open a page, tall enough to show all of it; returns what the document has become, and what the console says."""
    assert CHROMIUM
    done = subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         "--window-size=1000,20000", f"--user-data-dir={folder}", "--virtual-time-budget=6000",
         "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize(
    "case", ["rich", *(pytest.param(name, marks=pytest.mark.slow) for name in ("one trial", "all failed", "hostile"))]
)
def test_a_page_is_drawn_without_a_complaint(make_run: MakeRun, tmp_path: Path, case: str) -> None:
    if case == "hostile":
        strange = [record("a", strategy=hostile("s"), scores={hostile("x"): 0.5, "y": 0.4}, cause=hostile("cause"))]
        run = make_run(strange, data={"classes": [hostile("class")]}, space={"title": hostile("title")})
    else:
        records, changes = (rich(), {"arms": arms(2)}) if case == "rich" else CASES[case]
        run = make_run(records, **changes)
    for r in run.records:
        examples(run.directory / "checkpoints" / r.trial)
    document, complaints = opened(write(run.directory), tmp_path / "profile")
    assert not complaints
    figures = re.findall(r'<figure class="plot" id="figure-([^"]*)"', document)
    assert document.count('class="main-svg"') >= 2 * len(figures)  # plotly makes at least two of each
    assert bool(figures) == (case != "nothing")
    assert "alert('" not in re.sub(r"<[^>]*>", "", document) or case == "hostile"
    assert '<img src="x"' not in document
