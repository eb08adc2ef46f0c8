"""Change inputs at random, led by the code that they reach: each gives a result, or one message of ours.

    python -m tests.guided_fuzz TARGET [-max_total_time=600] [-runs=100000] [CORPUS]

TARGET is one of those of `tests/fuzz_targets.py`; the rest are libFuzzer's options, and a folder in which inputs are
kept. Needs atheris. An input that ends in another exception than ours is printed and written to a file `crash-...`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["rfsearch", "typer"]):
    from rfsearch.errors import RfsearchError
    from tests.fuzz_targets import TARGETS


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
