"""The small network, which notes every training step that a worker begins, and fails as it is told to.

COUNTED_STEPS names a file that grows by one byte a step; COUNTED_HARM one that says `exit`, `exit` or `hang`, a word a
line: the next step takes a line out of it, and does what it says.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from torch import nn

from rfsearch.backbones.small import wei_small


def counted(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Return the network."""
    network = wei_small(num_classes, in_channels)
    network.register_forward_pre_hook(_note)
    return network


def _note(network: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Count a step, where a worker of Ray's trains on images."""
    if not network.training or inputs[0].is_meta or not _in_a_worker():
        return
    with Path(os.environ["COUNTED_STEPS"]).open("a") as file:
        file.write("x")
    harm = Path(os.environ["COUNTED_HARM"])
    if harm.exists():
        first, _, rest = harm.read_text().partition("\n")
        harm.write_text(rest) if rest else harm.unlink()
        if first == "exit":
            os._exit(3)
        time.sleep(3600)


def _in_a_worker() -> bool:
    import ray

    return bool(ray.is_initialized() and ray.get_runtime_context().get_actor_id())
