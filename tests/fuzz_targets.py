"""Readers of inputs that may be anything, each with inputs to begin from, which `tests/guided_fuzz.py` changes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import typer
from PIL import Image
from torch import nn

import rfsearch
from rfsearch import plugins
from rfsearch.choices import Candidate
from rfsearch.cli.app import app
from rfsearch.data import read_folder
from rfsearch.ledger import read_run
from rfsearch.report import summarise
from rfsearch.space import read_space
from tests.fuzzed_inputs import CANDIDATE, PATCH, write_images

CANDIDATES = (CANDIDATE, '{"a": {"dilation": 2.5, "kind": "moved"}, "b": {"dilation": 1, "gamma": 2.0, "s": 5}}')
Target = tuple[Callable[[bytes], object], list[bytes]]


def space(work: Path) -> Target:
    """Read a space file."""
    path = work / "space.toml"

    def read(body: bytes) -> object:
        path.write_bytes(body)
        return read_space(path, None)

    return read, [plugins.space_file(name).read_bytes() for name in ("helen", "motions", "objects", "folder")]


def candidate(work: Path) -> Target:
    """Read a candidate."""
    return lambda body: Candidate.from_json(body.decode(errors="replace")), [text.encode() for text in CANDIDATES]


def ledger(work: Path) -> Target:
    """Read and sum up a run whose ledger has changed."""
    return _run(work, "ledger.jsonl")


def manifest(work: Path) -> Target:
    """Read and sum up a run whose manifest has changed."""
    return _run(work, "manifest.json")


def _run(work: Path, changed: str) -> Target:
    table = plugins.shipped("baselines") / "replay" / "helen"
    whole = {name: (table / name).read_bytes() for name in ("manifest.json", "ledger.jsonl")}
    whole["ledger.jsonl"] = b"\n".join(whole["ledger.jsonl"].splitlines()[:4]) + b"\n"
    for name, body in whole.items():
        (work / name).write_bytes(body)

    def read(body: bytes) -> object:
        (work / changed).write_bytes(body)
        return summarise(read_run(work))

    return read, [whole[changed]]


def patch(work: Path) -> Target:
    """Apply a patch."""

    def read(body: bytes) -> object:
        return rfsearch.apply(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)), body.decode(errors="replace"))

    return read, [json.dumps(PATCH).encode()]


def labels(work: Path) -> Target:
    """Read a folder of images, one of whose label images has changed."""
    write_images(work)
    file, seeds = work / "train" / "labels" / "0.png", []
    for mode in ("L", "P", "RGB", "I;16", "1"):
        body = io.BytesIO()
        Image.new(mode, (8, 8)).save(body, "PNG")
        seeds.append(body.getvalue())

    def read(body: bytes) -> object:
        file.write_bytes(body)
        return read_folder(work, size=(8, 8), cache=work / "cache")

    return read, seeds


COMMANDS = (
    "run\n--space\nhelen\n--budget\n7x\n--seeds\n2",
    "plan\n--space\nfolder\n--data\n.\n--trial-timeout\n5min\n--json",
    "export\nrun\n--size\n48,48\n--batch\n2",
    "list\nspaces",
    "--version",
)


def command_line(work: Path) -> Target:
    """Parse a command line, one word a line, and do nothing that it says."""
    group = typer.main.get_command(app)
    for command in group.commands.values():
        command.callback = _nothing

    def read(body: bytes) -> object:
        words = body.decode(errors="replace").split("\n")
        if any("completion" in word for word in words):
            return None  # would be written to the user's shell
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            try:
                return group.main(words, "rfsearch", standalone_mode=False)
            except (typer.Exit, typer.Abort, _WRONG_USE):
                return None

    return read, [text.encode() for text in COMMANDS]


_WRONG_USE = typer.BadParameter.__mro__[2]  # of all that is wrong with a command line; typer does not name it
assert _WRONG_USE.__name__ == "ClickException"


def _nothing(**_: object) -> None:
    """Take what has been parsed."""


TARGETS = {t.__name__: t for t in (space, candidate, ledger, manifest, patch, labels, command_line)}
