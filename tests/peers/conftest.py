"""The package of the peers, really installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PEERS = Path(__file__).resolve().parents[2] / "baselines" / "peers"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package really installed in it."""
    pytest.importorskip("setuptools", minversion="77", reason="builds the package")
    root = tmp_path_factory.mktemp("peers")
    # Built from a copy: a build leaves its folders beside the source.
    shutil.copytree(PEERS, root / "source", ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "install", *options, "--target", root / "site", root / "source"]
    subprocess.run(command, check=True, capture_output=True)
    return root / "site"
