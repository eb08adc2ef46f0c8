"""Setting a dilation: the same taps, the same output size where there is padding, and never forgotten."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rfsearch.errors import ModelError
from rfsearch.surgery import set_dilation

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
FUNCTION = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
ATTRIBUTES = ["dilation", "padding", "padding_mode", "stride", "kernel_size", "_reversed_padding_repeated_twice"]

KERNELS = [1, 2, 3, 4, (3, 2), (1, 5)]
PADDINGS = ["same", "valid", 0, 1, (2, 1), (0, 2)]


def pads(conv: nn.Module, padding: Any, new: tuple[int, ...]) -> list[int]:
    """(left, right, top, bottom): what keeps the size that `padding` gives at the convolution's own dilation."""
    result: list[int] = []
    for axis in reversed(range(len(new))):
        taps = conv.kernel_size[axis] - 1
        if padding == "same":
            total = taps * conv.dilation[axis]
        else:
            total = 0 if padding == "valid" else 2 * (padding if isinstance(padding, int) else padding[axis])
        if total > 0:  # what is not padded stays so
            total += taps * (new[axis] - conv.dilation[axis])
        result += [total // 2, total - total // 2]
    return result


def state_of(conv: nn.Module) -> list[Any]:
    return [getattr(conv, name) for name in ATTRIBUTES]


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_every_kernel_and_padding(kernel: int | tuple[int, int], padding: str | int | tuple[int, int]) -> None:
    x = torch.randn(1, 2, 24, 27, dtype=torch.float64)
    for old, new, stride in itertools.product([1, 2, (1, 3), (3, 1)], [1, 2, 3, (4, 1)], [1, 2]):
        if padding == "same" and stride > 1:
            continue
        conv = nn.Conv2d(2, 3, kernel, stride, padding, old).double()
        before, made = conv(x), state_of(conv)
        wanted = (new, new) if isinstance(new, int) else new
        around = F.pad(x, pads(conv, padding, wanted))
        expected = F.conv2d(around, conv.weight, conv.bias, stride, 0, wanted)

        set_dilation(conv, new)
        assert conv.dilation == wanted
        torch.testing.assert_close(conv(x), expected)
        for axis in (0, 1):
            padded = padding == "same" or (padding not in ("valid", 0) and (padding == 1 or padding[axis] > 0))
            if padded or conv.kernel_size[axis] == 1:
                assert conv(x).shape[2 + axis] == before.shape[2 + axis]
        if padding == "same":
            assert (conv.padding, conv.padding_mode) == ("same", "zeros")
        set_dilation(conv, old)
        assert torch.equal(conv(x), before)
        assert state_of(conv) == made


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, Any]:
    """A random convolution with its padding as it was asked for."""
    rank = draw(st.integers(1, 3))
    axes = st.tuples(*[st.integers(1, 5 if rank < 3 else 3)] * rank)
    kernel, stride = draw(axes), draw(st.tuples(*[st.integers(1, 3)] * rank))
    dilation = draw(st.tuples(*[st.integers(1, 2)] * rank))
    same = st.just("same") if set(stride) == {1} else st.nothing()
    padding = draw(st.one_of(st.just(0), st.integers(1, 2), st.tuples(*[st.integers(0, 3)] * rank), same))
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    groups = draw(st.integers(1, 2))
    torch.manual_seed(0)
    bias = draw(st.booleans())
    conv = CONV[rank](2 * groups, 4 * groups, kernel, stride, padding, dilation, groups, bias, mode)
    return conv.double(), padding


@settings(max_examples=120, deadline=None)
@given(convolutions(), st.integers(1, 4), st.integers(1, 3))
def test_any_convolution(drawn: tuple[nn.Module, Any], dilation: int, other: int) -> None:
    conv, padding = drawn
    rank = len(conv.kernel_size)
    x = torch.randn(2, conv.in_channels, *[17, 18, 16][:rank], dtype=torch.float64)
    before, made = conv(x), state_of(conv)
    weights = [parameter.clone() for parameter in conv.parameters()]
    wanted = (dilation,) * rank
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    around = F.pad(x, pads(conv, padding, wanted), mode=mode)
    expected = FUNCTION[rank](around, conv.weight, conv.bias, conv.stride, 0, wanted, conv.groups)

    set_dilation(conv, other)
    set_dilation(conv, dilation)
    after = conv(x)
    torch.testing.assert_close(after, expected)
    assert all(torch.equal(a, b) for a, b in zip(conv.parameters(), weights, strict=True))
    for axis, pair in enumerate(zip(after.shape[2:], before.shape[2:], strict=True)):
        if padding == "same" or (padding if isinstance(padding, int) else padding[axis]):
            assert pair[0] == pair[1]
    if wanted == made[0]:
        assert torch.equal(after, before)
    set_dilation(conv, made[0])
    assert state_of(conv) == made
    assert torch.equal(conv(x), before)


