"""Read many files at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rfsearch.errors import DataError

A = TypeVar("A")
R = TypeVar("R")


def attempt(function: Callable[[A], R]) -> Callable[[A], R | DataError]:
    """Make a function return its DataError instead of raising it, so that a pool's other calls go on."""

    def call(argument: A) -> R | DataError:
        try:
            return function(argument)
        except DataError as fault:
            return fault

    return call


def thread_pool() -> ThreadPoolExecutor:
    """Return threads to read files with: decoders do without Python's lock."""
    return ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
