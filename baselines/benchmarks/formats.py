"""Time one training pass of a network as it is and in other formats: channels last, bfloat16 autocast, compiled."""

from __future__ import annotations

import copy
import functools

import pandas as pd
import torch
from side_by_side import Case, compare, judged
from torch import Tensor, nn
from torch.nn import functional as F

from rfsearch.plugins import make_backbone
from rfsearch.surgery import set_dilation

NAME = "formats"
BACKBONE, SITE, DILATIONS, BATCH, CLASSES, SIZE = "wei-small", "conv6", (1, 4), 8, 11, 96
OTHERS = ("channels last", "bfloat16 autocast", "bfloat16, channels last", "torch.compile")


def cases() -> list[Case]:
    """Build the network in every format, at every dilation."""
    torch.manual_seed(0)
    images, labels = torch.randn(BATCH, 3, SIZE, SIZE), torch.randint(CLASSES, (BATCH, SIZE, SIZE))
    found = []
    for dilation in DILATIONS:
        plain = make_backbone(BACKBONE, CLASSES, 3)
        set_dilation(plain.get_submodule(SITE), dilation)
        last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
        images_last = images.to(memory_format=torch.channels_last)

        def loss(model: nn.Module, images: Tensor = images, half: bool = False) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                logits = model(images)
            resized = F.interpolate(logits.float(), size=(SIZE, SIZE), mode="bilinear", align_corners=False)
            return F.cross_entropy(resized, labels)

        passes = [
            ("as it is", plain, functools.partial(loss, plain)),
            (OTHERS[0], last, functools.partial(loss, last, images_last)),
            (OTHERS[1], plain, functools.partial(loss, plain, half=True)),
            (OTHERS[2], last, functools.partial(loss, last, images_last, half=True)),
            (OTHERS[3], plain, functools.partial(loss, torch.compile(plain))),
        ]
        beside = f"as it is, d {dilation}"
        found += [Case(f"{what}, d {dilation}", beside, run, list(model.parameters())) for what, model, run in passes]
    return found


def targets(table: pd.DataFrame, time_of: str) -> dict[str, dict[str, object]]:
    """Judge whether each format is faster than the network as it is."""
    said = {}
    for what in OTHERS:
        names = [f"{what}, d {dilation}" for dilation in DILATIONS]
        times = max(table[time_of][name] / table[time_of][table.beside[name]] for name in names)
        said[f"{what} is faster"] = judged(times, times < 1)
    return said


if __name__ == "__main__":
    compare(NAME, cases, targets, {"backbone": BACKBONE, "images": [BATCH, 3, SIZE, SIZE]})
