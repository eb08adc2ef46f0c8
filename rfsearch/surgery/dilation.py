"""Changing the dilation of a convolution that is already part of a model, so that it is saved with the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.padding import _ConstantPadNd

from rfsearch.errors import ModelError
from rfsearch.surgery.shapes import output_shape

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
_KEY = "searched_dilation"


class _Made(NamedTuple):
    """How a convolution was made. Every dilation is set from here, so that none leaves a trace in the next.

    pads: before and after, px, the last axis first. framed: they are those of a padding layer inside it.
    """

    dilation: tuple[int, ...]
    padding: str | tuple[int, ...]
    padding_mode: str
    pads: Sequence[int]
    framed: bool


def set_dilation(conv: Convolution, dilation: int | Sequence[int]) -> None:
    """Dilate a convolution in place, its weights untouched; its state dict holds the dilation from then on.

    conv: Conv1d, Conv2d, Conv3d or a subclass. dilation: px of its map between taps, for all axes or one for each.

    Along an axis that it pads, the output keeps its size: the padding grows with the kernel's extent, by (k - 1) px a
    step, split evenly with the odd pixel behind, which is what `padding="same"` does, and this stays. A zero padding
    that comes out uneven becomes "same" where that is its size; else, and where it comes out negative (a crop), it is
    written as an explicit pad, `padding_mode="constant"`. An axis that it does not pad stays unpadded, also where a
    layer in front pads it: there the output shrinks by (k - 1) px a step (divided by the stride). A subclass that pads
    in a forward pass of its own, or with a layer inside it, goes on doing so. The dilation that the convolution was
    made with restores it exactly.

    Raises ModelError for any other module, a dilation below 1, and a subclass whose own padding does not follow.
    """
    if not isinstance(conv, Convolution):
        raise ModelError(f"Only a Conv1d, Conv2d or Conv3d has a dilation that can be set. Got {type(conv).__name__}.")
    axes = len(conv.kernel_size)
    wanted = (dilation,) * axes if isinstance(dilation, int) else tuple(dilation) if _listed(dilation) else ()
    if len(wanted) != axes or any(not isinstance(d, int) or d < 1 for d in wanted):
        raise ModelError(
            f"A dilation is a whole number, 1 or more, or one for each of {axes} axes. Got {dilation!r}. Smallest: 1."
        )
    made = vars(conv).get("_made")
    if made is None:
        pads, frame = pads_of(conv), _frame(conv)
        framed = frame is not None and not any(pads)
        made = _Made(
            conv.dilation, conv.padding, conv.padding_mode, frame.padding if frame and framed else pads, framed
        )
    if wanted == made.dilation or is_plain(conv):
        _pad(conv, made, wanted)
    else:
        _pad_and_check(conv, made, wanted)
    if "_made" not in vars(conv):
        vars(conv)["_made"] = made
        conv.register_state_dict_post_hook(_save)  # type: ignore[no-untyped-call]
        conv.register_load_state_dict_pre_hook(_load)  # type: ignore[no-untyped-call]
    # What saves and loads asks the hooks; a buffer besides, for what looks each of its keys up in the module.
    conv.register_buffer(_KEY, torch.tensor(wanted, device=conv.weight.device))


def without_dilations(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict without the dilations that it holds: loaded, it leaves those of the model as they are."""
    return {key: value for key, value in state.items() if key.rpartition(".")[2] != _KEY}


def is_plain(module: nn.Module) -> bool:
    """Whether a module is a convolution that pads as torch's own do: `output_size` tells what it gives."""
    return (
        isinstance(module, Convolution)
        and type(module).forward in _FORWARD
        and type(module)._conv_forward in _CONV_FORWARD
    )


def owns_weight(conv: nn.Module) -> bool:
    """Whether a convolution's weight is its own parameter, and not computed by a hook or a parametrization."""
    return "weight" in conv._parameters


def pads_of(conv: Convolution) -> Sequence[int]:
    """What a convolution pads, px, as F.pad takes it: before and after on its last axis first.

    By the attributes that its forward pass reads. In mode "zeros" that is `padding`, which libraries change on finished
    convolutions to turn strides into dilations; in every other mode it is a list made when the convolution was.
    """
    if conv.padding_mode != "zeros":
        return conv._reversed_padding_repeated_twice
    pads: list[int] = []
    for i in reversed(range(len(conv.kernel_size))):
        total = conv.dilation[i] * (conv.kernel_size[i] - 1) if conv.padding == "same" else 0
        before = total // 2 if isinstance(conv.padding, str) else int(conv.padding[i])
        pads += [before, total - before if isinstance(conv.padding, str) else before]
    return pads if isinstance(conv.padding, str) else tuple(pads)


