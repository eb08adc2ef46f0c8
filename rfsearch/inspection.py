"""Find what a model sees, layer by layer, and where that can be changed, for `rfsearch rf` and `rfsearch sites`."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from rfsearch import plugins
from rfsearch.data import ImageSet
from rfsearch.data.batches import normalised_images
from rfsearch.data.object_sizes import ObjectSizes
from rfsearch.errors import ModelError, RfsearchError, nearest
from rfsearch.receptive import EffectiveField, ReceptiveField, Trace, effective_receptive_field, trace_model
from rfsearch.surgery.refused import refused_dilations
from rfsearch.surgery.sites import SiteRow, class_name, list_sites

# Dilations that are tried at every site, up to the largest that fits.
DILATIONS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_IMAGES = 20  # of noise or of the data, for an effective field (Luo et al.)
_AXES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}


@dataclass(frozen=True)
class LayerRow:
    """Describe one layer that ran.

    Attributes:
        path: Name of its module.
        kind: Its class.
        kernel: Taps per axis; empty if it has none. So are stride and dilation.
        stride: Stride per axis, px of its input.
        dilation: Dilation per axis, px of its input.
        shape: Shape of its output, without the batch.
        field: Receptive field of a unit of the output.

    Example:
        >>> inspect(model, (1, 3, 64, 64)).layers[0].to_json()
    """

    path: str
    kind: str
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    shape: tuple[int, ...]
    field: ReceptiveField

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints of the layer."""
        body = {name: list(getattr(self, name)) for name in ("kernel", "stride", "dilation", "shape")}
        return {"path": self.path, "kind": self.kind, **body, "axes": field_json(self.field)}


@dataclass(frozen=True)
class Inspection:
    """Hold what a model sees.

    Attributes:
        image: B x C x its axes.
        layers: The layers, in the order of the forward pass.
        at: Name of the module whose field is reported, "" for the model's output.
        field: The theoretical field there.
        effective: The effective field there, or None if it cannot be measured.
        why_not: Why it cannot be measured.
        sizes: Sizes of the objects of the data, or None without data.

    Example:
        >>> inspect(model, (1, 3, 64, 64)).sentences
    """

    image: tuple[int, ...]
    layers: list[LayerRow]
    at: str
    field: ReceptiveField
    effective: EffectiveField | None
    why_not: str
    sizes: ObjectSizes | None

    @property
    def sentences(self) -> list[str]:
        """Return the findings, in words."""
        axes = " x ".join(_px(axis.local_px) for axis in self.field.axes)
        image = " x ".join(map(str, self.image[2:]))
        where = f"of {self.at}" if self.at else "of the output"
        if self.field.local_px:
            larger = self.field.local_px > max(self.image[2:])
            said = [
                f"A unit {where} reads {axes} px by itself{', more than' if larger else ' of'} the image's {image}."
            ]
        else:
            said = []
        if self.field.whole:
            said.append(f"{'It' if said else f'A unit {where}'} sees the whole image, through pooling or attention.")
        if self.effective is not None:
            share = f", {100 * self.effective.ratio:.0f} % of that" if self.effective.ratio else ""
            fills = self.effective.size_px > 0.95 * min(self.image[2:])
            end = ": all of the image, so it may be larger" if fills else ""
            said.append(f"Its effective field is {self.effective.size_px:.0f} px across{share} (2-sigma rule){end}.")
        elif self.why_not:
            said.append(f"No effective field: {self.why_not}")
        if self.sizes is not None:
            compared = self.sizes.compare(self.field.px)
            said.append(str(compared))
            if self.effective is not None:
                by_effect = self.sizes.compare(round(self.effective.size_px))
                if by_effect.larger != compared.larger:
                    said.append(f"By the effective field: {by_effect}")
        return said


