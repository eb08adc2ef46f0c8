"""Values that replace those of a space file for one run, each written KEY=VALUE.

KEY is the path of a value in the file, its parts joined by dots. What a preset holds is that of the preset in use:
`recipe.steps`, `dilations`, `task.class_weights`; the rest is the file's: `data.rendered`, `paths.bi.manual`. VALUE is
written as in TOML; text needs no quotes.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from typing import Any

from rfsearch.errors import SpaceError


def apply_changes(
    body: Mapping[str, Any], preset: str, of_presets: Collection[str], changes: Sequence[str]
) -> dict[str, Any]:
    """Return a space file with some values replaced; what the values may be is not checked.

    Args:
        body: The file, sound as it is.
        preset: Name of the preset in use.
        of_presets: Keys that presets hold.
        changes: KEY=VALUE each; of two for one key the later one counts.

    Raises:
        SpaceError: A change is not written so, or leads through a value that is no table.
    """
    changed = deepcopy(dict(body))
    for change in changes:
        key, equals, text = change.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise SpaceError(f"--set takes KEY=VALUE, such as recipe.steps=600. Got {change!r}.")
        table = changed["presets"][preset] if parts[0] in of_presets else changed
        for part in parts[:-1]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise SpaceError(f"--set {change}: {part} of {key.strip()} is no table of keys and values.")
        table[parts[-1]] = _value(text.strip())
    return changed


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, ValueError, RecursionError):
        return text
