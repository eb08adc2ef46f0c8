"""JSON read as what it must be: whole, or part by part where a reader makes do with what is sound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache, reduce
from operator import or_
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from rfsearch.errors import RunDirectoryError

T = TypeVar("T")
D = TypeVar("D")

_MOST_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True)
class Damaged:
    """Stand in for a part of a file that is missing or is not what it must be.

    Attributes:
        why: What is wrong with it: file, key, fault and value.
    """

    why: str


Kept = Union[T, Damaged]  # noqa: UP007 (a type variable on the left of | is no generic alias)
"""A part of a file as it was read."""


def sound(part: T | Damaged) -> T:
    """Return a part that must be right.

    Raises:
        RunDirectoryError: It is damaged.
    """
    if isinstance(part, Damaged):
        raise RunDirectoryError(part.why)
    return part


def known(part: T | Damaged, default: D) -> T | D:
    """Return a part, or a default where it is damaged."""
    return default if isinstance(part, Damaged) else part


def checked(kind: type[T], body: object, where: str) -> T:
    """Return JSON as what it must be.

    Args:
        kind: A dataclass, a model, or any type that pydantic can check; keys that it does not know are passed over.
        body: The JSON.
        where: Where it is from; the message begins with it.

    Raises:
        RunDirectoryError: It is something else; the message names the first fault.
    """
    hashable: Any = kind
    adapter: TypeAdapter[T] = _adapter(hashable)
    try:
        return adapter.validate_python(body)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        key = "".join(f".{part}" for part in fault["loc"])
        got = repr(fault["input"])
        shown = got if len(got) <= _MOST_SHOWN else f"{got[:_MOST_SHOWN]}..."
        raise RunDirectoryError(f"{where}{key}: {fault['msg'].removeprefix('Value error, ')}. Got {shown}.") from error


def read_parts(kind: type[T], body: object, file: Path, at: tuple[str, ...] = ()) -> T:
    """Read a JSON object as a dataclass whose fields are `Kept`, or dataclasses of such fields.

    Args:
        kind: The dataclass.
        body: The JSON.
        file: Its file, for messages.
        at: Keys under which the object is in the file.

    Returns:
        The dataclass. A missing part has its default; one that has none, or is not what it must be, is `Damaged`.
    """
    assert is_dataclass(kind)
    table = body if isinstance(body, Mapping) else {}
    hints = _hints(kind)
    found: dict[str, Any] = {}
    for field in fields(kind):
        keys = (*at, field.name)
        if is_dataclass(part := hints[field.name]):
            assert isinstance(part, type)
            found[field.name] = read_parts(part, table.get(field.name), file, keys)
        elif field.name in table:
            found[field.name] = _kept(part, table[field.name], f"{file}: damaged: {'.'.join(keys)}")
        elif field.default is MISSING:
            found[field.name] = Damaged(f"{file}: damaged: it has no {'.'.join(keys)}.")
    return kind(**found)


def _kept(hint: Any, body: object, where: str) -> object:
    kinds = [kind for kind in get_args(hint) if kind is not Damaged]
    try:
        return checked(reduce(or_, kinds), body, where)
    except RunDirectoryError as error:
        return Damaged(str(error))


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