def inspect(
    model: nn.Module,
    image: Sequence[int],
    at: str = "",
    data: ImageSet | None = None,
    effective: bool = True,
    sizes: ObjectSizes | None = None,
) -> Inspection:
    """Follow a model on images of a shape, and measure its effective field on noise or on the data.

    Args:
        model: The model.
        image: B x C x its axes.
        at: Name of the module whose field is reported, "" for the model's output.
        data: Data whose images are used, or None.
        effective: Whether to measure the effective field.
        sizes: Sizes of the data's objects, which fields are held against, or None.

    Raises:
        ModelError: The model cannot be followed, or the module did not run or did not return a tensor.
    """
    trace = trace_model(model, image)
    fields = trace.receptive_fields()
    if at not in fields:
        raise ModelError(
            f"A receptive field is reported at a module that ran and returned a tensor. Got {at!r}."
            f"{nearest(at, fields)}"
        )
    found, why_not = None, ""
    if effective:
        inputs: Any = _IMAGES
        if data is not None and len(image) == 4:
            inputs = _some_images(data)
        local = [axis.local_px or axis.px for axis in fields[at].axes]  # what the sentence before speaks of
        try:
            found = effective_receptive_field(
                model, inputs, input_shape=tuple(image), at=at or None, theoretical_px=local
            )
        except RfsearchError as error:
            why_not = str(error)
    return Inspection(tuple(image), _layers(model, trace, fields), at, fields[at], found, why_not, sizes)


def build_network(spec: str, num_classes: int, in_channels: int) -> nn.Module:
    """Build the untrained network of a backbone SPEC, its weights drawn from seed 0.

    Its callable may also be one without arguments, as a training of one's own has it.
    """
    torch.manual_seed(0)
    model = plugins.make_backbone(spec, num_classes, in_channels, bare=True)
    model.eval()
    return model


