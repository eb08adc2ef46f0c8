"""Entry points turned into objects. Built-in backbones, strategies and tasks are entry points too.

Groups: rfsearch.spaces (callables that return the path of a space file), rfsearch.backbones, rfsearch.strategies,
rfsearch.tasks. The spaces that ship with rfsearch are the TOML files of its `search_spaces` folder.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal

from rfsearch.errors import ModelError, RequestError, SpaceError, nearest

Group = Literal["spaces", "backbones", "strategies", "tasks"]


def names(group: Group) -> list[str]:
    """Every name that a group knows."""
    found = {point.name for point in entry_points(group=f"rfsearch.{group}")}
    if group == "spaces":
        found |= {path.stem for path in shipped("search_spaces").glob("*.toml")}
    return sorted(found)


def load(group: Group, name: str) -> Any:
    """The object behind a name of a group, or a SpaceError that names the nearest one."""
    for point in entry_points(group=f"rfsearch.{group}"):
        if point.name == name:
            return _load_point(point)
    kind = {"spaces": "space", "backbones": "backbone", "strategies": "strategy", "tasks": "task"}[group]
    raise SpaceError(f"unknown {kind} {name!r}.{nearest(name, names(group))}")


def _load_point(point: EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:
        raise RequestError(f"plugin {point.name!r} of {point.group} ({point.value}) does not load: {error}") from error


def shipped(folder: Literal["search_spaces", "baselines"]) -> Path:
    """A data folder of the project: inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "_shipped" / folder
    return inside if inside.is_dir() else package.parent / folder


def space_file(name_or_file: str) -> Path:
    """The file of a space, by its name or its own path."""
    path = Path(name_or_file)
    if path.suffix == ".toml" or path.is_file():
        if not path.is_file():
            raise SpaceError(f"{name_or_file}: no such space file.{nearest(path.stem, names('spaces'))}")
        return path
    inside = shipped("search_spaces") / f"{name_or_file}.toml"
    return inside if inside.is_file() else Path(load("spaces", name_or_file)())


def backbone(spec: str) -> Callable[..., Any]:
    """The callable behind a backbone SPEC: a plugin's name, `package.module:callable` or `path/to/file.py:callable`."""
    source, _, attribute = spec.rpartition(":")
    if not source:
        return load("backbones", spec)
    try:
        module = _module_of_file(Path(source)) if source.endswith(".py") else importlib.import_module(source)
    except FileNotFoundError:
        raise ModelError(f"backbone {spec!r}: no file {source}.") from None
    except Exception as error:
        raise ModelError(f"backbone {spec!r}: {source} does not import: {type(error).__name__}: {error}.") from error
    made = getattr(module, attribute, None)
    if not callable(made):
        public = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise ModelError(f"backbone {spec!r}: {source} has no callable {attribute!r}.{nearest(attribute, public)}")
    return made


def _module_of_file(path: Path) -> Any:
    """Import a file under a name of its own, so that its classes can be found again when a worker unpickles them."""
    if not path.is_file():
        raise FileNotFoundError(path)
    name = f"rfsearch_backbone_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
