"""The suites as they are offered: whole, and documented."""

import importlib

import pytest

from rfsearch import testing

SUITES = {
    "strategy": "strategies",
    "backbone": "backbones",
    "task": "tasks",
    "layout": "layouts",
    "space": "spaces",
    "figure": "figures",
    "choice": "choices",
    "detector": "detectors",
}


@pytest.mark.parametrize("kind", SUITES)
def test_the_suites_hold_every_check(kind):
    """A check that no suite holds would never run."""
    suite = getattr(testing, f"{kind.upper()}_CHECKS")
    module = importlib.import_module(f"rfsearch.testing.{SUITES[kind]}")
    defined = [name for name in vars(module) if name.startswith(f"{kind}_")]
    assert [check.__name__ for check in suite] == defined
    assert all(check.__doc__ for check in suite)


def test_every_suite_is_covered_above():
    assert {f"{kind.upper()}_CHECKS" for kind in SUITES} == {name for name in testing.__all__ if name.isupper()}