def test_what_is_not_padded_stays_so() -> None:
    """Also when it was dilated before: a padding that a smaller dilation leaves without pixels comes back."""
    conv = nn.Conv2d(1, 1, 3)
    set_dilation(conv, 4)
    assert (conv.padding, conv(torch.zeros(1, 1, 20, 21)).shape) == ((0, 0), (1, 1, 12, 13))
    padded = nn.Conv1d(1, 1, 3, padding=1, dilation=2)
    for dilation, padding in ((1, 0), (3, 2), (2, 1)):
        set_dilation(padded, dilation)
        assert (padded.padding, padded(torch.zeros(1, 1, 20)).shape[2]) == ((padding,), 18)
    mixed = nn.Conv3d(1, 1, 3, padding=(0, 1, 1))
    set_dilation(mixed, 2)
    assert mixed.padding == (0, 2, 2)


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


class SelfPadded(nn.Conv2d):
    """Pads in its own forward pass, by its dilation: to ceil(n / stride)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        around = []
        for n, k, s, d in reversed(list(zip(x.shape[2:], self.kernel_size, self.stride, self.dilation, strict=True))):
            total = max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
            around += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, around), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class OwnPadding(SelfPadded):
    """The same by a fixed amount, whatever its dilation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.pad(x, [1, 1, 1, 1])
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Framed(SelfPadded):
    """The same in a layer inside it, unevenly, as the ported EfficientNets do."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.frame = nn.ZeroPad2d((0, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(self.frame(x), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Standardised(nn.Conv2d):
    """Changes its weight and leaves the padding to its attributes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight - self.weight.mean()
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class HandedOn(nn.Conv2d):
    """Changes its weight and leaves the rest to torch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [2, 3, (5, 1)], ids=str)
def test_a_subclass_that_pads_by_its_dilation_goes_on_doing_so(kernel: Any, stride: int) -> None:
    conv, x = SelfPadded(2, 2, kernel, stride), torch.randn(1, 2, 19, 20)
    before = conv(x)
    set_dilation(conv, 3)
    assert (conv.dilation, conv.padding, conv(x).shape) == ((3, 3), (0, 0), before.shape)
    set_dilation(conv, 1)
    assert torch.equal(conv(x), before)


def test_a_padding_layer_inside_a_subclass_grows() -> None:
    conv, x = Framed(2, 2, 3, 2), torch.randn(1, 2, 19, 20)
    before = conv(x)
    set_dilation(conv, 3)
    assert conv.frame.padding == (2, 3, 3, 3)
    expected = F.conv2d(F.pad(x, [2, 3, 3, 3]), conv.weight, conv.bias, 2, 0, 3)
    assert torch.equal(conv(x), expected)
    assert expected.shape == before.shape
    set_dilation(conv, 1)
    assert conv.frame.padding == (0, 1, 1, 1)
    assert torch.equal(conv(x), before)


def test_a_subclass_that_cannot_keep_its_size_is_told_and_left_alone() -> None:
    fixed = OwnPadding(2, 2, 3)
    with pytest.raises(ModelError, match=r"OwnPadding pads in its own way.*Put a plain Conv2d"):
        set_dilation(fixed, 2)
    assert (fixed.dilation, fixed.padding) == ((1, 1), (0, 0))
    assert list(fixed.state_dict()) == ["weight", "bias"]
    conv, x = Standardised(2, 2, 3, padding=1), torch.randn(1, 2, 12, 13)
    set_dilation(conv, 3)
    assert (conv.padding, conv(x).shape) == ((3, 3), (1, 2, 12, 13))
    with pytest.raises(ModelError, match="Standardised"):  # an uneven pad, which only torch's own pass puts in
        set_dilation(Standardised(2, 2, 4, stride=2, padding=1), 2)
    set_dilation(handed := HandedOn(2, 2, 4, stride=2, padding=1), 2)
    assert handed(x).shape == (1, 2, 6, 6)


def test_the_subclasses_of_timm() -> None:
    layers = pytest.importorskip("timm.layers")
    x = torch.randn(1, 4, 21, 22)
    for conv in (
        layers.Conv2dSame(4, 4, 3, 2),
        layers.StdConv2dSame(4, 4, 3, 2),
        layers.StdConv2d(4, 4, 3),
        layers.ScaledStdConv2d(4, 4, 3, padding=1),
        layers.create_conv2d(4, 4, 5, padding="same", stride=2),
    ):
        before = conv(x)
        set_dilation(conv, 3)
        assert conv(x).shape == before.shape
        assert not torch.equal(conv(x), before)
        set_dilation(conv, 1)
        assert torch.equal(conv(x), before)


@pytest.mark.parametrize("dilation", [0, -1, 1.5, (1, 0), (1, 2, 3), "2", None], ids=str)
def test_a_dilation_is_a_whole_number(dilation: object) -> None:
    conv = nn.Conv2d(1, 1, 3)
    with pytest.raises(ModelError, match="whole number"):
        set_dilation(conv, dilation)  # type: ignore[arg-type]
    assert conv.dilation == (1, 1)
    assert list(conv.state_dict()) == ["weight", "bias"]


def test_only_convolutions_can_be_dilated() -> None:
    for module in (nn.MaxPool2d(2), nn.ConvTranspose2d(1, 1, 3)):
        with pytest.raises(ModelError, match=f"Got {type(module).__name__}"):
            set_dilation(module, 2)  # type: ignore[arg-type]


def two(*dilations: int) -> nn.Sequential:
    """Two convolutions of different ranks' worth of attributes, dilated."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding="same"), nn.Conv2d(2, 1, (3, 4), padding=(1, 0), bias=False))
    for conv, dilation in zip(model, dilations, strict=False):
        set_dilation(conv, dilation)
    return model


