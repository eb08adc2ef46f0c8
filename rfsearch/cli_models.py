"""The commands that look at one model: `rf` and `sites`. What is computed stands in `rfsearch.inspection`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from rfsearch import terminal
from rfsearch.errors import RequestError

out_console = terminal.console()

ModelArgument = Annotated[
    str,
    typer.Argument(
        help="Network: a backbone's name, torchvision:NAME, timm:NAME, smp:ARCH/ENCODER, package.module:callable or "
        "path/to/file.py:callable; or the directory of a run, for its winner."
    ),
]
InputOption = Annotated[
    str | None,
    typer.Option("--input", help="Shape of one input, channels x axes: 3x224x224 (default), 2x1000, 1x32x64x64."),
]
ClassesOption = Annotated[int, typer.Option("--classes", help="Number of classes to build the network for.")]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="Folder of labelled images: its objects are held against the field.")
]
SpaceOption = Annotated[str, typer.Option("--space", help="Which space's layout and image size --data has.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def rf(
    model: ModelArgument,
    input_shape: InputOption = None,
    classes: ClassesOption = 21,
    at: Annotated[str, typer.Option("--at", help="Module path to look from. Default: the output.")] = "",
    data: DataOption = None,
    space: SpaceOption = "folder",
    every: Annotated[bool, typer.Option("--all", help="Every layer, not only those that change the field.")] = False,
    effective: Annotated[bool, typer.Option(help="Measure the effective field too.")] = True,
    out: Annotated[Path | None, typer.Option("--out", help="Where pictures go. Default: runs/rf-MODEL.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a network's receptive field, in theory layer by layer and in effect, and hold it against your objects."""
    from rfsearch import inspection
    from rfsearch.report.field_page import Pictured, write_page, write_picture

    network, shape, images = _network(model, input_shape, classes, data, space)
    found = inspection.inspect(network, (1, *shape), at, images, effective)
    sentences = [*found.sentences, *_of_the_run(Path(model))]
    folder = out or Path("runs") / f"rf-{re.sub(r'[^A-Za-z0-9_.-]+', '-', model).strip('-')}"
    folder.mkdir(parents=True, exist_ok=True)
    inspection.write_layers(found, folder / "layers.csv")
    theory = [axis.px for axis in found.field.axes]
    size = found.effective.size_px if found.effective else None
    objects = found.sizes.histogram() if found.sizes else None
    title = f"{model}{f' at {at}' if at else ''}"
    pictured = Pictured(title, sentences, theory, found.effective.map if found.effective else None, size, objects)
    if found.effective:
        write_picture(found.effective.map, theory, found.effective.size_px, folder / "erf.png")
    write_page(pictured, folder / "rf.html")
    if as_json:
        body: dict[str, Any] = {"model": model, "input": list(shape), "at": at}
        body |= {"axes": inspection.field_json(found.field), "layers": [layer.to_json() for layer in found.layers]}
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
        print(json.dumps(body | {"files": str(folder), "sentences": sentences}, indent=1))
        return
    out_console.print(_layers_table(found.layers, every))
    for sentence in sentences:
        out_console.print(sentence, highlight=False, markup=False)
    out_console.print(f"Pictures and the whole table: {folder}", highlight=False)


