"""The examples in the docstrings of the report run, and give what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import rfsearch.report

MODULES = [
    "rfsearch.numbers",
    *(module.name for module in pkgutil.walk_packages(rfsearch.report.__path__, "rfsearch.report.")),
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    assert not doctest.testmod(importlib.import_module(name)).failed


def test_there_are_examples() -> None:
    found = sum(doctest.testmod(importlib.import_module(name)).attempted for name in MODULES)
    assert found > 10
