"""The examples run as they are, in small."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_lightning_module_learns_its_field(tmp_path):
    pytest.importorskip("lightning")
    command = [sys.executable, ROOT / "examples" / "lightning_module.py", "--steps", "12"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    report, layer = done.stdout.splitlines()[-2:]
    assert report.startswith("After 12 steps. context: dilation ")
    assert report.endswith(" of 1, 2, 3, 4, 6, 8.")
    assert layer.startswith("Conv2d(48, 48, kernel_size=(3, 3)")
