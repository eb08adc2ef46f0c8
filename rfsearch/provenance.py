"""Record what a run ran on: the versions of what it is made with, and the machine."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from rfsearch.ledger.manifest import Machine

_PACKAGES = ("rfsearch", "torch", "torchvision", "ray", "optuna", "numpy", "pandas")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide what a run computes."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found


def machine(device: str) -> Machine:
    """Describe this machine.

    Args:
        device: What trials train on: cpu or cuda.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    return Machine(
        cpu=_cpu_name(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        memory_bytes=memory,
        device=torch.cuda.get_device_name() if device == "cuda" and torch.cuda.is_available() else device,
        system=f"{platform.system()} {platform.machine()}",
    )


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