def output_size(conv: Convolution, size: Sequence[int]) -> tuple[int, ...]:
    """Size of the map, px an axis, that a convolution gives for one of `size`, by its attributes alone."""
    pads = pads_of(conv)
    return tuple(
        (source + before + after - d * (k - 1) - 1) // stride + 1
        for source, before, after, d, k, stride in zip(
            size, pads[-2::-2], pads[-1::-2], conv.dilation, conv.kernel_size, conv.stride, strict=True
        )
    )


_FORWARD = [kind.forward for kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d)]
_CONV_FORWARD = [kind._conv_forward for kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d)]


def _pad(conv: Convolution, made: _Made, wanted: tuple[int, ...]) -> None:
    """Set a dilation and the padding that goes with it."""
    conv.dilation, conv.padding = wanted, made.padding
    conv.padding_mode = made.padding_mode  # type: ignore[assignment]
    if wanted == made.dilation:
        _surround(conv, made, made.pads)
        return
    taps = [k - 1 for k in conv.kernel_size]
    totals = [
        before + after + (new - old) * more if before + after else 0
        for before, after, new, old, more in zip(
            made.pads[-2::-2], made.pads[-1::-2], wanted, made.dilation, taps, strict=True
        )
    ]
    sides = [(total // 2, total - total // 2) for total in totals]

    _surround(conv, made, [px for pair in reversed(sides) for px in pair])
    if made.framed or isinstance(made.padding, str):
        return
    conv.padding = tuple(before for before, _ in sides)
    if made.padding_mode != "zeros" or all(before == after >= 0 for before, after in sides):
        return
    if all(s == 1 for s in conv.stride) and totals == [d * more for d, more in zip(wanted, taps, strict=True)]:
        conv.padding = "same"
    else:
        # torch itself pads evenly; in any mode but "zeros" it hands the numbers above to F.pad.
        conv.padding_mode = "constant"  # type: ignore[assignment]


def _surround(conv: Convolution, made: _Made, pads: Sequence[int]) -> None:
    frame = _frame(conv)
    if frame is not None and made.framed:
        frame.padding = tuple(pads)
    else:
        conv._reversed_padding_repeated_twice = pads  # type: ignore[assignment]


def _frame(conv: Convolution) -> _ConstantPadNd | None:
    """The layer that a subclass pads with, such as the fixed "same" of ported EfficientNets."""
    return next((child for child in conv.children() if isinstance(child, _ConstantPadNd)), None)


def _pad_and_check(conv: Convolution, made: _Made, wanted: tuple[int, ...]) -> None:
    """The same for a subclass with a forward pass of its own, which may pad by itself or read what it likes."""
    present = conv.dilation
    reach = [k * max(d) for k, *d in zip(conv.kernel_size, wanted, made.dilation, strict=True)]
    # One pixel more than a whole number of strides, where the least padding of its own shows, and as many sizes on as
    # it takes for a pixel of padding to show at any stride.
    least = [stride * (px + 1) + 1 for stride, px in zip(conv.stride, reach, strict=True)]
    sizes = [[px + more for px in least] for more in range(max(conv.stride))]

    def given() -> list[tuple[int, ...]]:
        return [output_shape(conv, (1, conv.in_channels, *size))[2:] for size in sizes]

    _pad(conv, made, made.dilation)
    expected = given()
    pads_itself = expected[0] != output_size(conv, least)
    _pad(conv, made, wanted)
    if not pads_itself:
        expected = [output_size(conv, size) for size in sizes]
    if (found := given()) != expected:
        _pad(conv, made, present)
        raise ModelError(
            f"A {type(conv).__name__} pads in its own way, which does not follow its dilation: at {wanted} maps of "
            f"{sizes} px become {found} px, not {expected}. Put a plain Conv{len(least)}d in its place."
        )


def _save(conv: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Say the dilation that the convolution has, also where its buffers hold no values."""
    state[prefix + _KEY] = torch.tensor(conv.dilation)


def _load(conv: nn.Module, state: dict[str, Any], prefix: str, *arguments: Any) -> None:
    """Set the dilation that a state dict holds; plain weights, without one, leave it as it is."""
    saved: Tensor = state.setdefault(prefix + _KEY, torch.tensor(conv.dilation))
    try:
        # whole numbers, even where every tensor of the state dict was made a float
        set_dilation(conv, [int(d) if d == int(d) else d for d in saved.tolist()])  # type: ignore[arg-type]
    except (ModelError, NotImplementedError, TypeError) as error:
        errors: list[str] = arguments[-1]
        errors.append(f"{prefix}{_KEY}: {error}")


def _listed(dilation: object) -> bool:
    return isinstance(dilation, tuple | list)
