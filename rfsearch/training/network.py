"""The network of a candidate: built, with what training can move in it, and its receptive fields."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import nn

from rfsearch import plugins
from rfsearch.backbones.weights import load_weights
from rfsearch.choices import Candidate
from rfsearch.data import ImageSet
from rfsearch.errors import ModelError
from rfsearch.layers import low_centre_
from rfsearch.lazy import give_sizes
from rfsearch.receptive import receptive_fields
from rfsearch.space import SearchSpace, Space
from rfsearch.surgery import Learnable, Settings, install
from rfsearch.tasks.base import Task


class Built(NamedTuple):
    """Hold the network of a candidate.

    Attributes:
        model: The network.
        learnable: What training can move of its receptive field.
        trained: Parameters that came with trained weights.

    Example:
        >>> build_network(space, task, data, space.reference_candidate).trained
        []
    """

    model: nn.Module
    learnable: Learnable
    trained: list[nn.Parameter]


def build_network(space: Space, task: Task[object], data: ImageSet, candidate: Candidate) -> Built:
    """Build a space's network, its weights loaded and a candidate's receptive field set."""
    trained: list[nn.Parameter] = []
    model = plugins.make_backbone(space.backbone, task.out_channels, task.in_channels)
    give_sizes(model, data.input_shape)
    if space.weights != "none":
        loading = load_weights(model, space.weights, space.backbone)
        if not loading.names:
            raise ModelError(f"The run started from trained weights that are not available here. {loading.said}")
        trained = [parameter for name, parameter in model.named_parameters() if name in loading.names]
    elif space.recipe.low_centre:
        low_centre_(model)
    return Built(model, install(model, candidate, settings_of(space, data.classes)), trained)


@dataclass(frozen=True)
class Fields:
    """Hold the receptive fields of a built network.

    Args:
        rf_px: Of a unit of its output, px: what it reads by itself where it also sees the whole image.
        path_rf_px: Behind the convolution of each path, px, where paths are parallel.
        seen: A fingerprint of which part of the image every unit reads, of the output and of every site's map.
    """

    rf_px: int
    path_rf_px: dict[str, int]
    seen: str


def fields_of(model: nn.Module, learnable: Learnable, candidate: Candidate, input_shape: Sequence[int]) -> Fields:
    """Return the receptive fields of a network that holds a candidate.

    Args:
        model: The network.
        learnable: What `build_network` gave with it.
        candidate: What it holds.
        input_shape: 1 x C x H x W, of one image.
    """
    fields = receptive_fields(model, input_shape)
    parallel = {site for site, paths in candidate.sites if len(paths) > 1}
    parts = {path: module for path, module in learnable.modules.items() if path.rpartition("/")[0] in parallel}
    seen = hashlib.sha256()
    for module in ("", *learnable.modules.values()):
        for axis in fields[module].axes:
            seen.update(np.clip(axis.windows, 0, axis.image_px - 1).round(3).tobytes())
    output = fields[""]
    rf_px = output.local_px or output.px
    return Fields(rf_px, {path: fields[module].px for path, module in parts.items()}, seen.hexdigest())


def settings_of(space: SearchSpace, classes: tuple[str, ...] = ()) -> Settings:
    """Return what surgery needs of a space and of the names of its data's classes."""
    return Settings(
        f_bounds=space.f_bounds,
        classes=classes,
        sampling=space.sampling,
        dilations=space.dilations,
        **space.layer_options,
    )
