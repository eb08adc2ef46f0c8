"""Check that every machine of a cluster sees the run directory, before anything is trained there."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rfsearch.errors import RequestError

# A busy machine starts a process in seconds. One that has not answered by then is found out by its first trial.
_PATIENCE_S = 30.0


def check_seen(run_dir: Path) -> None:
    """Check that all nodes that trials can run on see a directory of this machine.

    Raises:
        RequestError: One does not; the message names it.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    if len(nodes) < 2:
        return
    mark = run_dir.resolve() / f".seen-{uuid.uuid4().hex[:8]}"
    mark.touch()
    try:
        asked = {_look(node["NodeID"], mark): node["NodeManagerAddress"] for node in nodes}
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_PATIENCE_S)
        blind = [asked[answer] for answer in answered if not ray.get(answer)]
    finally:
        mark.unlink(missing_ok=True)
    if blind:
        raise RequestError(
            f"{', '.join(blind)} of the cluster cannot see {run_dir}, where trials would write their checkpoints. "
            "--out must be a folder that all machines share, or a place on object storage, such as s3://BUCKET/RUN."
        )


def _look(node: str, mark: Path) -> ray.ObjectRef[bool]:
    where = NodeAffinitySchedulingStrategy(node, soft=False)
    # A function of Python's own: one of ours would have each machine import torch for it.
    return ray.remote(num_cpus=0)(os.path.exists).options(scheduling_strategy=where).remote(str(mark))
