"""Measure the findings of Luo et al. (NeurIPS 2016) on effective receptive fields again.

These are the field's Gaussian shape, its growth with depth, activations, subsampling, dilation, skip connections,
training, and low-centre initialisation.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from provenance import RESULTS, provenance, write_sidecar
from torch import Tensor, nn

from rfsearch import plugins
from rfsearch.choices import Dilated
from rfsearch.data.batches import normalised_images
from rfsearch.planning.plan import load_data
from rfsearch.receptive.effective import THRESHOLD, EffectiveField, effective_receptive_field
from rfsearch.space import read_space
from rfsearch.training.loop import TrainingLoop

NAME = "effective_rf"
DEPTHS = (5, 10, 20, 40)
SHOWN_DEPTHS = (5, 10, 20)
CHANNELS = 8
RUNS = 20  # random weights: how many networks are averaged, as in the paper
INPUTS = 2  # a network
ACTIVATIONS = {"none": nn.Identity, "ReLU": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
STEPS, LOOKS = 400, 8
FACE_LAYERS, FACE_CHANNELS = 8, 32
FACE_PX = 3 + 2 * 2 + FACE_LAYERS * 2 * 4  # theoretical field of `face_net`
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"  # Okabe and Ito: told apart by all eyes
STYLES = dict(zip(ACTIVATIONS, ((BLUE, "o-"), (ORANGE, "s--"), (GREEN, "^-."), (PURPLE, "v:")), strict=True))
MAP = "viridis"


class Residual(nn.Module):
    """Compute x + layer(x)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Map B x C x H x W to the same shape."""
        return x + self.layer(x)


def uniform(stride: int = 1, dilation: int = 1) -> nn.Module:
    """Build a 3x3 convolution of one channel whose weights are all equal."""
    layer = nn.Conv2d(1, 1, 3, stride, padding=dilation, dilation=dilation, bias=False).double()
    nn.init.constant_(layer.weight, 1 / 9)
    return layer


def stack(
    depth: int, activation: Callable[[], nn.Module] = nn.Identity, skip: bool = False, seed: int = 0
) -> nn.Module:
    """Build 3x3 convolutions of random weights at He's scale.

    With `skip`, every one but the first has a connection around it.
    """
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for number in range(depth):
        layer = nn.Conv2d(CHANNELS if number else 1, CHANNELS, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu" if activation is nn.ReLU else "linear")
        block = nn.Sequential(layer, activation()) if number < depth - 1 else layer
        layers.append(Residual(block) if skip and number else block)
    return nn.Sequential(*layers)


def measured(model: nn.Module, depth: int, side: int, inputs: int = 1, seed: int = 0) -> EffectiveField:
    """Measure the field of `depth` 3x3 layers on images of `side` px."""
    shape = (1, 1, side, side)
    return effective_receptive_field(model, inputs, input_shape=shape, theoretical_px=2 * depth + 1, seed=seed)


def averaged(depth: int, activation: Callable[[], nn.Module] = nn.Identity, skip: bool = False) -> dict[str, Any]:
    """Average RUNS networks: the mean map, and the mean of each network's numbers."""
    side = 2 * depth + 21
    fields = [measured(stack(depth, activation, skip, seed), depth, side, INPUTS, seed) for seed in range(RUNS)]
    return {"map": np.mean([field.map for field in fields], axis=0), **numbers(fields)}


def numbers(fields: list[EffectiveField]) -> dict[str, Any]:
    """Average over networks, with half the width of the 95 % interval of the mean size."""
    sizes = np.array([field.size_px for field in fields])
    return {
        "size_px": float(sizes.mean()),
        "size_px_95": float(1.96 * sizes.std(ddof=1) / np.sqrt(len(sizes))) if len(sizes) > 1 else 0.0,
        "sigma_px": float(np.mean([field.sigma for field in fields])),
        "gaussian_px": float(np.mean([field.gaussian_px for field in fields])),
        "ratio": float(np.mean([field.ratio for field in fields if field.ratio is not None])),
        "fitted": sum(field.sigma_from == "fit" for field in fields) / len(fields),
    }


