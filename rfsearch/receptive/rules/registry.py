"""Find the rule of an operator or a module, and register further ones."""

from __future__ import annotations

from torch import nn

from rfsearch.receptive.call import Operator, Rule
from rfsearch.receptive.rules import (
    arranging,
    elementwise,
    mixing,
    own_layers,
    picking,
    resizing,
    sequences,
    windows,
)

_FAMILIES = (arranging, elementwise, mixing, own_layers, picking, resizing, sequences, windows)
_RULES: dict[Operator, Rule] = {operator: rule for family in _FAMILIES for operator, rule in family.RULES.items()}

# These read only the shape of a tensor, so that their result does not depend on the image.
BLIND = frozenset(f"{kind}_like" for kind in ("zeros", "ones", "empty", "full", "rand", "randn")) | {
    "new_zeros",
    "new_ones",
    "new_empty",
    "new_full",
    "new_empty_strided",
}


def register(operator: Operator, rule: Rule) -> None:
    """Add the rule of an operator. It replaces any earlier one.

    Args:
        operator: A module class, whose inside is then no longer followed, or the name of a dispatched operator: "roll"
            for aten::roll, "namespace::name" for any other.
        rule: Maps a `Call` to the `Field` of its result, or to one for each result. For a module that keeps its input's
            field it is `lambda call: call.field`; for one that reads 5 x 5 units at stride 2, `lambda call:
            call.field.windowed(5, stride=2)`; for one that sees everything, `lambda call: call.field.whole()`.
    """
    _RULES[operator.removeprefix("aten::") if isinstance(operator, str) else operator] = rule


def rule_of_module(module: nn.Module) -> Rule | None:
    """Return the rule of a module's class, or of the nearest parent class whose forward it keeps, or None."""
    for parent in type(module).__mro__:
        rule = _RULES.get(parent)
        if rule is not None:
            return rule if type(module).forward is getattr(parent, "forward", None) else None
    return None


def rule_of_operator(name: str) -> Rule | None:
    """Return the rule of a dispatched operator, or None. In place it does what it does out of place."""
    return _RULES.get(name) or _RULES.get(name.removesuffix("_"))
