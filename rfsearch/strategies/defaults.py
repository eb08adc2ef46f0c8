"""Which strategies compete where a request names none, by what a site of the space gets."""

from __future__ import annotations

from rfsearch.space import LSDFN

_ANY_FORM = ("exhaustive", "random", "optuna")
_LEARNING = {LSDFN: ("lsdfn",)}
_LEARNING_DILATIONS = ("inflation", "fractional")


def default_strategies(form: str) -> tuple[str, ...]:
    """Return names of entry points, in the order of their arms.

    Args:
        form: Form of the space.
    """
    return (*_ANY_FORM, *_LEARNING.get(form, _LEARNING_DILATIONS))
