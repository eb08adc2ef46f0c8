"""Faults of a space file in words of the file, each with its line."""

from __future__ import annotations

import difflib
import re

from pydantic_core import ErrorDetails

from rfsearch.space.table import Table


def describe_fault(text: str, fault: ErrorDetails) -> str:
    """Describe a fault that pydantic found in a space file as `line N, key: what`.

    Args:
        text: The file.
        fault: One entry of `ValidationError.errors()`.
    """
    return f"line {_line_of(text, _keys_of(fault))}, {describe_change(fault)}"


def describe_change(fault: ErrorDetails) -> str:
    """Describe a fault of a value that replaces one of a space file, which is on no line of it, as `key: what`."""
    return f"{'.'.join(_keys_of(fault)) or 'file'}: {_in_plain_words(fault)}"


def _keys_of(fault: ErrorDetails) -> list[str]:
    return [str(part) for part in fault["loc"] if part != "[key]"]  # pydantic's mark of a key that is wrong itself


# What a value of a space file must be, by pydantic's name for the fault; its own words are of Python's types.
_WANTED = {
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list, in square brackets"),
    **dict.fromkeys(("dict_type", "model_type"), "a table of keys and values"),
    "string_type": "text, in quotes",
}
_MOST_SHOWN = 60  # characters of a value


def _in_plain_words(fault: ErrorDetails) -> str:
    """Say what is wrong with a value, in words of the file and not of Python, and show the value."""
    message: str = fault["msg"].removeprefix("Value error, ")
    rule = "Input should be "
    wanted = _WANTED.get(fault["type"]) or (message.removeprefix(rule) if message.startswith(rule) else "")
    if fault["type"] == "extra_forbidden":
        return message + _meant(str(fault["loc"][-1]))
    if not wanted:
        return message
    got = repr(fault["input"])
    return f"must be {wanted}. Got {got if len(got) <= _MOST_SHOWN else f'{got[:_MOST_SHOWN]}...'}"


def _meant(key: str) -> str:
    """Return the key of a space file that an unknown one may be a slip of, as the end of a message."""
    tables, known = [Table], set[str]()
    for table in tables:
        known |= table.model_fields.keys()
        tables += table.__subclasses__()
    near = difflib.get_close_matches(key, sorted(known), n=1)
    return f". Did you mean {near[0]!r}?" if near else ""


def _line_of(text: str, keys: list[str]) -> int:
    """Return the line that sets a key: the deepest part of its path that is in the file under its own table."""
    best, table = 1, ""
    wanted = [".".join(keys[:depth]) for depth in range(1, len(keys) + 1)]
    for number, line in enumerate(text.splitlines(), start=1):
        if head := re.match(r"\s*\[([^\[\]]+)\]", line):
            table = head[1].strip()
            path = table
        elif pair := re.match(r"\s*([\w-]+)\s*=", line):
            path = f"{table}.{pair[1]}" if table else pair[1]
        else:
            continue
        if path in wanted:
            best = number
    return best
