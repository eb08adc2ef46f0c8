"""The optimisers that a recipe may name, made so that their first step costs what every other one does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from rfsearch.space import Recipe

STATE_COPIES = {"sgd": 1, "adamw": 2}
"""What each keeps for a parameter, in parameters."""


def make_optimizer(recipe: Recipe, params: Iterable[nn.Parameter] | Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
    """Make a recipe's optimiser of parameters or groups of them, each with its weight decay or the recipe's."""
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "adamw":
        optimizer = torch.optim.AdamW(params, lr=recipe.lr, weight_decay=recipe.weight_decay)
    else:
        optimizer = torch.optim.SGD(params, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    prime(optimizer)
    return optimizer


def clip_gradients(recipe: Recipe, weights: Iterable[nn.Parameter]) -> None:
    """Scale the gradients of all weights together down to a recipe's norm, if it has one."""
    if recipe.clip_norm is not None:
        nn.utils.clip_grad_norm_(weights, recipe.clip_norm)


def prime(optimizer: torch.optim.Optimizer) -> None:
    """Make the state of every parameter that has none yet, as before its first step."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            if isinstance(optimizer, torch.optim.SGD):
                state.setdefault("momentum_buffer", torch.zeros_like(parameter))
            elif not state:
                state.update(step=torch.tensor(0.0), exp_avg=torch.zeros_like(parameter))
                state.update(exp_avg_sq=torch.zeros_like(parameter))
