"""Change inputs at random, led by the code that they reach: each gives a result, or one message of ours.

    python -m tests.guided_fuzz TARGET [-max_total_time=600] [-runs=100000] [CORPUS]

TARGET is one of those below; the rest are libFuzzer's options, and a folder in which inputs are kept. Needs atheris. An
input that ends in another exception than ours is printed and written to a file `crash-...`.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris
from PIL import Image
from torch import nn

with atheris.instrument_imports(include=["rfsearch"]):
    import rfsearch
    from rfsearch import plugins
    from rfsearch.choices import Candidate
    from rfsearch.data import read_folder
    from rfsearch.errors import RfsearchError
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


TARGETS = {target.__name__: target for target in (space, candidate, ledger, manifest, patch, labels)}


def main() -> None:
    """Fuzz one target until libFuzzer's options say that it is enough."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m tests.guided_fuzz {'|'.join(TARGETS)} [libFuzzer's options] [CORPUS]")
    name, *options = sys.argv[1:]
    work = Path(tempfile.mkdtemp(prefix="rfsearch-fuzz-"))
    (work / "input").mkdir()
    read, seeds = TARGETS[name](work / "input")
    (work / "seeds").mkdir()
    for number, body in enumerate(seeds):
        (work / "seeds" / str(number)).write_bytes(body)

    def one(body: bytes) -> None:
        try:
            read(body)
        except RfsearchError as error:
            if not str(error).strip():
                raise AssertionError("an error of ours that says nothing") from error

    kept = [option for option in options if not option.startswith("-")]
    flags = [option for option in options if option.startswith("-")]
    atheris.Setup([sys.argv[0], "-max_len=65536", *flags, *kept, str(work / "seeds")], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