def depths() -> dict[str, dict[int, dict[str, Any]]]:
    """Measure fields by kind of weights, then by depth."""
    found: dict[str, dict[int, dict[str, Any]]] = {"uniform": {}}
    for depth in DEPTHS:
        field = measured(nn.Sequential(*[uniform() for _ in range(depth)]), depth, 2 * depth + 21)
        found["uniform"][depth] = {"map": field.map, **numbers([field])}
    for name, activation in ACTIVATIONS.items():
        found[name] = {depth: averaged(depth, activation) for depth in DEPTHS}
    return found


def architectures() -> dict[str, dict[str, Any]]:
    """Measure six layers of uniform weights, plain, subsampled and dilated."""
    forms = {
        "plain": [uniform() for _ in range(6)],
        "two strides of 2": [uniform(stride=2), uniform(), uniform(stride=2), uniform(), uniform(), uniform()],
        "dilations 1 1 2 4 8 16": [uniform(dilation=d) for d in (1, 1, 2, 4, 8, 16)],
    }
    theoretical = {"plain": 13, "two strides of 2": 3 + 2 * 2 + 2 * 2 + 3 * 2 * 4, "dilations 1 1 2 4 8 16": 65}
    found = {}
    for name, layers in forms.items():
        field = effective_receptive_field(
            nn.Sequential(*layers), 1, input_shape=(1, 1, 81, 81), theoretical_px=theoretical[name]
        )
        found[name] = {"map": field.map, **numbers([field]), "theoretical_px": theoretical[name]}
    return found


def face_net(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build a plain network at a stride of 4 px: B x in_channels x H x W to B x num_classes x H/4 x W/4."""
    layers: list[nn.Module] = []
    channels = in_channels
    for width, stride in ((16, 2), (FACE_CHANNELS, 2), *[(FACE_CHANNELS, 1)] * FACE_LAYERS):
        layer = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        layers += [nn.Sequential(layer, nn.BatchNorm2d(width), nn.ReLU())]
        channels = width
    output = nn.Conv2d(channels, num_classes, 1)
    nn.init.normal_(output.weight, std=0.01)
    nn.init.zeros_(output.bias)
    return nn.Sequential(*layers, output)


def trained(job: tuple[bool, int]) -> dict[str, Any]:
    """Train once on rendered faces: the field before and after, on validation images, and the validation score."""
    low_centre, seed = job
    torch.set_num_threads(1)
    space = read_space(plugins.space_file("helen"), None)
    data = load_data(space, None, Path())
    recipe = space.recipe.model_copy(update={"low_centre": low_centre, "steps": STEPS})
    site = f"{FACE_LAYERS + 1}.0"
    space = space.with_(backbone=f"{Path(__file__).resolve()}:face_net", sites=(site,), recipe=recipe)
    torch.manual_seed(seed)
    loop = TrainingLoop(space, data, space.uniform(Dilated(1)), seed, torch.device("cpu"))
    images = normalised_images(data.splits["val"])[:20]
    fields = [effective_receptive_field(loop.model, images, theoretical_px=FACE_PX)]
    curve = []
    for step in range(STEPS):
        loop.train_step(step)
        if (step + 1) % (STEPS // LOOKS) == 0:
            curve.append((step + 1, loop.score(data.splits["val"])[0].primary))
    fields.append(effective_receptive_field(loop.model, images, theoretical_px=FACE_PX))
    print(
        f"low centre {low_centre}, seed {seed}: {[round(f.size_px, 1) for f in fields]} px, {curve[-1][1]:.4f}",
        flush=True,
    )
    return {
        "low_centre": low_centre,
        "seed": seed,
        "curve": curve,
        "before": {"map": fields[0].map, **numbers(fields[:1])},
        "after": {"map": fields[1].map, **numbers(fields[1:])},
    }


def main() -> None:
    """Measure everything, and write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="of the trainings")
    asked = parser.parse_args()
    jobs = [(low_centre, seed) for seed in range(asked.seeds) for low_centre in (False, True)]
    torch.set_num_threads(1)
    with ProcessPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
        trainings = pool.map(trained, jobs)
        deep, forms = depths(), architectures()
        skips = {depth: averaged(depth, nn.ReLU, skip=True) for depth in DEPTHS}
        faces = list(trainings)
    write_sidecar(
        NAME,
        {
            **provenance(),
            "size_px": f"Luo sec. 3: root of the number of pixels above {THRESHOLD:.4f} of the largest gradient",
            "gaussian_px": "4 sigma of the fitted Gaussian; behind strides the map is a comb, "
            "whose gaps size_px leaves out",
            "size_px_95": "half the width of the 95 % interval of the mean over networks",
            "fitted": "share of the networks to whose map a Gaussian could be fitted",
            "networks": f"random: mean of {RUNS}, {CHANNELS} channels, {INPUTS} noise images each; uniform: one",
            "slopes": {kind: slopes(rows) for kind, rows in deep.items()},
            "depth": _without_maps(deep),
            "architecture": _without_maps(forms),
            "skip_relu": _without_maps(skips),
            "training": {
                "data": f"rendered faces, {STEPS} steps, metric helen-f on the validation split, 20 of its images for "
                f"the field; theoretical field {FACE_PX} px",
                "low_centre_gain": gain(faces),
                "runs": _without_maps(faces),
            },
        },
    )
    picture(deep, forms, skips, faces)