def through_file(state: Any) -> Any:
    saved = io.BytesIO()
    torch.save(state, saved)
    saved.seek(0)
    return torch.load(saved, weights_only=True)


X = torch.randn(1, 1, 30, 31, generator=torch.Generator().manual_seed(2))
WAYS = {
    "as it is": lambda state: state,
    "file": through_file,
    "half": lambda state: {name: value.half() for name, value in state.items()},
    "assigned": through_file,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_state_dict_brings_its_dilation(way: str) -> None:
    """The fault of a peer: {2, 4} came back as {1, 3}."""
    saved, model = two(2, 4), two(1, 3)
    model.load_state_dict(WAYS[way](saved.state_dict()), assign=way == "assigned")
    assert [conv.dilation for conv in model] == [(2, 2), (4, 4)]
    assert [conv.padding for conv in model] == ["same", (4, 0)]
    if way != "half":
        assert torch.equal(model(X), saved(X))
    assert model.state_dict()["1.searched_dilation"].tolist() == [4, 4]


def test_copies_keep_their_dilation_and_go_on_keeping_it() -> None:
    saved = two(2, 4)
    for model in (copy.deepcopy(saved), pickle.loads(pickle.dumps(saved))):
        assert torch.equal(model(X), saved(X))
        model.load_state_dict(two(5, 3).state_dict())
        assert [conv.dilation for conv in model] == [(5, 5), (3, 3)]
        assert model.state_dict()["0.searched_dilation"].tolist() == [5, 5]
        set_dilation(model[1], 1)
        assert state_of(model[1]) == state_of(two()[1])
    assert [conv.dilation for conv in saved] == [(2, 2), (4, 4)]


def test_a_model_of_shapes_alone_and_one_of_halves_keep_it() -> None:
    there = copy.deepcopy(two(2, 4)).to("meta")
    assert there(X.to("meta")).shape == two(2, 4)(X).shape
    assert [conv.dilation for conv in there] == [(2, 2), (4, 4)]
    again = two(1, 3)
    state = there.state_dict()
    again.load_state_dict({name: value for name, value in state.items() if "dilation" in name}, strict=False)
    assert again[1].dilation == (4, 4)
    assert two(2, 4).half().state_dict()["0.searched_dilation"].tolist() == [2, 2]


def test_tools_that_look_keys_up_in_the_module_find_it() -> None:
    tools = pytest.importorskip("torch.distributed.checkpoint.state_dict")
    model = two(1, 3)
    tools.set_model_state_dict(model, tools.get_model_state_dict(two(2, 4)))
    assert [conv.dilation for conv in model] == [(2, 2), (4, 4)]
    assert {name for name, _ in model.named_buffers()} == {"0.searched_dilation", "1.searched_dilation"}
    model[0].dilation = (5, 5)  # by hand
    assert model.state_dict()["0.searched_dilation"].tolist() == [5, 5]


def test_plain_weights_load_and_keep_the_present_dilation() -> None:
    model = two(2, 4)
    model.load_state_dict(two().state_dict())
    assert [conv.dilation for conv in model] == [(2, 2), (4, 4)]


def test_a_dilation_that_finds_no_place_or_no_sense_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"0.searched_dilation"'):
        two().load_state_dict(two(2, 4).state_dict())
    state, model = two(2, 4).state_dict(), two(1, 3)
    for wrong in (torch.tensor([2, 0]), torch.tensor([2]), torch.tensor([1.5, 2.0]), torch.tensor([2, 2]).to("meta")):
        with pytest.raises(RuntimeError, match="0.searched_dilation"):
            model.load_state_dict(state | {"0.searched_dilation": wrong})
        assert model[0].dilation == (1, 1)


def test_a_convolution_whose_stride_was_turned_into_a_dilation_keeps_its_size():
    """As segmentation libraries do with finished encoders: attributes change, what was derived from them does not."""
    conv = nn.Conv2d(2, 2, 3, 2, padding=1)
    conv.stride, conv.dilation, conv.padding = (1, 1), (2, 2), (2, 2)
    x = torch.randn(1, 2, 9, 11)
    expected = conv(x)
    for dilation in (3, 1, 2):
        set_dilation(conv, dilation)
        assert conv(x).shape == (1, 2, 9, 11)
        assert torch.equal(conv(x), nn.functional.conv2d(x, conv.weight, conv.bias, 1, dilation, dilation))
    assert torch.equal(conv(x), expected)
