"""The batches of a training, augmented as its recipe says."""

from __future__ import annotations

import torch

from rfsearch.data import Augment, Batches, ImageSet
from rfsearch.space import Recipe
from rfsearch.tasks.base import Task


def training_batches(
    recipe: Recipe, data: ImageSet, task: Task[object], seed: int, device: torch.device
) -> Batches[object]:
    """Draw batches of the training split, their order and augmentation decided by the seed."""
    return Batches(data.splits["train"], recipe.batch_size, seed, task, augment_of(recipe), device)


def training_size(recipe: Recipe, data: ImageSet) -> tuple[int, int]:
    """Return H x W px of what a network is shown of an image in training."""
    return recipe.crop or data.image_size


def augment_of(recipe: Recipe) -> Augment:
    """Return how a recipe changes images at random."""
    return Augment(
        flip=recipe.flip,
        scale=recipe.scale,
        shift=recipe.shift,
        brightness=recipe.brightness,
        contrast=recipe.contrast,
        crop=recipe.crop,
    )