@dataclass(frozen=True)
class SiteFields:
    """Describe a convolution, and the receptive field that each dilation of it would give.

    Attributes:
        row: The convolution.
        by_dilation: The field of the model's output and the field at the convolution, by dilation.
        refused: Dilations that fit into the map but not into the network, and why.

    Example:
        >>> {d: model.px for d, (model, _) in list_site_fields(model, (1, 3, 64, 64))[0].by_dilation.items()}
    """

    row: SiteRow
    by_dilation: dict[int, tuple[ReceptiveField, ReceptiveField]]
    refused: dict[int, str]

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints of the convolution."""
        row = self.row
        return {
            "site": row.path,
            "kind": row.kind,
            "kernel": list(row.kernel),
            "stride": list(row.stride),
            "dilation": list(row.dilation),
            "groups": row.groups,
            "channels": [row.in_channels, row.out_channels],
            "map": list(row.map_size) if row.map_size else None,
            "largest_dilation": row.largest_dilation,
            "why_not": row.why_not,
            "refused": {str(d): why for d, why in self.refused.items()},
            "rf_px": {str(d): model.local_px for d, (model, _) in self.by_dilation.items()},
            "site_rf_px": {str(d): site.local_px for d, (_, site) in self.by_dilation.items()},
        }


def list_site_fields(model: nn.Module, image: Sequence[int]) -> list[SiteFields]:
    """List every convolution of a model with what each dilation of it would do to the model's receptive field.

    Args:
        model: The model.
        image: B x C x its axes.

    Raises:
        ModelError: The model cannot be followed, or no convolution's receptive field may be changed.
    """
    trace = trace_model(model, image)
    rows = [as_dependent(row, trace) for row in list_sites(model, image)]
    fitting = {row.path: [d for d in DILATIONS if d <= (row.largest_dilation or 0)] for row in rows if not row.why_not}
    refused = refused_dilations(model, image, fitting)
    found = []
    for row in rows:
        fields: dict[int, tuple[ReceptiveField, ReceptiveField]] = {}
        reasons = refused.get(row.path, {})
        for dilation in fitting.get(row.path, ()):
            if dilation not in reasons:
                changed = trace.receptive_fields({row.path: dilation})
                fields[dilation] = changed[""], changed[row.path]
        if reasons and not fields.keys() - set(row.dilation):
            found.append(SiteFields(_no_site(row, reasons), {}, reasons))
        else:
            found.append(SiteFields(row, fields, reasons))
    if not any(site.by_dilation for site in found):
        why = "; ".join(f"{site.row.path}: {site.row.why_not}" for site in found[:5]) or "it has no convolution at all"
        raise ModelError(f"{type(model).__name__} has no site: no convolution's receptive field may be changed. {why}.")
    return found


def as_dependent(row: SiteRow, trace: Trace) -> SiteRow:
    """Return a site, or why it is none because its dilation would not reach the output."""
    if row.why_not or row.path in trace.needed:
        return row
    ran = any(path == row.path for path in trace.shapes)
    why = "the output does not depend on it" if ran else "it runs inside a module that has a rule of its own"
    return replace(row, largest_dilation=None, why_not=why)


def _no_site(row: SiteRow, reasons: Mapping[int, str]) -> SiteRow:
    dilation, reason = next(iter(reasons.items()))
    return replace(row, largest_dilation=None, why_not=f"the network takes no other dilation (at {dilation} {reason})")


def write_layers(inspection: Inspection, path: Path) -> None:
    """Write the table of layers as CSV, one row per layer."""
    axes = _AXES[len(inspection.image) - 2]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        columns = ("local_px", "whole", "jump_px", "offset_px")
        heads = [f"{axis}_{column}" for axis in axes for column in columns]
        writer.writerow(["path", "kind", "kernel", "stride", "dilation", "output", *heads])
        for layer in inspection.layers:
            parts = (layer.kernel, layer.stride, layer.dilation, layer.shape)
            cells = [format_sizes(part) for part in parts]
            for axis in layer.field.axes:
                cells += [f"{axis.local_px:g}", str(axis.whole), f"{axis.jump:g}", f"{axis.offset:g}"]
            writer.writerow([layer.path, layer.kind, *cells])


def format_sizes(sizes: Sequence[int]) -> str:
    """Format sizes as 3x3, or as 3 for a single axis."""
    return "x".join(map(str, sizes))


def field_json(field: ReceptiveField) -> list[dict[str, Any]]:
    """Return what `--json` prints of a field, one entry per axis."""
    return [
        {"px": axis.px, "local_px": axis.local_px, "whole": axis.whole, "jump": axis.jump, "offset": axis.offset}
        for axis in field.axes
    ]


def _px(value: float) -> str:
    return f"{value:.0f}" if abs(value - round(value)) < 0.05 else f"{value:.1f}"


def _layers(model: nn.Module, trace: Trace, fields: dict[str, ReceptiveField]) -> list[LayerRow]:
    """List the modules that no other one ran inside of, and every convolution.

    One that holds modules of which none read the image is a layer too: a convolution whose weight a parametrization
    computes, or an attention that calls its parts as functions.
    """
    rows, axes = [], len(trace.shape) - 2
    outer = {path[:end] for path in fields for end, sign in enumerate(path) if sign == "."}
    for path, field in fields.items():
        module = model.get_submodule(path)
        if not path or (path in outer and not isinstance(module, _ConvNd)):
            continue
        kernel, stride, dilation = (
            _per_axis(getattr(module, name, None), axes) for name in ("kernel_size", "stride", "dilation")
        )
        rows.append(LayerRow(path, class_name(module), kernel, stride, dilation, trace.shapes[path][1:], field))
    return rows


def _per_axis(value: Any, axes: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * axes
    return tuple(value) if isinstance(value, tuple | list) and all(isinstance(v, int) for v in value) else ()


def _some_images(data: ImageSet) -> torch.Tensor:
    """Return images of the validation split, as networks get them."""
    return normalised_images(data.splits["val"].some(_IMAGES))
