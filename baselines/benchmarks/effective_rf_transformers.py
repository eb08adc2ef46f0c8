"""Measure effective receptive fields of transformers and hybrids beside those of convolutional networks.

Luo et al. (NeurIPS 2016) measured convolutional networks only. Attention lets every unit see the whole image, which
does not say how much of it counts, and the field need not be a Gaussian: the table says where it is not, and how far
the gradient really spreads.

Each network is measured at its last map in front of a closing normalisation. A LayerNorm without trained weights makes
the sum of a unit's channels constant; behind it there is no field, and rfsearch says so.

Where `openerf` is installed (`pip install openerf==0.6.1`), it measures the same layer on the same images. Its map is
the mean of the positive part of the gradient; the rule for the size is applied to both maps alike.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import timm
import torch
from effective_rf import MAP, numbers
from PIL import Image
from provenance import RESULTS, provenance, write_sidecar
from torch import Tensor, nn

from rfsearch.data import rendered_faces
from rfsearch.receptive import receptive_field_at
from rfsearch.receptive.effective import THRESHOLD, EffectiveField, effective_receptive_field

NAME = "effective_rf_transformers"
SIDE = 224  # px of the images
SEEDS, INPUTS = 3, 6
DARKEST = 1e-3  # of the largest share, in the picture
GAUSSIAN = 0.9545**2  # what a Gaussian holds within 2 sigma on both axes
EVEN_95 = SIDE * 0.95**0.5

Share = npt.NDArray[np.float64]
Place = Sequence[float]
Measured = tuple[dict[str, Any], Share, Place]  # a row of the table, the mean map, and where the measured unit lies, px


def as_map(output: Tensor) -> Tensor:
    """Bring what a network's last module returns, for a square image, to B x C x h x w.

    B x N x C are the tokens of a grid behind others; in B x h x w x C the first two axes are alike.
    """
    if output.dim() == 3:
        side = int(output.shape[1] ** 0.5)
        return output[:, -side * side :].mT.unflatten(2, (side, side))
    return output.movedim(-1, 1) if output.shape[1] == output.shape[2] else output


@dataclass(frozen=True)
class Network:
    """Describe one network of timm.

    Attributes:
        kind: What it is, for the table.
        name: Its name in timm.
        at: Module of its last map.
        options: Arguments that keep its residual branches from starting at nothing.
    """

    kind: str
    name: str
    at: str
    options: dict[str, Any] = field(default_factory=dict)

    def build(self, seed: int) -> nn.Module:
        """Build it untrained, its weights drawn from a seed."""
        torch.manual_seed(seed)
        model: nn.Module = timm.create_model(self.name, pretrained=False, **self.options).eval()
        return model


NETWORKS = (
    Network("convolutional", "resnet18", "layer4", {"zero_init_last": False}),
    Network("convolutional", "resnet50", "layer4", {"zero_init_last": False}),
    Network("convolutional", "convnext_pico", "stages", {"ls_init_value": 1.0}),
    Network("vision transformer", "vit_tiny_patch16_224", "blocks"),
    Network("windows", "swin_tiny_patch4_window7_224", "layers"),
    Network("pyramid, as in SegFormer", "pvt_v2_b0", "stages.3.blocks.1"),
    Network("hybrid", "vit_tiny_r_s16_p8_224", "blocks"),
    Network("hybrid", "coatnet_pico_rw_224", "stages"),
)


class LastMap(nn.Module):
    """Give a network's last map to openerf as what it measures by default: B x 3 x H x W to B x C x h x w."""

    def __init__(self, network: Network, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.pretrained_cfg = model.pretrained_cfg
        self.seen: list[Tensor] = []
        model.get_submodule(network.at).register_forward_hook(lambda module, args, output: self.seen.append(output))

    def forward_features(self, image: Tensor) -> Tensor:
        """Map B x 3 x H x W to B x C x h x w."""
        self.seen.clear()
        self.model(image)
        return as_map(self.seen[-1])


def write_images(folder: Path, count: int) -> None:
    """Write rendered faces, one file per image."""
    for number, image in enumerate(rendered_faces(1, count, 0, (SIDE, SIDE)).splits["val"].images):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{number:03d}.png")


def read_images(folder: Path, model: nn.Module) -> Tensor:
    """Read all images as timm does for a network: N x 3 x H x W."""
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    return torch.stack([transform(Image.open(file).convert("RGB")) for file in sorted(folder.iterdir())])


def by_openerf(network: Network, model: nn.Module, folder: Path) -> EffectiveField:
    """Measure with openerf, and wrap its map."""
    import openerf

    found = openerf.compute_erf(LastMap(network, model), image_dir=folder, device="cpu", show_progress=False)
    return EffectiveField(found.erf_map, (0.0, 0.0), (0.0, 0.0), "moments")


def inside(share: Share, sides: Place, centre: Place) -> float:
    """Return the share of the gradient within a rectangle: its sides in px, and where its centre lies."""
    near = [abs(np.arange(n) - at) <= px / 2 for n, at, px in zip(share.shape, centre, sides, strict=True)]
    return float(share[np.ix_(*near)].sum())


def square_95(share: Share, centre: Place) -> float:
    """Return the side of the square around a unit that holds 95 % of the gradient, px."""
    away = np.maximum.outer(*(abs(np.arange(n) - at) for n, at in zip(share.shape, centre, strict=True)))
    order = np.argsort(away, axis=None)
    return float(2 * away.flat[order[np.searchsorted(share.flat[order].cumsum(), 0.95)]] + 1)


def measure(network: Network, folder: Path, seeds: int, with_openerf: bool) -> Measured:
    """Measure one network."""
    began = time.perf_counter()
    theory = receptive_field_at(network.build(0), (1, 3, SIDE, SIDE), network.at)
    centre = tuple(axis.offset + axis.jump * (len(axis.windows) // 2) for axis in theory.axes)
    fields, others = [], []
    for seed in range(seeds):
        model = network.build(seed)
        images = read_images(folder, model)
        sides = [axis.px for axis in theory.axes]
        fields.append(effective_receptive_field(model, images, at=network.at, theoretical_px=sides))
        if with_openerf:
            others.append(by_openerf(network, model, folder))
    found = numbers(fields)
    row: dict[str, Any] = {
        "network": network.name,
        "kind": network.kind,
        "at": network.at,
        "jump_px": theory.jump_h,
        "sees_whole": theory.whole,
        "theoretical_px": theory.px,
        "size_px": found["size_px"],
        "size_px_95": found["size_px_95"],
        "gaussian_px": found["gaussian_px"],
        "fitted": found["fitted"],
        "r2": np.mean([one.r2 for one in fields if one.r2 is not None] or [np.nan]),
        "within_gaussian": np.mean([inside(one.map, [4 * sigma for sigma in one.sigma], one.centre) for one in fields]),
        "square_95_px": np.mean([square_95(one.map, centre) for one in fields]),
        "own_cell": np.mean([inside(one.map, [theory.jump_h, theory.jump_w], centre) for one in fields]),
        "openerf_size_px": None,
        "openerf_overlap": None,
    }
    if others:
        row["openerf_size_px"] = np.mean([other.size_px for other in others])
        pairs = zip(fields, others, strict=True)
        row["openerf_overlap"] = np.mean([np.minimum(a.map, b.map).sum() for a, b in pairs])
    print(f"{network.name}: {row['size_px']:.1f} px, {time.perf_counter() - began:.0f} s", flush=True)
    return row, np.mean([one.map for one in fields], axis=0), centre


def main() -> None:
    """Measure every network, and write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=SEEDS, help="networks of each kind, their weights drawn anew")
    parser.add_argument("--inputs", type=int, default=INPUTS, help="images per network")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    openerf = version("openerf") if find_spec("openerf") else None
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_images(folder, asked.inputs)
        measured = [measure(network, folder, asked.seeds, openerf is not None) for network in NETWORKS]
    table = pd.DataFrame([row for row, _, _ in measured])
    table.round(3).to_csv(RESULTS / f"{NAME}.csv", index=False)
    write_sidecar(
        NAME,
        {
            **provenance(),
            "timm": timm.__version__,
            "openerf": openerf or "not installed: its columns are empty",
            "images": f"{asked.inputs} rendered faces, {SIDE} px, as timm prepares them for each network",
            "weights": f"untrained, mean of {asked.seeds} draws; no installed package ships weights of these networks. "
            "timm starts residual branches of ResNets at 0 and of ConvNeXt at 1e-6, so that only shortcuts would "
            "have a field; here they start at full strength (zero_init_last=False, ls_init_value=1)",
            "theoretical_px": "with sees_whole, attention or pooling shows a unit the whole image. Shifted windows are "
            "followed without their mask, so that those at a border count as seeing the opposite border",
            "size_px": f"Luo sec. 3: root of the number of pixels above {THRESHOLD:.4f} of the largest gradient. It "
            "grows with the number of images, over which peaks average out, and leaps where a plateau is as high",
            "size_px_95": "half the width of the 95 % interval of the mean over draws",
            "gaussian_px": "4 sigma of the fitted Gaussian, or of the map itself where none fits; fitted: share of the "
            "draws that one fits; r2: the share of their maps' variance that it explains. A mere square of n px has an "
            "r2 of 0.75 to 0.79 and a gaussian_px of 1.4 n",
            "within_gaussian": f"share of the gradient within 2 sigma on both axes: {GAUSSIAN:.3f} for a Gaussian. "
            "Far below, gaussian_px is the width of a peak, and the rest of the gradient lies outside of it; with an "
            "r2 near 0 or a gaussian_px beyond the image's side the map is flat, and gaussian_px measures nothing",
            "square_95_px": "side of the square around the unit that holds 95 % of the gradient. If all pixels counted "
            f"alike, {EVEN_95:.0f} px around the image's centre: a width near that is the image's rather than the "
            "network's, and would grow with the image",
            "own_cell": "share of the gradient in the square of jump_px around the unit, of a vision transformer its "
            "own patch",
            "openerf_size_px": "the rule of size_px on openerf's map of the same layer, unit and images: the positive "
            "part of the gradient's mean over colours, where rfsearch adds up absolute values",
            "openerf_overlap": "sum over pixels of the smaller of both shares: 1 for equal maps",
        },
    )
    print(table.round(3).to_string(index=False))
    picture(measured)


def picture(measured: Sequence[Measured]) -> None:
    """Draw every network's map, and how its gradient gathers around the unit."""
    from matplotlib import pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.titlesize": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure = plt.figure(figsize=(14, 5.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[2, 1])
    left.suptitle(f"Effective fields of untrained networks, images of {SIDE} px", fontsize=10)
    panels = left.subplots(2, len(measured) // 2)
    for axes, (row, share, _) in zip(panels.flat, measured, strict=True):
        shown = np.log10(np.maximum(share / share.max(), DARKEST))
        drawn = axes.imshow(shown, cmap=MAP, vmin=np.log10(DARKEST), vmax=0)
        axes.set(xticks=[], yticks=[])
        axes.set_title(
            f"{row['network']}\nsize {row['size_px']:.0f} px, 95 % in {row['square_95_px']:.0f} px", fontsize=8
        )
    left.colorbar(drawn, ax=panels, shrink=0.6, label="gradient relative to its largest, log10")
    axes, sides = right.subplots(), np.arange(1, SIDE + 1, 2)
    for number, (row, share, centre) in enumerate(measured):
        within = [inside(share, [side, side], centre) for side in sides]
        axes.plot(sides, within, "-" if number < len(measured) / 2 else "--", label=row["network"], lw=1.5)
    axes.plot(sides, (sides / SIDE) ** 2, color="0.6", lw=1, ls=":", label="every pixel alike")
    axes.set(title="Share of the gradient around the unit", xlabel="side of the square, px", ylabel="share within")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(RESULTS / f"{NAME}.png", dpi=110)


if __name__ == "__main__":
    main()
