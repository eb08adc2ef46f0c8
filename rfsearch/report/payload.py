"""What a page's script gets: figures as JSON that holds every array once, and the plotly that draws them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from plotly.offline import get_plotlyjs

_DIGITS = 6  # significant ones of a number: more are not seen in a drawing
_LONG = 4  # values of an array, from which on it is worth a place of its own
# Of plotly.js 4.1.1, MIT licence (plotly-LICENSE): a quarter of the whole, which the plotly package brings.
_BASIC, _BASIC_TYPES = "plotly-basic.min.js.gz", ("scatter", "bar", "pie")


def plotly_for(specs: Sequence[Mapping[str, Any]]) -> str:
    """Return the script that draws these figures: plotly's basic bundle, or all of it where one needs that."""
    if not specs:
        return ""
    if all(trace.get("type", "scatter") in _BASIC_TYPES for spec in specs for trace in spec["data"]):
        return gzip.decompress((files(__package__) / _BASIC).read_bytes()).decode()
    return str(get_plotlyjs())


def in_script(specs: Sequence[Mapping[str, Any]]) -> str:
    """Return figures as JSON that may be put inside a script element, whatever its strings hold.

    It is an object of `arrays`, and of `figures` in which {"$": k} stands for the k-th array.
    """
    arrays: dict[str, int] = {}
    figures = [_compact(spec, arrays) for spec in specs]
    text = f'{{"arrays":[{",".join(arrays)}],"figures":{_json(figures)}}}'
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _compact(value: Any, arrays: dict[str, int]) -> Any:
    if isinstance(value, float):
        rounded = float(f"{value:.{_DIGITS}g}")
        return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded
    if isinstance(value, Mapping):
        return {key: _compact(one, arrays) for key, one in value.items()}
    if isinstance(value, list | tuple):
        found = [_compact(one, arrays) for one in value]
        if len(found) < _LONG or any(isinstance(one, dict | list) for one in found):
            return found
        return {"$": arrays.setdefault(_json(found), len(arrays))}
    return value


def _json(value: object) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
