"""Entry points turned into objects. What is built in is an entry point too.

Groups: rfsearch.spaces (callables that return the path of a space file), rfsearch.backbones, rfsearch.strategies,
rfsearch.tasks, rfsearch.layouts, rfsearch.choices, rfsearch.figures, rfsearch.observers. The spaces that ship with
rfsearch are the TOML files of its `search_spaces` folder.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from rfsearch.errors import (
    ModelError,
    NotInstalledError,
    RequestError,
    RfsearchError,
    SpaceError,
    UntrustedError,
    described,
    nearest,
)
from rfsearch.sources import absolute, import_source

if TYPE_CHECKING:
    from torch import nn

    from rfsearch.data.base import DataSource, Embedded, Layout
    from rfsearch.tasks.base import Task

Group = Literal["spaces", "backbones", "strategies", "tasks", "layouts", "choices", "figures", "observers"]
GROUPS: tuple[Group, ...] = get_args(Group)
KINDS: Mapping[Group, str] = {
    "spaces": "space",
    "strategies": "strategy",
    "backbones": "backbone",
    "tasks": "task",
    "choices": "kind of choice",
    "layouts": "layout",
    "figures": "figure",
    "observers": "observer",
}

# The SPECs of networks of other packages begin with these; see rfsearch.backbones.zoos.
ZOOS = ("torchvision", "timm", "smp")
OF_ZOO = "zoo:"
"""In front of the name of weights that a zoo has of its own network."""


def names(group: Group) -> list[str]:
    """Return every name that a group knows."""
    found = {point.name for point in _points(group)}
    if group == "spaces":
        found |= {path.stem for path in shipped("search_spaces").glob("*.toml")}
    return sorted(found)


def load(group: Group, name: str) -> Any:
    """Return the object behind a name of a group; the SpaceError for an unknown name has the nearest one."""
    for point in _points(group):
        if point.name == name:
            return _load_point(point)
    raise SpaceError(f"unknown {KINDS[group]} {name!r}.{nearest(name, names(group))}")


def load_all(group: Group) -> tuple[dict[str, Any], list[str]]:
    """Load every plugin of a group.

    Args:
        group: The group. Of several plugins with one name the first is taken, as `load` does.

    Returns:
        What loaded, by name, and one sentence for each plugin that did not load.
    """
    found: dict[str, Any] = {}
    broken = []
    for point in _points(group):
        if point.name not in found:
            try:
                found[point.name] = _load_point(point)
            except RequestError as error:
                broken.append(str(error))
    return found, broken


def _points(group: Group) -> tuple[EntryPoint, ...]:
    return _points_on(tuple(sys.path), group)


@cache
def _points_on(path: tuple[str, ...], group: Group) -> tuple[EntryPoint, ...]:
    """Return the entry points of all packages on a path; looking through their metadata takes tens of milliseconds."""
    return tuple(entry_points(group=f"rfsearch.{group}"))


def _load_point(point: EntryPoint) -> Any:
    try:
        return point.load()
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and (extra := _extra_of(point)):
            raise NotInstalledError(f"{error.name} is not installed: pip install 'rfsearch[{extra}]'.") from error
        package = f" of the package {point.dist.name} {point.dist.version}" if point.dist else ""
        raise RequestError(
            f"plugin {point.name!r} of {point.group}{package} ({point.value}) does not load: {describe_error(error)}."
        ) from error


def _extra_of(point: EntryPoint) -> str:
    """Return the extra of rfsearch's own that brings what a plugin of its own imports; empty where there is none."""
    own = point.dist is not None and point.dist.name == "rfsearch"
    extras = point.dist.metadata.get_all("Provides-Extra") if own and point.dist else None
    return point.name if point.name in (extras or ()) else ""


def describe_error(error: BaseException) -> str:
    """Return an error as one line: its type and what it says."""
    said = " ".join(str(error).split())[:500]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def explain(error: BaseException) -> str:
    """Return an error as one line: what it says where it is of ours, which is a message already; else its type too."""
    return " ".join(str(error).split())[:500] if isinstance(error, RfsearchError) else describe_error(error)


def faults() -> list[str]:
    """Return a message for each installed plugin that does not load. The others are none the worse for it."""
    found = []
    for group in GROUPS:
        for point in _points(group):
            if point.dist and point.dist.name == "rfsearch":  # imported where they are used: some take seconds
                continue
            try:
                loaded = _load_point(point)
                if group == "spaces":
                    _file_of(point.name, loaded)
                if group == "layouts":
                    _require_source(point.name, loaded)
            except RequestError as error:
                found.append(str(error))
    return found


