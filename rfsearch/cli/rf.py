"""The command `rf`: the receptive field of one network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from rfsearch.cli.model import LoadedModel, layer_in_short, load_model
from rfsearch.cli.options import JsonOption, with_options_of
from rfsearch.printing import out_console, print_json, say

if TYPE_CHECKING:
    from rfsearch.inspection import Inspection, LayerRow


@with_options_of(load_model)
def rf(
    model: LoadedModel,
    at: Annotated[str, typer.Option("--at", help="Module path to look from. Default: the output.")] = "",
    every: Annotated[bool, typer.Option("--all", help="Every layer, not only those that change the field.")] = False,
    effective: Annotated[bool, typer.Option(help="Measure the effective field too.")] = True,
    out: Annotated[Path | None, typer.Option("--out", help="Where pictures go. Default: runs/rf-MODEL.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a network's receptive field, in theory layer by layer and in effect, and hold it against your objects."""
    from rfsearch import inspection

    found = inspection.inspect(model.network, (1, *model.shape), at, model.images, effective, model.sizes)
    sentences = [*found.sentences, *_run_notices(Path(model.name))]
    folder = out or Path("runs") / f"rf-{re.sub(r'[^A-Za-z0-9_.-]+', '-', model.name).strip('-')}"
    _write_pictures(found, f"{model.name}{f' at {at}' if at else ''}", sentences, folder)
    if as_json:
        about = {"model": model.name, "input": list(model.shape), "at": at}
        print_json({**about, **_as_json(found), "files": str(folder), "sentences": sentences})
        return
    out_console.print(_layers_table(found.layers, every))
    for sentence in [*sentences, model.assumed]:
        if sentence:
            say(sentence)
    say(f"Pictures and the whole table: {folder}")


def _run_notices(run_dir: Path) -> list[str]:
    """Return what a reader must know of the run whose winner is looked at; nothing where a model is named."""
    from rfsearch.ledger.lock import holder

    by = holder(run_dir)
    return [f"The run is still running ({by}): this is its leader so far."] if by else []


def _write_pictures(found: Inspection, title: str, sentences: Sequence[str], folder: Path) -> None:
    from rfsearch.inspection import write_layers
    from rfsearch.report.field_page import Pictured, write_page, write_picture

    folder.mkdir(parents=True, exist_ok=True)
    write_layers(found, folder / "layers.csv")
    theory, effective = [axis.px for axis in found.field.axes], found.effective
    objects = found.sizes.histogram() if found.sizes else None
    noun = found.sizes.noun if found.sizes else "object"
    pictured = Pictured(title, sentences, theory, None, None, objects, noun)
    if effective:
        write_picture(effective.map, theory, effective.size_px, folder / "erf.png")
        pictured = replace(pictured, effective=effective.map, size_px=effective.size_px)
    write_page(pictured, folder / "rf.html")


def _as_json(found: Inspection) -> dict[str, Any]:
    from rfsearch.inspection import field_json

    body: dict[str, Any] = {"axes": field_json(found.field), "layers": [layer.to_json() for layer in found.layers]}
    if found.effective:
        body["effective"] = {
            "size_px": found.effective.size_px,
            "gaussian_px": found.effective.gaussian_px,
            "sigma": list(found.effective.sigma),
            "sigma_from": found.effective.sigma_from,
            "ratio": found.effective.ratio,
        }
    if found.sizes:
        compared = found.sizes.compare(found.field.px)
        body["objects"] = {name: vars(extent) for name, extent in found.sizes.extents().items()}
        body |= {"larger": list(compared.larger), "smaller": list(compared.smaller)}
    return body


def _layers_table(layers: Sequence[LayerRow], every: bool) -> Table:
    """Show layers with their fields; by default those only whose field or jump differs from the one before."""
    from rfsearch.inspection import format_sizes

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("layer", overflow="fold", min_width=24)
    table.add_column("kind", overflow="fold")
    for name in ("output", "field, px", "jump", "offset"):
        table.add_column(name, justify="right", no_wrap=True)
    before, left_out = None, 0
    for layer in layers:
        now = tuple((axis.local_px, axis.jump, axis.whole) for axis in layer.field.axes)
        if now == before and not every:
            left_out += 1
            continue
        before = now
        axes = layer.field.axes
        table.add_row(
            layer.path,
            layer_in_short(layer.kind, layer.kernel, layer.stride, layer.dilation),
            format_sizes(layer.shape),
            _per_axis(axis.local_px for axis in axes) + (" +whole" if layer.field.whole else ""),
            _per_axis(axis.jump for axis in axes),
            _per_axis(axis.offset for axis in axes),
        )
    if left_out:
        table.caption = f"s stride, d dilation; {left_out} layers that keep the field are left out, --all shows them"
        table.caption_justify = "left"
    return table


def _per_axis(values: Iterable[float]) -> str:
    """Return one figure where all axes agree, else one per axis."""
    shown = [f"{value:.4g}" for value in values]
    return shown[0] if len(set(shown)) == 1 else " x ".join(shown)
