"""The command `export`: a run's winner as files that need no search."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from rfsearch import numbers
from rfsearch.cli.options import JsonOption, TrustOption
from rfsearch.direction import merit
from rfsearch.errors import RequestError
from rfsearch.printing import err_console, out_console, print_json, progress_console, say, warn

if TYPE_CHECKING:
    from rfsearch.export import Exported


def export(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run, finished or not.")],
    trial: Annotated[
        str | None,
        typer.Option("--trial", help="A trial that leads its arm. Default: the winner so far."),
    ] = None,
    integer: Annotated[
        bool,
        typer.Option("--integer", help="Whole dilations and strides instead of real ones, and what they lose."),
    ] = False,
    finetune: Annotated[
        int, typer.Option("--finetune", metavar="STEPS", help="With --integer: also train on for that many steps.")
    ] = 0,
    formats: Annotated[
        str, typer.Option("--formats", help="Beside state dict and patch: onnx, program (torch.export), or none.")
    ] = "onnx,program",
    data: Annotated[
        str | None, typer.Option("--data", help="Where the run's folder of images is now, if it has moved.")
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size", help="The only image size it takes, as 512x768 (H x W). Default: any.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", help="The only number of images it takes at a time. Default: any.")
    ] = None,
    normalise: Annotated[
        bool, typer.Option("--normalise", help="It takes bytes, 0 to 255, and normalises them itself.")
    ] = False,
    upsample: Annotated[bool, typer.Option("--upsample", help="Its output has the size of the image.")] = False,
    argmax: Annotated[bool, typer.Option("--argmax", help="It returns class ids instead of logits.")] = False,
    half: Annotated[bool, typer.Option("--half", help="It computes in half precision (float16).")] = False,
    opset: Annotated[int | None, typer.Option("--opset", help="Version of ONNX's operators.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Directory. Default: RUN/export.")] = None,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Export a run's winner: a state dict with a small patch, ONNX, and a program of torch.export."""
    import torch

    from rfsearch.export import Graph
    from rfsearch.export import export as write
    from rfsearch.ledger.manifest import read_manifest
    from rfsearch.trust import opened

    graph = Graph(normalise, upsample, argmax, half, _size(size), batch, opset)
    if read_manifest(run_dir).has_own_trainings:
        asked = {"--integer": integer, "--finetune": finetune, "--data": data, "--size": size, "--batch": batch}
        asked |= {"--normalise": normalise, "--upsample": upsample, "--argmax": argmax, "--half": half}
        asked |= {"--opset": opset}
        with opened(run_dir, trust):
            _export_weights(run_dir, out, trial, [option for option, value in asked.items() if value], as_json)
        return
    wanted = [name.strip() for name in formats.split(",")] if formats != "none" else []
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    progress = partial(say, console=progress_console(as_json), style="dim")
    with opened(run_dir, trust):
        exported = write(run_dir, out, trial, integer, finetune, wanted, graph, data, device, progress)
    if as_json:
        print_json(exported.to_json())
    else:
        _print(exported)
    for fault in exported.faults:
        say(fault, err_console, style="red", unbroken=True)
    raise typer.Exit(1 if exported.faults else 0)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.strip().isdecimal() for side in sides):
        raise RequestError(f"--size is height x width in px, such as 512x768. Got {text!r}.")
    return int(sides[0]), int(sides[1])


def _export_weights(run_dir: Path, out: Path | None, trial: str | None, refused: list[str], as_json: bool) -> None:
    """Export from a run whose trainings were a user's own: nothing can be scored or compared here."""
    from rfsearch.export import export_weights

    if refused:
        raise RequestError(f"{refused[0]} needs the run's images and score, which only your own training has.")
    exported = export_weights(run_dir, out, trial)
    if as_json:
        print_json({**vars(exported), "patch": str(exported.patch), "weights": str(exported.weights)})
        return
    say(f"Trial {exported.trial}, exported as {exported.candidate}. To use it:\n", unbroken=True)
    say(exported.usage, unbroken=True)


def _print(exported: Exported) -> None:
    from rfsearch.choices import Candidate

    say(f"Trial {exported.trial}, searched as {Candidate.from_json(exported.searched)}", unbroken=True)
    splits = "".join(
        f"; {path}: its last {split.channels} channels at d={split.dilation}"
        for path, split in exported.patch.splits.items()
    )
    say(f"exported as {exported.patch.candidate}{splits}. Receptive field {exported.rf_px} px.", unbroken=True)
    for notice in exported.notices:
        warn(notice, out_console)
    out_console.print(_scores(exported))
    out_console.print(_forms(exported))
    say(f"All in {exported.directory}. To use it:\n", unbroken=True)
    say(_usage(exported), unbroken=True)


def _scores(exported: Exported) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", title=exported.primary, title_justify="left")
    table.add_column("network")
    for name in ("val", "lost", "test", "lost"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    first = exported.scores[0]
    for row in exported.scores:
        cells = [row.name + (f", {row.steps} steps more" if row.steps else "")]
        for score, trained in ((row.val, first.val), (row.test, first.test)):
            cells.append(numbers.score(score))
            if row is first or score is None or trained is None:
                cells.append("")
            else:
                lost = merit(trained, exported.direction) - merit(score, exported.direction)
                cells.append(numbers.signed(lost))
        table.add_row(*cells, "exported" if row.chosen else "")
    return table


def _forms(exported: Exported) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("form", "file", "images at a time", "image size"):
        table.add_column(name, no_wrap=True)
    table.add_column("largest difference of outputs", justify="right")
    for form in exported.forms:
        batch = "" if form.file is None else str(form.batch or "any")
        size = "" if form.file is None else " x ".join(map(str, form.size)) if form.size else "any"
        runtimes = ", ".join(dict.fromkeys(check.runtime for check in form.checks))
        difference = form.said if form.difference is None else f"{numbers.number(form.difference, 2)} ({runtimes})"
        table.add_row(form.name, form.file or "-", batch, size, difference)
    return table


def _usage(exported: Exported) -> str:
    """Return lines that use what was exported."""
    from rfsearch.export.portable import apply_call, runs_code

    channels = exported.input_shape[1]
    built_for, values = f"{exported.out_channels}", "RGB"
    if channels != 3:
        built_for, values = f"{built_for}, {channels}", "values"
    files = {form.name: exported.directory / form.file for form in exported.forms if form.file}
    lines = [
        f"# images: B x {channels} x H x W, {values} / 255 minus mean over std as in export.json",
        "import rfsearch, torch",
        "from rfsearch.plugins import make_backbone  # or build your own network",
        "",
        f"model = make_backbone({exported.patch.backbone!r}, {built_for})",
        f"model = {apply_call('model', exported.directory / 'patch.json', runs_code(exported.patch))}",
        f"model.load_state_dict(torch.load({str(files['state dict'])!r}, weights_only=True))",
        "output = model.eval()(images)",
    ]
    if exported.graph.normalise and len(files) > 1:
        lines += ["", f"# in what follows, images: B x {channels} x H x W, {values} from 0 to 255, uint8"]
    if "program" in files:
        lines += ["", f"{', '.join(exported.outputs)} = torch.export.load({str(files['program'])!r}).module()(images)"]
    if "onnx" in files:
        lines += [
            "",
            "import onnxruntime",
            f"session = onnxruntime.InferenceSession({str(files['onnx'])!r})",
            f"{', '.join(exported.outputs)} = session.run(None, {{'image': images.numpy()}})  # NumPy"
            if len(exported.outputs) > 1
            else 'output = session.run(["output"], {"image": images.numpy()})[0]  # NumPy',
        ]
    return "\n".join(lines)
