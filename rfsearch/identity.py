"""Which network a run trains, so that a resumed run or an export is told when it has become another one.

Shapes alone do not say everything that a network's file decides, so the user's files are known by their content too.
Networks of installed packages are known by their shapes: their versions are in the manifest.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from rfsearch import plugins
from rfsearch.errors import RunDirectoryError
from rfsearch.ledger.manifest import Network, held
from rfsearch.ledger.run_directory import MANIFEST_FILE


def network_of(spec: str, model: nn.Module) -> Network:
    """Describe a network as its backbone makes it, before any site is changed. spec: the backbone's SPEC."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        shape = () if is_lazy(value) else tuple(getattr(value, "shape", ()))
        digest.update(f"{name} {shape}\n".encode())
    parameters = sum(p.numel() for p in model.parameters() if not is_lazy(p))
    return Network(digest.hexdigest(), parameters, sources_of(spec))


def sources_of(spec: str) -> dict[str, str]:
    """Return the SHA-256 of the file that a SPEC of the user's own code names, by path; of other SPECs nothing."""
    source, _, attribute = spec.rpartition(":")
    if not source or not attribute or source in plugins._ZOOS:
        return {}
    path = Path(source) if source.endswith(".py") else _module_file(source)
    try:
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest()} if path else {}
    except OSError:
        return {}


def _module_file(module: str) -> Path | None:
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(found.origin) if found and found.origin and found.origin.endswith(".py") else None


def recorded(manifest: Mapping[str, Any], run_dir: Path) -> Network | None:
    """Return the network that a manifest names; None for a run of an older version, which did not say."""
    return held(manifest, run_dir / MANIFEST_FILE, Network, "network") if "network" in manifest else None


def require_same(then: Network | None, now: Network, spec: str, run_dir: Path) -> None:
    """Raise RunDirectoryError where a run would go on with another network than it began with."""
    require_same_tensors(then, now, spec, run_dir)
    if then is not None:
        require_same_sources(then.sources, now.sources, spec, run_dir)


def require_same_tensors(then: Network | None, now: Network, spec: str, run_dir: Path) -> None:
    """Raise RunDirectoryError where a network is not the one whose weights a run holds."""
    if then is not None and then.tensors != now.tensors:
        counts = f"{then.parameters:,} parameters then, {now.parameters:,} now"
        if then.parameters == now.parameters:
            counts = f"{now.parameters:,} parameters, in tensors of other names or shapes"
        raise RunDirectoryError(
            f"{run_dir}: backbone {spec} makes another network than when this run started: {counts}. "
            "Restore it as it was, or start a new run."
        )


def require_same_sources(then: Mapping[str, str], now: Mapping[str, str], spec: str, run_dir: Path) -> None:
    """Raise RunDirectoryError where the file of a network has been edited, though its tensors look the same."""
    if changed := edited(then, now):
        raise RunDirectoryError(
            f"{run_dir}: {', '.join(changed)} has changed since this run started, and with it perhaps what backbone "
            f"{spec} computes: its trials could not be compared. Restore the file as it was, or start a new run."
        )


def edited(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the files whose content is no longer what it was."""
    # A run that has moved, or a package installed elsewhere, has its files at other paths.
    moved = set(now.values())
    return [path for path, digest in then.items() if digest not in moved]
