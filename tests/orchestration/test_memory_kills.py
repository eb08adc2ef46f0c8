"""A worker that Linux ends for lack of memory, in a control group of its own with very little of it."""

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from rfsearch.ledger import read_run
from tests.orchestration.runs import command, environment, wait
from tests.toys import toy_file

PARENTS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/memory"))


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group that limits memory, version 2 where there is one; the test is skipped where none can be made."""
    made = next(filter(limits, (parent / f"rfsearch-{uuid.uuid4().hex[:8]}" for parent in PARENTS)), None)
    if made is None:
        pytest.skip("no control group with a limit of memory can be made here")
    try:
        yield made
        wait(lambda: not (made / "cgroup.procs").read_text(), 60)
    finally:
        made.rmdir()


def limits(group: Path) -> bool:
    """Make a control group, and return whether it can limit memory; one that cannot is removed."""
    try:
        group.mkdir()
    except OSError:
        return False
    if any((group / name).exists() for name in ("memory.max", "memory.limit_in_bytes")):  # of versions 2 and 1
        return True
    group.rmdir()
    return False


@pytest.mark.slow
def test_a_worker_that_the_system_ends_for_lack_of_memory_says_so(group, tmp_path):
    path = toy_file(tmp_path, "tests.toys:growing_net", budget="10s", steps=4)
    path.write_text(path.read_text().replace("[1, 2, 4]", "[2, 4]").replace("reference = 1", "reference = 2"))
    words = ["run", "--space", path, "--strategies", "exhaustive", "--out", tmp_path / "run"]
    inside = ["bash", "-c", 'echo $$ > "$TOY_GROUP/cgroup.procs" && exec "$@"', "bash", *command(*words)]
    done = subprocess.run(
        inside, env={**environment(), "TOY_GROUP": str(group)}, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    records = read_run(tmp_path / "run").records
    (killed,) = {record.cause for record in records if record.status == "failed"}
    assert killed.endswith("the system ended it because its machine ran out of memory")
    assert any(record.status == "completed" for record in records)
