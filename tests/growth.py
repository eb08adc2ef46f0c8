"""How much work a call takes, counted: a number that no busy machine changes."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import rfsearch

PACKAGE = str(Path(rfsearch.__file__).parent)


def lines_run(call: Callable[[], object]) -> int:
    """Lines of rfsearch that a call executes, every turn of a loop or comprehension counted."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count
