"""Pictures of receptive fields: the effective one as an image, and a page that holds it beside the data's objects."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from PIL import Image, ImageDraw
from plotly.colors import sample_colorscale, unlabel_rgb

from rfsearch.printable import printable
from rfsearch.report.wording import literal
from rfsearch.tasks.colours import colour

_SIDE = 480  # px of the picture's shorter side, about
_BAND = 48  # px: height of the picture of a signal
_OVERLAY_SIDE = 288  # px of the longer side of a field drawn on its image, about
_GLOW, _RING = (255, 214, 64), "#ff5a4d"
_THEORY, _EFFECTIVE = "#d1495b", "#2f7fd1"


@dataclass(frozen=True)
class Pictured:
    """Hold what is drawn of a network's receptive field.

    Attributes:
        title: What the network is called.
        sentences: What was found, in words.
        theory_px: Extent of the theoretical field along each axis, px.
        effective: Map of the effective field with one dimension per axis; None where it was not measured.
        size_px: Size of the effective field, px; None where it was not measured.
        objects: Histogram of the sizes of the data's objects: its edges, px, and its counts by class. None without
            data.
        noun: What is called an object there, in the singular.
    """

    title: str
    sentences: Sequence[str]
    theory_px: Sequence[float]
    effective: np.ndarray | None
    size_px: float | None
    objects: tuple[np.ndarray, Mapping[str, np.ndarray]] | None
    noun: str = "object"


def write_picture(effective: np.ndarray, theory_px: Sequence[float], size_px: float, path: Path) -> None:
    """Write the effective field as a PNG.

    It shows the root of each pixel's share of the gradient, the theoretical field as a rectangle and the effective size
    as a circle. A signal becomes a band; a volume is summed over its depth.

    Args:
        effective: Map of the effective field: L, H x W or D x H x W.
        theory_px: Extent of the theoretical field along each axis, px.
        size_px: Size of the effective field, px.
        path: The file to write.
    """
    field = _flat(effective)
    enlarged = max(1, round(_SIDE / min(field.shape))) if len(field) > 1 else max(1, round(_SIDE / field.shape[1]))
    shown = np.sqrt(field / field.max())
    palette = np.array([unlabel_rgb(rgb) for rgb in sample_colorscale("Viridis", list(np.linspace(0, 1, 256)))]).astype(
        np.uint8
    )
    pixels = palette[(shown * 255).astype(int)]
    pixels = pixels.repeat(enlarged, axis=1).repeat(enlarged if len(field) > 1 else _BAND, axis=0)
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    height, width = image.size[1], image.size[0]
    spans = [px * enlarged for px in theory_px[-2:]] if len(field) > 1 else [height - 2.0, theory_px[-1] * enlarged]
    _box(draw, (width, height), spans, "white")
    if len(field) > 1:
        _circle(draw, (width, height), size_px * enlarged / 2, "red")
    image.save(path)


def overlaid(image: np.ndarray, effective: np.ndarray, theory_px: float, size_px: float) -> Image.Image:
    """Draw an effective field on the image that it looks at.

    What a pixel is brighter than the dimmed image is the root of its share of the gradient; the theoretical field is a
    dashed rectangle, the effective size a circle.

    Args:
        image: H x W x 3 uint8.
        effective: H x W map of the effective field.
        theory_px: Side of the theoretical field, px.
        size_px: Size of the effective field, px.
    """
    share = np.sqrt(np.maximum(effective, 0) / max(float(effective.max()), np.finfo(np.float32).tiny))[..., None]
    grey = image.astype(float).mean(axis=-1, keepdims=True) * 0.45 + 20
    pixels = (grey * (1 - share) + np.array(_GLOW) * share).astype(np.uint8)
    enlarged = max(1, round(_OVERLAY_SIDE / max(effective.shape)))
    picture = Image.fromarray(pixels.repeat(enlarged, axis=0).repeat(enlarged, axis=1))
    draw = ImageDraw.Draw(picture)
    width, height = picture.size
    _box(draw, (width, height), [theory_px * enlarged] * 2, "white")
    _circle(draw, (width, height), size_px * enlarged / 2, _RING)
    return picture


def write_page(pictured: Pictured, path: Path) -> None:
    """Write one page of findings, the effective field, and object sizes with the fields marked; it needs no network."""
    titled = [
        ("Effective field (dashed: theoretical extent, red: 2-sigma size)", _field(pictured)),
        (f"{pictured.noun.capitalize()}s of the training images", _objects(pictured)),
    ]
    drawn = list[str]()
    for title, figure in titled:
        if figure is not None:
            told = figure.to_html(full_html=False, include_plotlyjs=not drawn, config={"displaylogo": False})
            drawn.append(f'<h2>{html.escape(title)}</h2><figure class="plot">{told}</figure>')
    items = "".join(f"<li>{html.escape(printable(sentence))}</li>" for sentence in pictured.sentences)
    title = html.escape(printable(pictured.title))
    path.write_text(
        f"""<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}: receptive field</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<style>body {{ font: 16px/1.55 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
color: #1d2127; background: #fff; overflow-wrap: anywhere }} h1 {{ font-size: 1.7rem }}
h2 {{ font-size: 1.2rem; margin: 2.5rem 0 .3rem }} ul {{ padding-left: 1.2rem }} li {{ max-width: 50rem }}
figure {{ margin: 0 }}</style></head>
<body><h1>Receptive field of {title}</h1><ul>{items}</ul>{"".join(drawn)}</body></html>
""",
        encoding="utf-8",
    )


def _flat(effective: np.ndarray) -> np.ndarray:
    """Return a field as H x W: a signal as one row, a volume summed over its depth."""
    if effective.ndim == 1:
        return effective[None, :]
    return effective.sum(axis=0) if effective.ndim == 3 else effective


def _circle(draw: ImageDraw.ImageDraw, size: tuple[int, int], radius: float, colour: str) -> None:
    """Draw a circle around the centre."""
    x, y = size[0] / 2, size[1] / 2
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], outline=colour, width=2)


def _box(draw: ImageDraw.ImageDraw, size: tuple[int, int], spans: Sequence[float], colour: str) -> None:
    """Draw a dashed rectangle around the centre; what lies outside the picture is left out."""
    (width, height), (h, w) = size, spans
    left, right, top, bottom = (width - w) / 2, (width + w) / 2, (height - h) / 2, (height + h) / 2
    for start, end in (
        ((left, top), (right, top)),
        ((left, bottom), (right, bottom)),
        ((left, top), (left, bottom)),
        ((right, top), (right, bottom)),
    ):
        steps = max(1, int(math.dist(start, end) // 8))
        for step in range(0, steps, 2):
            a, b = step / steps, (step + 1) / steps
            draw.line(
                [
                    (start[0] + (end[0] - start[0]) * a, start[1] + (end[1] - start[1]) * a),
                    (start[0] + (end[0] - start[0]) * b, start[1] + (end[1] - start[1]) * b),
                ],
                fill=colour,
                width=2,
            )


def _field(pictured: Pictured) -> go.Figure | None:
    if pictured.effective is None:
        return None
    field = _flat(pictured.effective)
    if len(field) == 1:
        figure = go.Figure(go.Scatter(y=field[0] / field.max(), mode="lines", line={"color": _EFFECTIVE}))
        figure.update_layout(xaxis_title="position, px", yaxis_title="gradient, of its largest")
    else:
        figure = go.Figure(
            go.Heatmap(z=np.sqrt(field / field.max()), colorscale="Viridis", colorbar={"title": "root of<br>share"})
        )
        height, width = field.shape
        h, w = pictured.theory_px[-2:]
        figure.add_shape(
            type="rect", x0=(width - w) / 2, x1=(width + w) / 2, y0=(height - h) / 2, y1=(height + h) / 2,
            line={"color": "white", "dash": "dash"},
        )  # fmt: skip
        radius = (pictured.size_px or 0) / 2
        figure.add_shape(
            type="circle", x0=width / 2 - radius, x1=width / 2 + radius, y0=height / 2 - radius,
            y1=height / 2 + radius, line={"color": "red"},
        )  # fmt: skip
        figure.update_xaxes(range=[-0.5, width - 0.5], title="px", constrain="domain")
        figure.update_yaxes(range=[height - 0.5, -0.5], scaleanchor="x", title="px", constrain="domain")
    figure.update_layout(height=520, margin={"t": 24, "l": 56, "r": 16}, template="plotly_white")
    return figure


def _objects(pictured: Pictured) -> go.Figure | None:
    if pictured.objects is None:
        return None
    noun, (edges, by_class) = pictured.noun, pictured.objects
    labels = [f"{low:.0f}-{high:.0f}" for low, high in itertools.pairwise(edges)]
    bars: list[Any] = [
        go.Bar(x=np.sqrt(edges[:-1] * edges[1:]), y=counts, width=np.diff(edges), name=literal(name), customdata=labels,
               marker={"color": f"rgb{colour(i)}"},
               hovertemplate="%{customdata} px: %{y}<extra>" + literal(name) + "</extra>")
        for i, (name, counts) in enumerate(by_class.items(), start=1) if counts.sum()
    ]  # fmt: skip
    figure = go.Figure(bars)
    marks = [("theoretical field", max(pictured.theory_px), _THEORY)]
    if pictured.size_px:
        marks.append(("effective field", pictured.size_px, _EFFECTIVE))
    for place, (name, px, ink) in enumerate(marks):
        figure.add_vline(x=px, line={"color": ink, "width": 2, "dash": "dash" if place else "solid"})
        figure.add_annotation(
            x=math.log10(px), y=1.0 + 0.06 * place, yref="paper", text=f"{name}, {px:.0f} px", showarrow=False,
            font={"color": ink}, xanchor="left",
        )  # fmt: skip
    ticks = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]
    title = "longer side of an object, px" if noun == "object" else f"field that a {noun} takes, px"
    figure.update_xaxes(type="log", title=title, tickvals=ticks)
    figure.update_yaxes(title=f"{noun}s")
    figure.update_layout(barmode="stack", height=480, template="plotly_white", margin={"t": 64, "l": 56, "r": 16})
    return figure
