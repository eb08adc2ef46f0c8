"""Identify the network that a run trains, so that a resumed run or an export notices when it has become another one.

Shapes alone do not show everything that a network's file decides, so the user's files are identified by their content
too, with the neighbours that they import: those of the network and those of the task, the metric and the layouts, which
decide its scores. Strategies are left out, since one that failed may be mended and its run resumed. Networks of
installed packages are identified by their shapes: their versions are in the manifest.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from torch import nn
from torch.nn.parameter import is_lazy

from rfsearch import plugins, sources
from rfsearch.errors import RunDirectoryError
from rfsearch.ledger.manifest import Network
from rfsearch.space import Space


def network_of(
    spec: str, model: nn.Module, layers: Iterable[str] = (), code: Mapping[str, Mapping[str, str]] | None = None
) -> Network:
    """Describe a network as its backbone makes it, before any site is changed.

    Args:
        spec: The backbone's SPEC.
        model: What it makes.
        layers: SPECs of layers that trials put into it.
        code: What else of the user's decides its scores; see `code_of`.
    """
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        shape = () if is_lazy(value) else tuple(getattr(value, "shape", ()))
        digest.update(f"{name} {shape}\n".encode())
    parameters = sum(p.numel() for p in model.parameters() if not is_lazy(p))
    of_layers = {path: sha for layer in layers for path, sha in sources_of(layer).items()}
    return Network(digest.hexdigest(), parameters, sources_of(spec), of_layers, code or {})


def code_of(space: Space) -> dict[str, dict[str, str]]:
    """Return the SHA-256 of the user's files that score a space's networks, by what they make and by path."""
    specs = {
        "task": space.task.name,
        "metric": space.task.keys.metric,
        "layout": space.data.layout,
        "default images": space.data.default,
    }
    return {what: files for what, spec in specs.items() if spec and (files := sources_of(spec))}


def sources_of(spec: str) -> dict[str, str]:
    """Return the SHA-256 of each of the user's files that a SPEC depends on, by path; nothing for other SPECs."""
    source, _, attribute = spec.rpartition(":")
    if not source or not attribute or source in plugins.ZOOS:
        return {}
    path = Path(source) if source.endswith(".py") else _module_file(source)
    found = {}
    for file in sources.list_imported_files(path) if path else []:
        with suppress(OSError):
            found[str(file)] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def _module_file(module: str) -> Path | None:
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(found.origin) if found and found.origin and found.origin.endswith(".py") else None


def require_same(then: Network | None, now: Network, spec: str, run_dir: Path) -> None:
    """Check that a run would go on with the network, and the user's code, that it began with.

    Raises:
        RunDirectoryError: It would not.
    """
    require_same_tensors(then, now, spec, run_dir)
    if then is None:
        return
    of_now = _files(now, spec)
    for what, files in _files(then, spec).items():
        if changed := edited(files, of_now.get(what, {})):
            raise RunDirectoryError(
                f"{run_dir}: {', '.join(changed)} has changed since this run started, which may have changed {what}: "
                "its trials would not be comparable. Restore the file as it was, or start a new run."
            )


def _files(network: Network, spec: str) -> dict[str, Mapping[str, str]]:
    """Return the SHA-256 of the user's files by what they may change, in words, and by path."""
    of_network = {f"what backbone {spec} computes": network.users_files, "its layers": network.layers}
    return of_network | {f"its {what}": files for what, files in network.code.items()}


def require_same_tensors(then: Network | None, now: Network, spec: str, run_dir: Path) -> None:
    """Check that a network is the one whose weights a run holds.

    Raises:
        RunDirectoryError: It is not.
    """
    if then is not None and then.tensors != now.tensors:
        counts = f"{then.parameters:,} parameters then, {now.parameters:,} now"
        if then.parameters == now.parameters:
            counts = f"{now.parameters:,} parameters, in tensors of other names or shapes"
        raise RunDirectoryError(
            f"{run_dir}: backbone {spec} makes a different network than when this run started: {counts}. "
            "Restore it as it was, or start a new run."
        )


def edited(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the files whose content is no longer what it was."""
    # A run that has moved, or a package installed elsewhere, has its files at other paths.
    moved = set(now.values())
    return [path for path, digest in then.items() if digest not in moved]
