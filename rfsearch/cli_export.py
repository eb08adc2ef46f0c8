"""The command `export`. What is done stands in `rfsearch.export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from rfsearch import terminal

if TYPE_CHECKING:
    from rfsearch.export import Exported

out_console = terminal.console()
err_console = terminal.console(stderr=True)


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
    out: Annotated[Path | None, typer.Option("--out", help="Directory. Default: RUN/export.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Export a run's winner: a state dict with a small patch, ONNX, and a program of torch.export."""
    import torch

    from rfsearch.export import export as write

    console = err_console if as_json else out_console
    wanted = [name.strip() for name in formats.split(",")] if formats != "none" else []
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def say(sentence: str) -> None:
        console.print(sentence, style="dim", highlight=False, markup=False)

    found = write(run_dir, out, trial, integer, finetune, wanted, data, device, say)
    if as_json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        _print(found)
    for fault in found.faults:
        err_console.print(fault, style="red", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(1 if found.faults else 0)


def _print(found: Exported) -> None:
    from rfsearch.space import Candidate

    def tell(text: str) -> None:
        out_console.print(text, highlight=False, markup=False, soft_wrap=True)

    tell(f"Trial {found.trial}, searched as {Candidate.from_json(found.searched)}")
    splits = "".join(
        f"; {path}: its last {split.channels} channels at d={split.dilation}"
        for path, split in found.patch.splits.items()
    )
    tell(f"exported as {found.patch.candidate}{splits}. Receptive field {found.rf_px} px.")
    for notice in found.notices:
        out_console.print(notice, style="yellow", highlight=False, markup=False, soft_wrap=True)
    out_console.print(_scores(found))
    out_console.print(_forms(found))
    tell(f"All in {found.directory}. To use it:\n")
    tell(_usage(found))


def _scores(found: Exported) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", title=found.primary, title_justify="left")
    table.add_column("network")
    for name in ("val", "lost", "test", "lost"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    first = found.scores[0]
    for row in found.scores:
        cells = [row.name + (f", {row.steps} steps more" if row.steps else "")]
        for score, trained in ((row.val, first.val), (row.test, first.test)):
            cells.append("-" if score is None else f"{score:.4f}")
            cells.append("" if row is first or score is None or trained is None else f"{trained - score:+.4f}")
        table.add_row(*cells, "exported" if row.chosen else "")
    return table


def _forms(found: Exported) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("form", "file", "images at a time"):
        table.add_column(name, no_wrap=True)
    table.add_column("largest difference of logits", justify="right")
    for form in found.forms:
        batch = "" if form.file is None else str(form.batch or "any")
        difference = form.said if form.difference is None else f"{form.difference:.2g}"
        table.add_row(form.name, form.file or "-", batch, difference)
    return table


def _usage(found: Exported) -> str:
    """Lines that use what was exported."""
    height, width = found.size
    files = {form.name: found.directory / form.file for form in found.forms if form.file}
    lines = [
        f"# images: B x 3 x {height} x {width}, RGB / 255 minus mean over std as in export.json",
        "import rfsearch, torch",
        "from rfsearch.plugins import make_backbone  # or build your own network",
        "",
        f"model = make_backbone({found.patch.backbone!r}, {len(found.patch.classes)})",
        f"model = rfsearch.apply(model, {str(found.directory / 'patch.json')!r})",
        f"model.load_state_dict(torch.load({str(files['state dict'])!r}, weights_only=True))",
        "logits = model.eval()(images)",
    ]
    if "program" in files:
        lines += ["", f"logits = torch.export.load({str(files['program'])!r}).module()(images)"]
    if "onnx" in files:
        lines += [
            "",
            "import onnxruntime",
            f"session = onnxruntime.InferenceSession({str(files['onnx'])!r})",
            'logits = session.run(["logits"], {"image": images})[0]  # NumPy, float32',
        ]
    return "\n".join(lines)
