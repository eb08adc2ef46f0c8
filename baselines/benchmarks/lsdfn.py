"""Time the LS-DFN block against a literal implementation and against plain convolutions, with peak memory.

Wu et al. (section 4.1, runtime analysis) call the block potentially "only slightly slower than two normal convolutional
layers with kernel size s^2" and do not name these layers' channels. Times are relative to the stricter reading, two
s x s convolutions from the block's C channels to its C'; two that keep all C, as most layers of a network do, stand
beside it. The column `gflop` says how much of a ratio is arithmetic: the block's 1x1 convolutions alone, most of them
for kernels of C' C numbers per position, take 3.5 times the FLOP of the first two, the whole block 4.1 times.
"""

from __future__ import annotations

import pandas as pd
import torch
from side_by_side import Case, compare, judged
from torch import Tensor, nn
from torch.nn import functional as F

from rfsearch.layers import LSDFN
from rfsearch.layers.dynamic_filter import dynamic_filter

NAME = "lsdfn"
S, K, FEATURES, OUTPUTS, SIZE, BATCH = 5, 3, 128, 24, 63, 1
LITERAL, CONVOLUTIONS, WIDE = "literal, unfolded", "two 5x5 convolutions", "two 5x5 convolutions, 128 channels"
TARGET_SPEED, TARGET_MEMORY = 10, 1 / 5
TARGET_CONVOLUTIONS = {"filtering, gamma 1": 3, "block, gamma 1": 4}


def literal(x: Tensor, u: Tensor, v: Tensor, s: Tensor, a: Tensor, gamma: int) -> Tensor:
    """Compute the formula of `dynamic_filter` for a whole gamma literally: full kernels, all regions, vectorised.

    Channels come last throughout, which makes every copy a run of C values: with planes (F.unfold and einsum) it took
    several times as long.
    """
    channels, height, width = x.shape[1:]
    side, taps = int(s.shape[1] ** 0.5), int(v.shape[1] ** 0.5)
    reach, field = (taps - 1) // 2, gamma * (side - 1) // 2
    pixels = F.pad(x, [reach + field] * 4).permute(0, 2, 3, 1).contiguous()
    attention = F.pad(a, [field] * 4).permute(0, 3, 4, 1, 2).contiguous()
    samples = [(row, column) for row in range(0, gamma * side, gamma) for column in range(0, gamma * side, gamma)]

    def shifted(t: Tensor, row: int, column: int) -> Tensor:
        return t[:, row : row + height, column : column + width]

    regions = [
        shifted(pixels, row + dy, column + dx) for dy in range(taps) for dx in range(taps) for row, column in samples
    ]
    stack = torch.stack(regions, 3).unflatten(3, (taps**2, side**2))  # B x H x W x k^2 x s^2 x C
    seen = torch.stack([shifted(attention, row, column) for row, column in samples], 4)  # ... x k^2 x s^2 x C'
    kernels = v.permute(0, 3, 4, 1, 2)[..., None].repeat(1, 1, 1, 1, 1, channels)  # ... x k^2 x C' x C
    kernels[:, :, :, taps**2 // 2] += u + 1 / channels
    filtered = ((1 + seen) * torch.matmul(stack, kernels.mT)).sum(3)
    return ((1 + s.permute(0, 3, 4, 1, 2)) * filtered).sum(3).permute(0, 3, 1, 2) / side**2


def arguments() -> list[Tensor]:
    """Draw the arguments of `dynamic_filter`."""
    generator = torch.Generator().manual_seed(0)
    shapes = [
        (BATCH, FEATURES, SIZE, SIZE),
        (BATCH, SIZE, SIZE, OUTPUTS, FEATURES),
        (BATCH, K * K, OUTPUTS, SIZE, SIZE),
        (BATCH, S * S, OUTPUTS, SIZE, SIZE),
        (BATCH, K * K, OUTPUTS, SIZE, SIZE),
    ]
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def cases() -> list[Case]:
    """Build the block, its filtering, the literal one and the convolutions."""
    values = arguments()
    image = values[0]

    def filtering(gamma: float, learned: bool) -> Case:
        stride = torch.tensor(gamma, requires_grad=learned)
        name = f"filtering, gamma {gamma:g}{', learned' if learned else ''}"
        return Case(name, CONVOLUTIONS, lambda: dynamic_filter(*values, stride), [*values, stride])

    def block(gamma: float, learned: bool) -> Case:
        module = LSDFN(FEATURES, OUTPUTS, features=FEATURES, s=S, k=K, gamma=gamma, learned=learned)
        name = f"block, gamma {gamma:g}{', learned' if learned else ''}"
        return Case(name, CONVOLUTIONS, lambda: module(image), [image, *module.parameters()])

    def pair(name: str, outputs: int) -> Case:
        first, second = (nn.Conv2d(FEATURES, outputs, S, padding=S // 2) for _ in range(2))
        learns = [image, *first.parameters(), *second.parameters()]
        return Case(name, CONVOLUTIONS, lambda: first(image) + second(image), learns)

    return [
        pair(CONVOLUTIONS, OUTPUTS),
        pair(WIDE, FEATURES),
        Case(LITERAL, CONVOLUTIONS, lambda: literal(*values, 1), values),
        filtering(1.0, False),
        filtering(4.0, False),
        filtering(1.5, False),
        filtering(1.3, True),
        block(1.0, False),
        block(1.3, True),
    ]


def targets(table: pd.DataFrame, time_of: str) -> dict[str, dict[str, object]]:
    """Judge the times and the memory against their targets."""
    seconds, verdicts = table[time_of], {}
    for name, most in TARGET_CONVOLUTIONS.items():
        gain, times = seconds[LITERAL] / seconds[name], seconds[name] / seconds[CONVOLUTIONS]
        memory = table.peak_mib[name] / table.peak_mib[LITERAL]
        verdicts |= {
            f"{name}: 10 times faster than literal": judged(gain, gain >= TARGET_SPEED),
            f"{name}: a fifth of its memory": judged(memory, memory <= TARGET_MEMORY),
            f"{name}: at most {most} times the convolutions": judged(times, times <= most),
        }
    return verdicts


def check() -> None:
    """Check that the literal implementation computes the same."""
    found = {case.what: case.forward() for case in cases() if case.what in ("filtering, gamma 1", LITERAL)}
    torch.testing.assert_close(found["filtering, gamma 1"], found[LITERAL], atol=1e-3, rtol=1e-4)


if __name__ == "__main__":
    setting = {"s": S, "k": K, "C": FEATURES, "C_out": OUTPUTS, "map": [SIZE, SIZE], "batch": BATCH}
    compare(NAME, cases, targets, setting, check)
