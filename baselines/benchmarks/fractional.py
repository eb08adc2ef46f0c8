"""Time a convolution at a real dilation against plain ones, inflation and deformable convolution, with peak memory.

All layers of one setting do the same job: taps `dilation` px apart on the same map, and where one learns, with the
gradient in what it learns. Deformable convolution has constant offsets.
"""

from __future__ import annotations

import pandas as pd
import torch
from side_by_side import Case, compare, judged
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from rfsearch.layers import FractionalConv2d, inflate, interpolate

NAME = "fractional"
BATCH, INPUTS, OUTPUTS, SIZE, K = 2, 128, 256, 63, 3
DILATIONS = [0.7, 1.3, 1.5, 2.5, 5.5, 12.7]
FLAT = [1.3, 1.5, 2.5, 5.5, 12.7]  # to be within SPREAD of each other
INFLATIONS = [1.5, 2.0, 3.0]  # of a convolution of dilation 4: what dilations 2.67, 2 and 1.33 see
TARGET_EXACT, TARGET_CHEAP, SPREAD = 4.0, 2.2, 1.15
TARGET_DEFORMABLE, TARGET_INFLATION, TARGET_MEMORY = 3.0, 5.0, 1 / 4


def cases() -> list[Case]:
    """Build every layer, beside the plain convolution that does its job at a whole dilation."""
    torch.manual_seed(0)
    image = torch.randn(BATCH, INPUTS, SIZE, SIZE, requires_grad=True)
    found: dict[str, Case] = {}

    def conv(k: int, d: int, outputs: int = OUTPUTS, groups: int = 1) -> nn.Conv2d:
        return nn.Conv2d(INPUTS, outputs, k, padding=d * (k - 1) // 2, dilation=d, groups=groups)

    def plain(setting: str, layer: nn.Conv2d) -> str:
        name = f"plain{setting}, dilation {layer.dilation[0]}"
        found.setdefault(name, Case(name, name, lambda: layer(image), [image, *layer.parameters()]))
        return name

    def ours(setting: str, k: int, delta: float, learned: bool = True, outputs: int = OUTPUTS, groups: int = 1) -> None:
        base = conv(k, max(1, round(delta)), outputs, groups)
        layer = FractionalConv2d(base, delta, learned)
        name = f"fractional{setting}, dilation {delta}{'' if learned else ', fixed'}"
        found[name] = Case(name, plain(setting, base), lambda: layer(image), [image, *layer.parameters()])

    for delta in DILATIONS:
        ours("", K, delta)
    ours("", K, 2.0)
    ours("", K, 2.0, learned=False)

    layer, delta = conv(K, 2), torch.tensor(2.5, requires_grad=True)
    near = plain("", layer)
    four = "four convolutions, dilation 2.5"
    found[four] = Case(four, near, lambda: four_convolutions(image, layer, delta), [image, *layer.parameters(), delta])
    offsets = constant_offsets(2.5)
    deformable = "deformable, constant offsets, dilation 2.5"
    found[deformable] = Case(
        deformable,
        near,
        lambda: deform_conv2d(image, offsets, layer.weight, layer.bias, padding=1),
        [image, *layer.parameters()],
    )
    wide = conv(K, 4)
    for f in INFLATIONS:
        factor = torch.tensor(f, requires_grad=True)

        def inflated(factor: Tensor = factor) -> Tensor:
            return interpolate(wide(inflate(image, factor)), factor, 1, (SIZE, SIZE))

        name = f"inflation, f {f}"
        found[name] = Case(name, plain("", wide), inflated, [image, *wide.parameters(), factor])
        ours("", K, round(4 / f, 2)) if f != 2 else None

    for delta in (2.5, 6.5):
        ours(" depthwise", K, delta, outputs=INPUTS, groups=INPUTS)
    ours(" 5x5", 5, 2.5)
    ours(" 1x1", 1, 2.5)
    return list(found.values())


def four_convolutions(x: Tensor, layer: nn.Conv2d, delta: Tensor) -> Tensor:
    """Sum the convolutions of the two whole dilations on either side on both axes, with shared weights."""
    below = int(delta)
    part = delta - below
    total = layer.bias[:, None, None]
    for row, down in ((below, 1 - part), (below + 1, part)):
        for column, right in ((below, 1 - part), (below + 1, part)):
            y = F.conv2d(x, layer.weight, padding=(row, column), dilation=(row, column))
            total = total + y * (down * right)
    return total


def constant_offsets(delta: float) -> Tensor:
    """Return what every tap of deform_conv2d at dilation 1 lacks to delta: B x 2 k^2 x H x W, rows first."""
    taps = torch.arange(K, dtype=torch.float32) - (K - 1) / 2
    each = torch.stack(torch.meshgrid(taps, taps, indexing="ij"), -1).reshape(-1) * (delta - 1)
    return each[None, :, None, None].expand(BATCH, -1, SIZE, SIZE).contiguous()


def targets(table: pd.DataFrame, time_of: str) -> dict[str, dict[str, object]]:
    """Judge the times and the memory against their targets."""
    seconds = table[time_of]

    def ours(delta: float) -> float:
        return float(seconds[f"fractional, dilation {delta}"])

    worst = max(
        float(seconds[name] / seconds[row.beside])
        for name, row in table.iterrows()
        if str(name).startswith("fractional, dilation")
    )
    flat = [ours(delta) for delta in FLAT]
    deformable = float(seconds["deformable, constant offsets, dilation 2.5"]) / ours(2.5)
    gains = {f: float(seconds[f"inflation, f {f}"]) / ours(round(4 / f, 2)) for f in (1.5, 3.0)}
    gains[2.0] = float(seconds["inflation, f 2.0"]) / ours(2.0)
    memory = float(table.peak_mib["fractional, dilation 1.33"] / table.peak_mib["inflation, f 3.0"])
    return {
        "exact_at_most_4_times_a_plain_convolution": judged(worst, worst <= TARGET_EXACT),
        "exact_at_most_2.2_times_so_no_cheap_mode": judged(worst, worst <= TARGET_CHEAP),
        "within_15_percent_from_1.3_to_12.7": judged(max(flat) / min(flat), max(flat) / min(flat) <= SPREAD),
        "3_times_faster_than_deformable": judged(deformable, deformable >= TARGET_DEFORMABLE),
        "faster_than_inflation_from_f_1.5_on": judged(min(gains.values()), min(gains.values()) > 1),
        "5_times_faster_than_inflation_at_f_3": judged(gains[3.0], gains[3.0] >= TARGET_INFLATION),
        "at_most_a_quarter_of_its_memory_at_f_3": judged(memory, memory <= TARGET_MEMORY),
    }


def check() -> None:
    """Check that deformable convolution with these offsets is the fractional one."""
    ours = FractionalConv2d(nn.Conv2d(INPUTS, OUTPUTS, K, padding=1), 2.5)
    image, offsets = torch.randn(BATCH, INPUTS, SIZE, SIZE), constant_offsets(2.5)
    theirs = deform_conv2d(image, offsets, ours.weight, ours.bias, padding=1)
    torch.testing.assert_close(ours(image), theirs, atol=1e-4, rtol=1e-4)


if __name__ == "__main__":
    setting = {"x": [BATCH, INPUTS, SIZE, SIZE], "out_channels": OUTPUTS, "k": K, "depthwise_out_channels": INPUTS}
    compare(NAME, cases, targets, setting, check)