def _file_of(name: str, give: Callable[[], str | Path]) -> Path:
    """Return the file that the plugin of a space names."""
    try:
        path = Path(give())
    except (Exception, SystemExit) as error:
        raise SpaceError(
            f"plugin {name!r} of rfsearch.spaces does not give its file: {describe_error(error)}."
        ) from error
    if not path.is_file():
        raise SpaceError(f"plugin {name!r} of rfsearch.spaces gives {path}, which is no file.")
    return path


def shipped(folder: Literal["search_spaces", "baselines"]) -> Path:
    """Return a data folder of the project: inside the package if installed from a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "_shipped" / folder
    return inside if inside.is_dir() else package.parent / folder


def space_file(name_or_file: str) -> Path:
    """Return the file of a space, by its name or its own path."""
    path = Path(name_or_file)
    if path.suffix == ".toml" or path.is_file():
        if not path.is_file():
            raise SpaceError(f"{name_or_file}: no such space file.{nearest(path.stem, names('spaces'))}")
        return path
    inside = shipped("search_spaces") / f"{name_or_file}.toml"
    return inside if inside.is_file() else _file_of(name_or_file, load("spaces", name_or_file))


def strategy(spec: str) -> Callable[..., Any]:
    """Return the class behind a strategy's name or SPEC, or anything `(space, seed) -> Strategy`.

    Raises SpaceError for an unknown name, ModelError for a SPEC behind which there is nothing.
    """
    if spec.endswith(".py"):
        raise SpaceError(f"a file holds a strategy by the name of its class: {spec}:MyStrategy. Got {spec!r}.")
    return named(spec, "strategy") if ":" in spec else load("strategies", spec)


def task(spec: str) -> type[Task[object]]:
    """Return the class behind the name or SPEC of a task.

    Raises:
        SpaceError: The name is unknown.
        ModelError: There is nothing behind the SPEC, or it is no task.
    """
    from rfsearch.tasks.base import Task, TaskKeys

    if spec.endswith(".py"):
        raise SpaceError(f"a file holds a task by the name of its class: {spec}:MyTask. Got {spec!r}.")
    found = named(spec, "task") if ":" in spec else load("tasks", spec)
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise ModelError(f"task {spec!r} is a subclass of rfsearch.tasks.base.Task. Got {described(found)}.")
    _require_every_method("task", spec, found)
    keys = getattr(found, "Keys", None)
    if not (isinstance(keys, type) and issubclass(keys, TaskKeys)):
        raise ModelError(f"task {spec!r} has keys: a subclass of rfsearch.tasks.base.TaskKeys as `Keys`. Got none.")
    return found


def _require_every_method(what: str, spec: str, found: type) -> None:
    """Raise a ModelError for a class that leaves methods of its contract out."""
    if inspect.isabstract(found):
        missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        raise ModelError(f"{what} {spec!r} has every method of its contract. Missing: {missing}.")


def layout(spec: str) -> type[Layout]:
    """Return the class behind the name or SPEC of a layout that reads a folder.

    Raises:
        SpaceError: The name is unknown, or the layout reads no folder.
        ModelError: There is nothing behind the SPEC, or it is no layout.
    """
    from rfsearch.data.base import Layout

    source = _source(spec)
    if not issubclass(source, Layout):
        raise SpaceError(f"layout {spec!r} makes its images and reads no folder: name it as `default`.")
    return source


def embedded(spec: str) -> type[Embedded]:
    """Return the class behind the name or SPEC of a layout that needs no folder.

    Raises:
        SpaceError: The name is unknown, or the layout reads a folder.
        ModelError: There is nothing behind the SPEC, or it is no layout.
    """
    from rfsearch.data.base import Embedded

    source = _source(spec)
    if not issubclass(source, Embedded):
        raise SpaceError(f"layout {spec!r} reads a folder, which a default does without: name it as `layout`.")
    return source


def sources() -> Iterator[tuple[str, type[DataSource]]]:
    """Yield the layouts of all packages that load, by name."""
    for name in names("layouts"):
        try:
            yield name, _source(name)
        except RequestError:  # `faults` reports it
            continue


def _source(spec: str) -> type[DataSource]:
    if spec.endswith(".py"):
        raise SpaceError(f"a file holds a layout by the name of its class: {spec}:MyLayout. Got {spec!r}.")
    return _require_source(spec, named(spec, "layout") if ":" in spec else load("layouts", spec))


def _require_source(spec: str, found: Any) -> type[DataSource]:
    """Return what a plugin gave, if it is a layout that can be made."""
    from rfsearch.data.base import DataSource

    if not (isinstance(found, type) and issubclass(found, DataSource)):
        raise ModelError(
            f"layout {spec!r} is a subclass of rfsearch.data.Layout or rfsearch.data.Embedded. Got {described(found)}."
        )
    _require_every_method("layout", spec, found)
    return found


def split_weights(spec: str) -> tuple[str, str]:
    """Split `torchvision:resnet18?weights=DEFAULT` into the SPEC and the source of its weights, "" without any.

    Raises:
        SpaceError: What follows the question mark is something else, or the network is of no zoo.
    """
    network, asked, option = spec.partition("?")
    if not asked:
        return spec, ""
    zoo = network.partition(":")[0]
    key, _, weights = option.partition("=")
    if zoo not in ZOOS or key != ("pretrained" if zoo == "timm" else "weights") or bool(weights) == (zoo == "timm"):
        raise SpaceError(
            f"backbone {spec!r}: what may follow the name of a network is ?weights=NAME, in torchvision and "
            "segmentation-models-pytorch, or ?pretrained, in timm. Weights of other networks are a file: --set "
            "weights=FILE."
        )
    return network, f"{OF_ZOO}{weights or key}"


def backbone(spec: str) -> Callable[..., Any]:
    """Return the callable behind a backbone SPEC, `(num_classes, in_channels=3) -> nn.Module`.

    Args:
        spec: A plugin's name, `torchvision:NAME`, `timm:NAME`, `smp:ARCH/ENCODER`, `package.module:callable` or
            `path/to/file.py:callable`.

    Raises:
        SpaceError: The name is unknown.
        ModelError: There is no such network.
    """
    zoo, _, network = spec.partition("?")[0].partition(":")
    if zoo in ZOOS and network:
        from rfsearch.backbones import zoos

        return zoos.builder(zoo, network)
    if spec.endswith(".py"):
        raise SpaceError(f"a file holds a backbone by the name of a callable: {spec}:make. Got {spec!r}.")
    return named(spec, "backbone") if ":" in spec else load("backbones", spec)


def named(spec: str, what: str) -> Callable[..., Any]:
    """Return the callable that a SPEC names: `package.module:callable` or `path/to/file.py:callable`.

    The module may be one of the working directory, and the file may import its neighbours; `sources.absolute` makes of
    such a SPEC one that means the same elsewhere.

    Args:
        spec: The SPEC.
        what: What it makes, for messages.

    Raises:
        ModelError: There is no such callable.
    """
    source, _, attribute = spec.rpartition(":")
    try:
        module = import_source(absolute(spec).rpartition(":")[0])
    except FileNotFoundError:
        raise ModelError(f"{what} {spec!r}: no file {source}.") from None
    except UntrustedError:
        raise
    except (Exception, SystemExit) as error:
        raise ModelError(f"{what} {spec!r}: {source} does not import: {type(error).__name__}: {error}.") from error
    made = getattr(module, attribute, None)
    if not callable(made):
        public = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise ModelError(f"{what} {spec!r}: {source} has no callable {attribute!r}.{nearest(attribute, public)}")
    result: Callable[..., Any] = made
    return result


def make_backbone(spec: str, num_classes: int, in_channels: int = 3, bare: bool = False) -> nn.Module:
    """Build the network behind a backbone SPEC, made plain. Whatever is wrong with its callable is one ModelError.

    Args:
        spec: The SPEC.
        num_classes: What its callable is told.
        in_channels: Likewise.
        bare: Whether the callable may also be one without arguments, as a training of one's own has it.
    """
    from torch import nn

    from rfsearch.compiled import strip_compilation

    make = backbone(spec)
    if bare and _takes_nothing(make):
        make = _without_arguments(make)
    try:
        inspect.signature(make).bind(num_classes, in_channels)
    except TypeError as error:
        raise ModelError(
            f"backbone {spec!r} is a callable (num_classes, in_channels=3) -> nn.Module. This one does not take "
            f"({num_classes}, {in_channels}): {error}."
        ) from error
    except ValueError:  # a callable of an extension, whose signature nobody knows
        pass
    try:
        model = make(num_classes, in_channels)
    except RfsearchError:
        raise
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"backbone {spec!r} fails when it is built for {num_classes} classes and {in_channels} channels: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"backbone {spec!r} gives a torch.nn.Module. Got {described(model)}.")
    try:
        return strip_compilation(model)
    except ModelError as error:
        raise ModelError(f"backbone {spec!r}: {error}") from error


def _takes_nothing(make: Callable[..., Any]) -> bool:
    try:
        return not inspect.signature(make).parameters
    except ValueError:
        return False


def _without_arguments(make: Callable[[], Any]) -> Callable[[int, int], Any]:
    return lambda num_classes, in_channels: make()
