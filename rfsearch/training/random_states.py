"""The random states that a training draws from: of Python, numpy and torch."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Seed whatever a user's training, task or network may draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (what users' data sets draw from)
    torch.manual_seed(seed)


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the states of random, numpy and torch, of types that a checkpoint holds."""
    name, keys, place, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002 (users' data sets draw so)
    assert isinstance(keys, np.ndarray)
    state = {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), int(place), int(has_gauss), float(gauss)],
        "torch": torch.get_rng_state(),
    }
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Set what `random_state` gave, or an earlier version's built-in training, which kept torch's states alone."""
    if "python" in state:
        version, inner, gauss = state["python"]
        random.setstate((version, tuple(inner), gauss))
        name, keys, *rest = state["numpy"]
        np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch" if "torch" in state else "cpu"].cpu())
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