def slopes(rows: dict[int, dict[str, Any]]) -> dict[str, float]:
    """Fit straight lines through log size and log ratio over log depth, and return their slopes."""
    x = np.log(list(rows))
    return {
        key: round(float(np.polyfit(x, np.log([row[key] for row in rows.values()]), 1)[0]), 4)
        for key in ("size_px", "ratio")
    }


def gain(faces: list[dict[str, Any]]) -> dict[str, Any]:
    """Subtract the default from low centre, for the same seed: mean over seeds, lowest and highest."""
    found = {}
    for title, value in {
        "start_size_px": lambda run: run["before"]["size_px"],
        "start_gaussian_px": lambda run: run["before"]["gaussian_px"],
        "trained_gaussian_px": lambda run: run["after"]["gaussian_px"],
        "trained_size_px": lambda run: run["after"]["size_px"],
        "final_score": lambda run: run["curve"][-1][1],
        "mean_score_of_all_looks": lambda run: float(np.mean([score for _, score in run["curve"]])),
    }.items():
        by_seed: dict[int, dict[bool, float]] = {}
        for run in faces:
            by_seed.setdefault(run["seed"], {})[run["low_centre"]] = value(run)
        gains = [pair[True] - pair[False] for pair in by_seed.values()]
        found[title] = {"mean": np.mean(gains), "low": min(gains), "high": max(gains)}
    return _without_maps(found)


def _without_maps(body: Any) -> Any:
    """Round numbers, and leave out arrays."""
    if isinstance(body, dict):
        return {key: _without_maps(value) for key, value in body.items() if not isinstance(value, np.ndarray)}
    if isinstance(body, list | tuple):
        return [_without_maps(value) for value in body]
    return round(float(body), 4) if isinstance(body, float) else body


def picture(
    deep: dict[str, dict[int, dict[str, Any]]],
    forms: dict[str, dict[str, Any]],
    skips: dict[int, dict[str, Any]],
    faces: list[dict[str, Any]],
) -> None:
    """Draw all findings on one page."""
    from matplotlib import pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.titlesize": 9.5, "axes.spines.top": False, "axes.spines.right": False})
    figure = plt.figure(figsize=(14, 11), layout="constrained")
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=[1, 0.92, 0.92])
    left, right = top.subfigures(1, 2, width_ratios=[0.72, 1.28])
    _shapes(left, deep)
    _growth(right.subplots(1, 2), deep)
    row = middle.subplots(1, 4)
    _activations(row[0], deep)
    _architectures(row[1], forms)
    _skips(row[2], deep["ReLU"], skips)
    _sizes_of_faces(row[3], faces)
    maps, curves = bottom.subfigures(1, 2, width_ratios=[2, 1])
    _maps_of_faces(maps, faces)
    _scores_of_faces(curves.subplots(), faces)
    figure.savefig(RESULTS / f"{NAME}.png", dpi=110)


