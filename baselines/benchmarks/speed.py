"""Time every layer against its peers, one benchmark after the other: the whole speed table in one command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = ("fractional", "inflation", "lsdfn", "formats")


def main() -> None:
    """Run the benchmarks."""
    for name in BENCHMARKS:
        print(f"== {name}", flush=True)
        subprocess.run([sys.executable, Path(__file__).with_name(f"{name}.py"), *sys.argv[1:]], check=True)


if __name__ == "__main__":
    main()
