"""Read small text files of other machines of a cluster."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import ray
from ray.util import get_node_ip_address
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rfsearch.orchestration.nodes import machines

_PATIENCE_S = 10.0  # this process waits meanwhile


def read_at(address: str, path: Path) -> str:
    """Return the text of a file, empty where it cannot be read or its machine does not answer.

    Args:
        address: Machine that has it. Empty: this one.
        path: The file there.
    """
    with suppress(Exception):  # whatever Ray raises, less is known
        if not address or address == get_node_ip_address():
            return path.read_text(encoding="utf-8", errors="replace")
        node = next(name for name, machine in machines().items() if machine.address == address)
        # A function of Python's own: one of ours would have the machine import torch for it.
        reading = ray.remote(num_cpus=0)(Path.read_text).options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        )
        answer = reading.remote(path, "utf-8", "replace")  # type: ignore[call-arg]  # Ray's types know no methods
        return str(ray.get(answer, timeout=_PATIENCE_S))
    return ""