def _shapes(figure: Any, deep: dict[str, dict[int, dict[str, Any]]]) -> None:
    figure.suptitle(f"Shape of the field, {RUNS} networks averaged (dashed: theoretical field)", fontsize=9.5)
    grid = figure.subplots(3, len(SHOWN_DEPTHS))
    kinds = {"uniform": "uniform", "none": "random", "ReLU": "random + ReLU"}
    for axes_row, (kind, title) in zip(grid, kinds.items(), strict=True):
        for axes, depth in zip(axes_row, SHOWN_DEPTHS, strict=True):
            shown = deep[kind][depth]["map"]
            axes.imshow(shown / shown.max(), cmap=MAP, vmin=0, vmax=1)
            middle, half = shown.shape[0] // 2, depth + 0.5
            axes.add_patch(_square(middle, half))
            axes.set(xticks=[], yticks=[])
            if kind == "uniform":
                axes.set_title(f"{depth} layers, {2 * depth + 1} px")
        axes_row[0].set_ylabel(title)


def _square(middle: float, half: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((middle - half, middle - half), 2 * half, 2 * half, fill=False, ls="--", lw=0.9, ec="white")


def _growth(row: Any, deep: dict[str, dict[int, dict[str, Any]]]) -> None:
    kinds = {
        "uniform": ("uniform", BLUE, "o-"),
        "none": ("random", ORANGE, "s--"),
        "ReLU": ("random + ReLU", GREEN, "^-."),
    }
    for axes, key, title in zip(row, ("size_px", "ratio"), ("size, px", "size / theoretical field"), strict=True):
        for kind, (label, colour, style) in kinds.items():
            rows = deep[kind]
            slope = slopes(rows)[key]
            axes.loglog(
                list(rows), [r[key] for r in rows.values()], style, color=colour, label=f"{label}: slope {slope:.2f}"
            )
        reference = 0.5 if key == "size_px" else -0.5
        start = 0.86 * deep["uniform"][DEPTHS[0]][key]
        line = [start * (n / DEPTHS[0]) ** reference for n in DEPTHS]
        axes.loglog(DEPTHS, line, color="0.5", lw=1, label=f"Luo: slope {reference}")
        axes.set(title=f"{title.capitalize()}, against depth", xlabel="3x3 layers", ylabel=title)
        _plain_ticks(axes)
        axes.legend(frameon=False, fontsize=8)


def _plain_ticks(axes: Any) -> None:
    """Label log axes with the numbers that a reader wants."""
    from matplotlib.ticker import MaxNLocator, NullLocator, ScalarFormatter

    axes.set_xticks(DEPTHS, [str(n) for n in DEPTHS])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_locator(NullLocator())


def _activations(axes: Any, deep: dict[str, dict[int, dict[str, Any]]]) -> None:
    for name, (colour, style) in STYLES.items():
        rows = deep[name]
        sizes, errors = ([row[key] for row in rows.values()] for key in ("size_px", "size_px_95"))
        label = "no activation" if name == "none" else name
        axes.errorbar(list(rows), sizes, errors, fmt=style, color=colour, label=label, capsize=2, ms=4)
    axes.set(title="Activation, random weights (bars: 95 %)", xlabel="3x3 layers", ylabel="size, px", ylim=(0, None))
    axes.legend(frameon=False)


def _architectures(axes: Any, forms: dict[str, dict[str, Any]]) -> None:
    for (name, form), (colour, style) in zip(forms.items(), STYLES.values(), strict=False):
        columns = form["map"].sum(0)
        distance = np.abs(np.arange(len(columns)) - np.arange(len(columns)) @ columns)
        reach = np.arange(41)
        within = [columns[distance <= r + 0.5].sum() for r in reach]
        label = f"{name}: {form['size_px']:.0f} of {form['theoretical_px']} px"
        axes.plot(reach, within, style[1:], color=colour, label=label)
    axes.set(title="Six uniform layers, subsampled or dilated", xlabel="columns from the centre, px", ylim=(0, 1.35))
    axes.set_ylabel("share of the gradient within")
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def _skips(axes: Any, plain: dict[int, dict[str, Any]], skips: dict[int, dict[str, Any]]) -> None:
    for rows, label, (colour, style) in (
        (plain, "without", STYLES["none"]),
        (skips, "with a skip around each", STYLES["ReLU"]),
    ):
        sizes, errors = ([row[key] for row in rows.values()] for key in ("size_px", "size_px_95"))
        axes.errorbar(list(rows), sizes, errors, fmt=style, color=colour, label=label, capsize=2, ms=4)
    axes.set(title="Skip connections, random + ReLU", xlabel="3x3 layers", ylabel="size, px", ylim=(0, None))
    axes.legend(frameon=False)


def _kinds(faces: list[dict[str, Any]]) -> list[tuple[str, str, str, list[dict[str, Any]]]]:
    """Return (label, colour, style, runs) of default and low-centre initialisation."""
    return [
        (label, colour, style, [run for run in faces if run["low_centre"] == low_centre])
        for low_centre, label, colour, style in ((False, "default", BLUE, "o-"), (True, "low centre", ORANGE, "s--"))
    ]


def _sizes_of_faces(axes: Any, faces: list[dict[str, Any]]) -> None:
    for label, colour, style, runs in _kinds(faces):
        for number, run in enumerate(runs):
            sizes = [run["before"]["gaussian_px"], run["after"]["gaussian_px"]]
            axes.plot((0, 1), sizes, style, color=colour, label=None if number else label, ms=5)
    axes.set_xticks((0, 1), ("start", f"{STEPS} steps"))
    axes.set(
        title="Training on faces, one line per seed", ylabel="4 sigma of the fitted Gaussian, px", xlim=(-0.2, 1.2)
    )
    axes.legend(frameon=False)


def _maps_of_faces(figure: Any, faces: list[dict[str, Any]]) -> None:
    figure.suptitle(
        f"Field on 20 validation faces, mean over {len({run['seed'] for run in faces})} seeds, "
        f"root of the share (dashed: theoretical field, {FACE_PX} px)",
        fontsize=9.5,
    )
    row = figure.subplots(1, 4)
    shown = [(label, when, runs) for label, _, _, runs in _kinds(faces) for when in ("before", "after")]
    for axes, (label, when, runs) in zip(row, shown, strict=True):
        mean = np.mean([run[when]["map"] for run in runs], axis=0)
        axes.imshow(np.sqrt(mean / mean.max()), cmap=MAP)
        axes.add_patch(_square(49.5, FACE_PX / 2))  # unit 12 of 24, every 4 px, from px 1.5 on
        size, width = (np.mean([run[when][key] for run in runs]) for key in ("size_px", "gaussian_px"))
        stage = "at the start" if when == "before" else "trained"
        axes.set(title=f"{label}, {stage}:\nsize {size:.0f} px, 4 sigma {width:.0f} px", xticks=[], yticks=[])


def _scores_of_faces(axes: Any, faces: list[dict[str, Any]]) -> None:
    for label, colour, style, runs in _kinds(faces):
        for number, run in enumerate(runs):
            steps, scores = zip(*run["curve"], strict=True)
            final = np.mean([r["curve"][-1][1] for r in runs])
            name = None if number else f"{label}: {final:.3f} at the end"
            axes.plot(steps, scores, style, color=colour, label=name, ms=3, lw=1.2)
    axes.set(title="Validation score (helen-f), one line per seed", xlabel="step", ylabel="helen-f")
    axes.legend(frameon=False, loc="lower right")


if __name__ == "__main__":
    main()
