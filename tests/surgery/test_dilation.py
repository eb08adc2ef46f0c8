"""Setting a dilation: the same taps, the same output size, the padding split as "same" splits it."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rfsearch.errors import ModelError
from rfsearch.surgery import set_dilation

KERNELS = [1, 2, 3, 4, (3, 2), (1, 5)]
PADDINGS = ["same", "valid", 0, 1, (2, 1)]


def pads(conv: nn.Conv2d, padding: str | int | tuple[int, int], new: tuple[int, int]) -> list[int]:
    """(left, right, top, bottom): what keeps the size that `padding` gives at the convolution's own dilation."""
    result: list[int] = []
    for axis in (1, 0):
        taps = conv.kernel_size[axis] - 1
        if padding == "same":
            total = taps * conv.dilation[axis]
        else:
            total = 0 if padding == "valid" else 2 * (padding if isinstance(padding, int) else padding[axis])
        total += taps * (new[axis] - conv.dilation[axis])
        result += [total // 2, total - total // 2]
    return result


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_every_kernel_and_padding(kernel: int | tuple[int, int], padding: str | int | tuple[int, int]) -> None:
    x = torch.randn(1, 2, 24, 27, dtype=torch.float64)
    for old, new, stride in itertools.product([1, 2, (1, 3), (3, 1)], [1, 2, 3, (4, 1)], [1, 2]):
        if padding == "same" and stride > 1:
            continue
        conv = nn.Conv2d(2, 3, kernel, stride, padding, old).double()
        before = conv(x)
        wanted = (new, new) if isinstance(new, int) else new
        around = F.pad(x, pads(conv, padding, wanted))
        expected = F.conv2d(around, conv.weight, conv.bias, stride, 0, wanted)

        set_dilation(conv, new)
        assert conv.dilation == wanted
        torch.testing.assert_close(conv(x), expected)
        assert conv(x).shape == before.shape
        if padding == "same":
            assert (conv.padding, conv.padding_mode) == ("same", "zeros")
        set_dilation(conv, old)
        assert torch.equal(conv(x), before)
        assert conv.padding_mode == "zeros"


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize(("kernel", "padding"), [(3, "same"), (4, "same"), (3, 1), (2, 0)])
def test_other_padding_modes(mode: str, kernel: int, padding: str | int) -> None:
    x = torch.randn(2, 1, 13, 14)
    conv = nn.Conv2d(1, 1, kernel, padding=padding, padding_mode=mode)
    size, around = conv(x).shape, F.pad(x, pads(conv, padding, (3, 3)), mode=mode)
    set_dilation(conv, 3)
    assert conv.padding_mode == mode
    torch.testing.assert_close(conv(x), F.conv2d(around, conv.weight, conv.bias, dilation=3))
    assert conv(x).shape == size


def test_an_uneven_padding_of_the_whole_extent_becomes_same() -> None:
    """Such a convolution is still one that nn.Conv2d's constructor can make."""
    conv = nn.Conv2d(1, 1, 4, padding=3, dilation=2)
    set_dilation(conv, 1)
    assert (conv.padding, conv.padding_mode) == ("same", "zeros")
    set_dilation(strided := nn.Conv2d(1, 1, 4, stride=2, padding=3, dilation=2), 1)
    assert strided.padding_mode == "constant"


def test_the_weights_are_the_same_object_and_train() -> None:
    conv = nn.Conv2d(2, 4, 3, padding="same", groups=2)
    weight = conv.weight
    set_dilation(conv, 5)
    assert conv.weight is weight
    conv(torch.randn(1, 2, 20, 20)).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("dilation", [0, -1, 1.5, (1, 0), (1, 2, 3)], ids=str)
def test_a_dilation_is_a_whole_number(dilation: object) -> None:
    conv = nn.Conv2d(1, 1, 3)
    with pytest.raises(ModelError, match="whole number"):
        set_dilation(conv, dilation)  # type: ignore[arg-type]
    assert conv.dilation == (1, 1)


def test_only_convolutions_can_be_dilated() -> None:
    with pytest.raises(ModelError, match="Got MaxPool2d"):
        set_dilation(nn.MaxPool2d(2), 2)  # type: ignore[arg-type]
