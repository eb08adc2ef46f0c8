"""The seam between choices and networks: what an installer is given, and what it returns.

An installer is a function `(choice, place) -> Installed`, one per kind of choice, in a file of its own. The choice
names it by a SPEC; built-in kinds and those of plugins are installed alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from rfsearch import plugins
from rfsearch.choices import Choice
from rfsearch.errors import ModelError, RfsearchError, SpaceError
from rfsearch.layers import FractionalConv2d, InflationFactor, SampleStride
from rfsearch.layers.inflation import Border, Normalisation
from rfsearch.lazy import is_unsized
from rfsearch.space import SamplingSpec
from rfsearch.surgery.dilation import Convolution, owns_weight, set_dilation
from rfsearch.surgery.places import convolutions, lone_convolution, members


@dataclass(frozen=True)
class Settings:
    """Hold what installers need beside a choice.

    Attributes:
        f_bounds: Smallest and largest learned factor.
        normalisation: How the gradient that reaches f is normalised.
        border: What inflation does at the far border of a map; see `rfsearch.layers.inflation`.
        classes: Names in order of id, which a path's labels refer to.
        guidance_weight: W of Wei eq. 12.
        f_background: What a pixel of the class `background` counts in f's gradient.
        sampling: Channels and bounds of LS-DFN blocks.
        dilations: The space's dilations, which a layer in a convolution's place is given.
    """

    f_bounds: tuple[float, float] = (0.25, 4.0)
    normalisation: Normalisation = "exact"
    border: Border = "continuous"
    classes: tuple[str, ...] = ()
    guidance_weight: float = 1.2
    f_background: float = 1.0
    sampling: SamplingSpec = field(default_factory=SamplingSpec)
    dilations: tuple[int, ...] = ()


@dataclass(frozen=True)
class Dilations:
    """Hold the dilations of one path: of its convolution, or of all in a container or span.

    Attributes:
        parts: Each convolution, and its dilation per axis where the path's is 1.
    """

    parts: list[tuple[Convolution, tuple[int, ...]]]

    def set(self, dilation: int) -> None:
        """Dilate the convolutions, px of their maps between taps, or times what each has."""
        for part, unit in self.parts:
            set_dilation(part, [d * dilation for d in unit])

    @property
    def why_whole(self) -> str:
        """Why a dilation is never a real number here, as the rest of a sentence; empty where it can be one.

        It can be that of one plain 2-D convolution without hooks, which may make its weight, whose output does not
        shrink with its dilation.
        """
        conv = self.parts[0][0]
        if len(self.parts) > 1:
            return f"holds {len(self.parts)} convolutions"
        if type(conv) is not nn.Conv2d:
            return f"is a {type(conv).__name__}"
        if conv.padding_mode not in ("zeros", "replicate"):
            return f"pads in the mode {conv.padding_mode!r}"
        if conv._forward_pre_hooks or conv._forward_hooks or not owns_weight(conv):
            return "has hooks, or a weight that is computed"
        pads = zip(conv.padding, conv.kernel_size, strict=False)
        if conv.padding != "same" and any(not isinstance(pad, int) or pad < 1 < k for pad, k in pads):
            return "does not pad, so that its output shrinks with its dilation"
        return ""

    def learned(self, bounds: tuple[float, float]) -> FractionalConv2d | None:
        """Make a layer that learns the convolution's dilation from where it is, on the map as it is.

        Args:
            bounds: Of the dilation, px.

        Returns:
            The layer; None where a dilation is whole, see `why_whole`.
        """
        conv = self.parts[0][0]
        if self.why_whole or not isinstance(conv, nn.Conv2d):
            return None
        return FractionalConv2d(conv, (conv.dilation[0], conv.dilation[1]), bounds=bounds)


def dilations_of(model: nn.Module, path: str) -> Dilations:
    """Find the dilations of a convolution, or of all in a container or span, by its module path."""
    lone = lone_convolution(model, path) is not None
    parts = convolutions(model, path)
    return Dilations([(part, (1,) * len(part.dilation) if lone else part.dilation) for part in parts])


@dataclass(frozen=True)
class Place:
    """Say where an installer puts a choice.

    Attributes:
        model: The network, which it changes.
        name: Name of the path in its candidate, for messages.
        path: Module path of the path's convolution, container or span.
        conv: The convolution; None for a container or span.
        dilations: The dilations of the convolution, or of all in the container or span.
        settings: What it needs beside the choice.
    """

    model: nn.Module
    name: str
    path: str
    conv: Convolution | None
    dilations: Dilations
    settings: Settings

    @property
    def module(self) -> str:
        """Module path of what gives the path's output: its convolution or container, or the last module of a span."""
        return members(self.model, self.path)[-1]

    def conv_2d(self, rule: str) -> nn.Conv2d:
        """Return the path's 2-D convolution.

        Args:
            rule: What needs one, as the beginning of a message: "an LS-DFN block stands behind one 2-D convolution".

        Raises:
            SpaceError: The path is something else.
        """
        if isinstance(self.conv, nn.Conv2d):
            return self.conv
        what = type(self.conv).__name__ if self.conv is not None else "container or span"
        raise SpaceError(f"{self.path}: {rule}. Got a {what}.")

    def put(self, layer: nn.Module) -> str:
        """Put a layer in the place of the path's module, and return its module path."""
        path = self.module
        self.model.set_submodule(path, layer)
        return path


@dataclass(frozen=True)
class Installed:
    """Say what an installer has put into a network for one path.

    Attributes:
        module: Module path of what gives the path's output now.
        factor: Its inflation factor, if it has one.
        stride: Its sample stride, if it has one.
        searched: Dilations that training is to find.
        layer: A layer that may follow the protocols of `rfsearch.surgery.guest`: change while it is trained, find a
            dilation, say what its cost depends on, keep parameters from weight decay.
    """

    module: str
    factor: InflationFactor | None = None
    stride: SampleStride | None = None
    searched: Dilations | None = None
    layer: nn.Module | None = None


def place_of(model: nn.Module, name: str, path: str, settings: Settings) -> Place:
    """Find the place of a path. Raises ModelError for convolutions that have no size before they have run."""
    dilations = dilations_of(model, path)
    if any(is_unsized(part) for part, _ in dilations.parts):
        raise ModelError(
            f"{path}: a lazy convolution has no size before it has run. Send one batch through the network first."
        )
    return Place(model, name, path, lone_convolution(model, path), dilations, settings)


def install_choice(choice: Choice, place: Place) -> Installed:
    """Put a choice into its place by the installer of its kind.

    Raises:
        SpaceError: The place cannot have this choice.
        ModelError: The installer is not available, fails, or returns something else than `Installed`.
    """
    installer: Callable[[Choice, Place], object] = plugins.named(choice.installer, "installer")
    try:
        installed = installer(choice, place)
    except (RfsearchError, MemoryError):
        raise
    except Exception as error:
        raise ModelError(
            f"{place.name}: the installer of {choice}, {choice.installer}, fails: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(installed, Installed):
        raise ModelError(f"{place.name}: installer {choice.installer} returns Installed. Got {installed!r}.")
    return installed
