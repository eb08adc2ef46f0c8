"""How the documents are built: `sphinx-build -W docs docs/_build`."""

import subprocess
import sys
from pathlib import Path

import rfsearch

project, author, copyright = "rfsearch", "The rfsearch authors", "The rfsearch authors, Apache-2.0"
version = release = rfsearch.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"rfsearch {version}"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature has them
napoleon_use_ivar = True

COMMANDS = Path(__file__).parent / "reference" / "commands.md"


def write_commands(_: object) -> None:
    """Write the reference of all commands from the command line itself."""
    said = subprocess.run(
        [
            sys.executable,
            "-m",
            "typer",
            "rfsearch.cli.app",
            "utils",
            "docs",
            "--name",
            "rfsearch",
            "--title",
            "Commands",
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    # What no shell and no Markdown would take as it is.
    COMMANDS.write_text(said.replace("```console\n$ ", "```sh\n"), encoding="utf-8")


def setup(app: object) -> None:
    """Generate what is generated before anything is read."""
    app.connect("builder-inited", write_commands)  # type: ignore[attr-defined]
