"""What a manifest must hold for a run to be resumed or exported, checked part by part as it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from rfsearch.errors import RunDirectoryError

T = TypeVar("T")


@dataclass(frozen=True)
class HeldArm:
    """One arm of a run."""

    strategy: str
    seed: int


@dataclass(frozen=True)
class HeldData:
    """The data of a run. folder: None for the embedded set. fingerprint: of every image and label."""

    name: str
    folder: str | None
    fingerprint: str
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Network:
    """Which network a run trains.

    tensors: digest of the names and shapes in its state dict, and parameters: their number, both of the network as its
    backbone makes it. sources: SHA-256 of the user's files that make it, by path. layers: likewise, of layers of the
    user's that trials put into it, as far as they are known beforehand.
    """

    tensors: str
    parameters: int
    sources: Mapping[str, str]
    layers: Mapping[str, str] = field(default_factory=dict)


def held(manifest: Mapping[str, Any], path: Path, kind: type[T], *keys: str) -> T:
    """Return a part of a manifest as what it must be; keys that `kind` does not know are passed over.

    Args:
        manifest: The manifest as read.
        path: Its file, for messages.
        kind: A dataclass, a model, or any type that pydantic can check.
        keys: Where in the manifest the part is.

    Raises:
        RunDirectoryError: It is missing, or is something else; the message names the file, the key and the fault.
    """
    body: Any = manifest
    for depth, key in enumerate(keys):
        if not isinstance(body, Mapping) or key not in body:
            raise RunDirectoryError(f"{path}: damaged: it has no {'.'.join(keys[: depth + 1])}.")
        body = body[key]
    return checked(kind, body, f"{path}: damaged: {'.'.join(keys)}")


def checked(kind: type[T], body: Any, where: str) -> T:
    """Return JSON as what it must be, or raise RunDirectoryError with `where` in front of its first fault."""
    hashable: Any = kind
    adapter: TypeAdapter[T] = _adapter(hashable)
    try:
        return adapter.validate_python(body)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        key = "".join(f".{part}" for part in fault["loc"])
        got = repr(fault["input"])
        shown = got if len(got) <= 60 else f"{got[:60]}..."
        raise RunDirectoryError(f"{where}{key}: {fault['msg'].removeprefix('Value error, ')}. Got {shown}.") from error


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
