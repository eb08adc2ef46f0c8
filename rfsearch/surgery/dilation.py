"""Changing the dilation of a convolution that is already part of a model."""

from __future__ import annotations

from torch import nn

from rfsearch.errors import ModelError


def set_dilation(conv: nn.Conv2d, dilation: int | tuple[int, int]) -> None:
    """Dilate a convolution in place, its weights untouched and its output the size it had.

    dilation: px of its map between taps, for both axes or (height, width). Padding grows with the kernel's extent, by
    (k - 1) px a step, split evenly with the odd pixel behind: what `padding="same"` does, which this keeps. A zero
    padding that comes out uneven becomes "same" where that is its size; else, and where it comes out negative (a
    crop), it is written as an explicit pad, `padding_mode="constant"`.
    """
    if not isinstance(conv, nn.Conv2d):
        raise ModelError(f"Only a Conv2d has a dilation that can be set. Got {type(conv).__name__}.")
    wanted = tuple(dilation) if isinstance(dilation, tuple | list) else (dilation, dilation)
    if len(wanted) != 2 or any(not isinstance(d, int) or d < 1 for d in wanted):
        raise ModelError(f"A dilation is a whole number, 1 or more, or two of them. Got {dilation!r}. Smallest: 1.")

    # (left, right, top, bottom): the width comes first, as in F.pad
    pads = conv._reversed_padding_repeated_twice
    totals = [
        before + after + (new - old) * (taps - 1)
        for before, after, new, old, taps in zip(
            pads[2::-2], pads[3::-2], wanted, conv.dilation, conv.kernel_size, strict=True
        )
    ]
    (top, bottom), (left, right) = ((total // 2, total - total // 2) for total in totals)

    conv.dilation = wanted
    conv._reversed_padding_repeated_twice = [left, right, top, bottom]
    if conv.padding == "same":
        return
    conv.padding = (top, left)
    if conv.padding_mode not in ("zeros", "constant"):
        return
    conv.padding_mode = "zeros"
    if top == bottom >= 0 and left == right >= 0:
        return
    if conv.stride == (1, 1) and totals == [d * (taps - 1) for d, taps in zip(wanted, conv.kernel_size, strict=True)]:
        conv.padding = "same"
    else:
        # Conv2d itself pads evenly; in any mode but "zeros" it hands the four numbers above to F.pad.
        conv.padding_mode = "constant"  # type: ignore[assignment]
