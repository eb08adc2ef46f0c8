"""How a check says that a rule is broken."""

from __future__ import annotations


def hold(condition: bool, message: str) -> None:
    """Raise an AssertionError where a rule is broken, under python -O too, which leaves `assert` out.

    Args:
        condition: Whether the rule is kept.
        message: The rule, and what broke it, without a full stop.
    """
    if not condition:
        raise AssertionError(f"{message}.")


def same(a: object, b: object, rule: str) -> None:
    """Raise an AssertionError where two answers that a rule makes equal are not."""
    hold(a == b, f"{rule}. Got {a} and {b}")