def sites(
    model: ModelArgument,
    input_shape: InputOption = None,
    classes: ClassesOption = 21,
    data: DataOption = None,
    space: SpaceOption = "folder",
    every: Annotated[bool, typer.Option("--all", help="Also convolutions whose field may not be changed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List every convolution whose receptive field may be changed, why others may not, and what each dilation gives."""
    from rfsearch import inspection

    network, shape, _ = _network(model, input_shape, classes, data, space)
    found = inspection.sites(network, (1, *shape))
    if as_json:
        print(json.dumps([site.to_json() for site in found], indent=1))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("site", overflow="fold", min_width=20)
    table.add_column("convolution", no_wrap=True)
    table.add_column("map, px", no_wrap=True, justify="right")
    table.add_column("dilation: the output's field, px")
    refused: dict[str, int] = {}
    for site in found:
        row = site.row
        if row.why_not and not every:
            reason = re.sub(r"^\S+ kernel", "1x1 kernel", row.why_not).partition(" (")[0]
            refused[reason] = refused.get(reason, 0) + 1
            continue
        fields = "  ".join(f"{d}:\u00a0{field.local_px}" for d, (field, _) in site.by_dilation.items())
        table.add_row(
            row.path,
            _operation("", row.kernel, row.stride, row.dilation, row.groups),
            inspection.by(row.map_size) if row.map_size else "-",
            fields or Text(f"no: {row.why_not}", style="yellow"),
        )
    out_console.print(table)
    for reason, count in refused.items():
        out_console.print(f"{count} more may not be changed: {reason}.", highlight=False, markup=False)
    whole = any(field.whole for site in found for field, _ in site.by_dilation.values())
    if whole:
        out_console.print(
            "The output also sees the whole image, through pooling or attention; told is what it reads by itself.",
            highlight=False,
        )


def _network(
    model: str, input_shape: str | None, classes: int, folder: Path | None, space: str
) -> tuple[Any, tuple[int, ...], Any]:
    """A network, the shape of one input to it, channels first, and labelled images where there are some."""
    import tempfile

    from rfsearch import inspection
    from rfsearch.ledger.manifest import HeldData, held
    from rfsearch.ledger.run_directory import MANIFEST_FILE, read_manifest
    from rfsearch.networks import trained
    from rfsearch.planning.plan import load_data
    from rfsearch.plugins import space_file
    from rfsearch.space import Space, read_space

    images, run_dir = None, Path(model)
    with tempfile.TemporaryDirectory() as cache:
        if (run_dir / MANIFEST_FILE).is_file():
            manifest = read_manifest(run_dir)
            known = held(manifest, run_dir / MANIFEST_FILE, Space, "resolved_space")
            place = held(manifest, run_dir / MANIFEST_FILE, HeldData, "data").folder
            images = load_data(known, str(folder) if folder else place, Path(cache))
        elif folder is not None or space != "folder":
            images = load_data(read_space(space_file(space), None), str(folder) if folder else None, Path(cache))
        if images is not None:
            shape: tuple[int, ...] = (3, *images.image_size)
            if input_shape and _shape(input_shape) != shape:
                raise RequestError(
                    f"--input {input_shape} is not the size of the images, {inspection.by(shape)}. Leave it out, or "
                    "change image_size in a copy of the space's file."
                )
            classes = images.num_classes
        else:
            shape = _shape(input_shape or "3x224x224")
        if (run_dir / MANIFEST_FILE).is_file():
            return trained(run_dir), shape, images
        return inspection.network(model, classes, shape[0]), shape, images


def _of_the_run(run_dir: Path) -> list[str]:
    """What a reader must know of the run whose winner is looked at; nothing where a model is named."""
    from rfsearch.ledger.lock import holder

    by = holder(run_dir)
    return [f"The run is still running ({by}): this is its leader so far."] if by else []


def _shape(text: str) -> tuple[int, ...]:
    parts = text.lower().split("x")
    if not 2 <= len(parts) <= 4 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise RequestError(f"--input is channels x axes, such as 3x224x224 or 2x1000. Got {text!r}.")
    return tuple(map(int, parts))


def _layers_table(layers: Sequence[Any], every: bool) -> Table:
    """Layers with their fields; by default those only whose field or jump differs from the one before."""
    from rfsearch.inspection import by

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
            _operation(layer.kind, layer.kernel, layer.stride, layer.dilation),
            by(layer.shape),
            _each(axis.local_px for axis in axes) + (" +whole" if layer.field.whole else ""),
            _each(axis.jump for axis in axes),
            _each(axis.offset for axis in axes),
        )
    if left_out:
        table.caption = f"s stride, d dilation; {left_out} layers that keep the field are left out, --all shows them"
        table.caption_justify = "left"
    return table


def _operation(
    kind: str, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], groups: int = 1
) -> str:
    """A layer in short: its kind and kernel, then stride, dilation and groups where they are not 1."""
    from rfsearch.inspection import by

    said = [kind, by(kernel)]
    for mark, sizes in (("s", stride), ("d", dilation), ("g", (groups,))):
        if any(size != 1 for size in sizes):
            said.append(mark + (str(sizes[0]) if len(set(sizes)) == 1 else by(sizes)))
    return " ".join(part for part in said if part)


def _each(values: Any) -> str:
    """One figure where all axes agree, else one an axis."""
    shown = [f"{value:.4g}" for value in values]
    return shown[0] if len(set(shown)) == 1 else " x ".join(shown)
