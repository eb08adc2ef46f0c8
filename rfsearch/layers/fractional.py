"""Replace a convolution by one whose dilation is a real number and may be learned.

See `rfsearch.layers.fractional_convolution` for the formula.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rfsearch.errors import ModelError, SpaceError
from rfsearch.layers.fractional_convolution import as_pair, check_dilation, convolve_at
from rfsearch.layers.host import on_host
from rfsearch.layers.plain_convolutions import PlainForm, plain_form
from rfsearch.layers.taps import Frame, Pair


class FractionalConv2d(nn.Module):
    """Apply a convolution's weights at a real dilation, with the output size of the convolution it replaces.

    At the dilation of `conv` this is `conv`. What is learned is log_dilation, so that a step of an optimiser multiplies
    the dilation: 1 -> 2 is as far as 8 -> 16, and it cannot fall to 0. An optimiser may step outside the bounds. Call
    `project_` after its step.

    The taps' whole pixels are chosen on the host. On a GPU every new value of log_dilation is read once, the one
    synchronisation of a training step; without training there is none after the first call. Values count as new when an
    optimiser, `project_` or load_state_dict wrote them. After writing `log_dilation.data` in place by hand, on a GPU,
    call `project_`.

    Args:
        conv: The convolution to replace. It is not changed; its weight and bias are shared, under the same names.
        dilation: Initial dilation, px, of both axes or (height, width).
        learned: Whether it gets a gradient.
        bounds: Its smallest and largest legal value, px, kept in the state dict next to it.
        shared: Whether both axes have one dilation.

    Raises:
        ModelError: `conv` is not an nn.Conv2d.
        SpaceError: The bounds are not 0 < low <= high, or the dilation lies outside them.

    Example:
        >>> layer = FractionalConv2d(torch.nn.Conv2d(8, 4, 3, padding="same"), dilation=2.5)
        >>> layer(torch.randn(1, 8, 12, 12)).shape
        torch.Size([1, 4, 12, 12])
    """

    weight: Tensor
    bias: Tensor | None
    log_dilation: nn.Parameter
    bounds: Tensor

    def __init__(
        self,
        conv: nn.Conv2d,
        dilation: float | tuple[float, float],
        learned: bool = True,
        bounds: tuple[float, float] = (0.25, 32.0),
        shared: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(conv, nn.Conv2d):
            raise ModelError(f"A fractional dilation replaces that of an nn.Conv2d. Got {type(conv).__name__}.")
        low, high = bounds
        if not 0 < low <= high < math.inf:
            raise SpaceError(
                f"The bounds of a dilation are 0 < low <= high. Got low={low}, high={high}. "
                "The usual ones are (0.25, 32)."
            )
        values = check_dilation(dilation)
        for value in values:
            if not low <= value <= high:
                closest = high if value > high else low
                raise SpaceError(
                    f"A dilation lies within its bounds [{low}, {high}]. Got {value}. Nearest legal: {closest}."
                )
        if shared and values[0] != values[1]:
            raise SpaceError(
                f"A dilation that both axes share is one number. Got {values[0]} and {values[1]}. "
                "Set shared=False to learn one per axis."
            )
        self.weight, self.bias = conv.weight, conv.bias
        self.stride, self.groups, self.padding_mode = as_pair(conv.stride), conv.groups, conv.padding_mode
        self.padding: str | Pair = conv.padding if isinstance(conv.padding, str) else as_pair(conv.padding)
        self.padded_for = as_pair(conv.dilation)
        start = torch.tensor(values[: 1 if shared else 2], dtype=torch.float64).log()
        self.log_dilation = nn.Parameter(start.to(conv.weight.device, torch.float32), requires_grad=learned)
        self.register_buffer("bounds", torch.tensor([low, high], dtype=torch.float32, device=conv.weight.device))
        self._last, self._seen = values, (self.log_dilation, self.log_dilation._version)
        self.register_load_state_dict_post_hook(_read_dilation_again)  # type: ignore[no-untyped-call]

    @property
    def learned(self) -> bool:
        """Return whether the dilation gets a gradient."""
        return self.log_dilation.requires_grad

    @property
    def dilation(self) -> Tensor:
        """Return the dilation, px, of size 1 or 2 (height, width). Differentiable."""
        return self.log_dilation.exp()

    @property
    def value(self) -> float:
        """Return the dilation as a number, px: that of both axes, or the height's."""
        return self.read_dilation()[0]

    @property
    def work(self) -> Hashable:
        """Return what the cost of a pass depends on besides the sizes of its maps.

        That is between which pixels the taps lie.
        """
        frames = [Frame.of(1, k, 1, "same", 1) for k in self.weight.shape[2:]]
        places = [p for frame, value in zip(frames, self.read_dilation(), strict=True) for p in frame.places(value)]
        return self.learned, *((math.floor(place), place.is_integer()) for place in places)

    @torch.no_grad()
    def project_(self) -> None:
        """Clamp the value of the dilation into its bounds, in place.

        In the forward pass a clamp would kill its gradient.
        """
        low, high = self.bounds.log()
        self.log_dilation.clamp_(low, high)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve B x C x H x W to B x O x H_out x W_out."""
        moves = self.learned and torch.is_grad_enabled() and not torch.compiler.is_exporting()
        learnable = self.dilation if moves else None
        return convolve_at(
            x,
            self.weight,
            self.bias,
            learnable,
            self.read_dilation(),
            self.stride,
            self.padding,
            self.groups,
            self.padding_mode,
            self.padded_for,
            "auto",
        )

    def plain_form(self) -> PlainForm:
        """Return the plain convolutions that compute this one at its dilation, on maps of any size."""
        paddings = (self.padding, self.padding) if isinstance(self.padding, str) else self.padding
        dilation, mode = self.read_dilation(), self.padding_mode
        return plain_form(self.weight, dilation, self.stride, paddings, self.padded_for, self.groups, mode)

    def places(self, size: Sequence[int]) -> list[list[list[float]]]:
        """Return where every output reads every tap.

        Args:
            size: (H, W) of the map, px.

        Returns:
            For each axis outputs x taps, px of the map. Places are real numbers, and lie beyond the map where the
            kernel reads its padding.
        """
        paddings = (self.padding, self.padding) if isinstance(self.padding, str) else self.padding
        found = []
        for a, value in enumerate(self.read_dilation()):
            frame = Frame.of(size[a], self.weight.shape[2 + a], self.stride[a], paddings[a], self.padded_for[a])
            found.append([[o * frame.stride + place for place in frame.places(value)] for o in range(frame.count)])
        return found

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.read_dilation()  # the version counter of a copy starts again

    def _apply(self, *args: Any, **options: Any) -> FractionalConv2d:
        self.read_dilation()  # before a move to a device without values
        before = self.log_dilation.detach().clone()
        super()._apply(*args, **options)  # type: ignore[no-untyped-call]
        if self.log_dilation.dtype.itemsize < before.dtype.itemsize:  # half precision tells few dilations apart
            self.log_dilation.data = before.to(self.log_dilation.device)
        return self

    def read_dilation(self) -> tuple[float, float]:
        """Return the dilation on the host; where tensors have no values, as it was before they lost them."""
        if torch.compiler.is_exporting():
            if self._seen[0]._version != self._seen[1]:
                raise ModelError(
                    "A program is exported with the dilation that a FractionalConv2d had in its last forward pass, and "
                    "this one has changed since. Call it once on a map before exporting."
                )
        elif self.log_dilation.device.type != "meta":
            self._last = check_dilation([math.exp(value) for value in on_host(self.log_dilation)])
            self._seen = self.log_dilation, self.log_dilation._version
        return self._last

    def extra_repr(self) -> str:
        """Describe the settings, for `repr`."""
        dilation = ", ".join(f"{value:.4g}" for value in self.dilation.tolist())
        low, high = self.bounds.tolist()
        out, inputs, *taps = self.weight.shape
        return (
            f"{inputs * self.groups}, {out}, kernel_size={tuple(taps)}, dilation=({dilation}), "
            f"learned={self.learned}, bounds=({low:.4g}, {high:.4g}), stride={self.stride}, padding={self.padding!r}, "
            f"groups={self.groups}, bias={self.bias is not None}, padding_mode={self.padding_mode!r}"
        )


def _read_dilation_again(layer: FractionalConv2d, keys: object) -> None:
    layer.read_dilation()
