"""Export a run's winner: choose its network, and write it in every form asked for."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rfsearch import __version__
from rfsearch.choices import Candidate, Choice
from rfsearch.data.batches import channel_statistics
from rfsearch.direction import Direction, merit
from rfsearch.errors import RequestError, RunDirectoryError, nearest
from rfsearch.export import onnx_file
from rfsearch.export.bench import Bench, Scored, take_weights
from rfsearch.export.checking import normalised
from rfsearch.export.deployed import Graph
from rfsearch.export.forms import FORMATS, Form, Writer
from rfsearch.export.origin import changes_since, read_images, record_of
from rfsearch.export.portable import default_folder, portable_candidate, portable_patch, write_patch
from rfsearch.ledger import Record, read_run
from rfsearch.ledger.files import write_whole
from rfsearch.ledger.typed_json import sound
from rfsearch.networks import trained
from rfsearch.outputs import exported_outputs
from rfsearch.patch import Patch, PatchSettings
from rfsearch.projection import project
from rfsearch.provenance import versions
from rfsearch.surgery import Settings
from rfsearch.training import checkpoint, settings_of

_FILES = ("model.pt", "patch.json", "model.pt2", "model.onnx", "model.onnx.data", "export.json")


@dataclass
class Exported:
    """Describe what was exported.

    Attributes:
        searched: The candidate as it was searched.
        primary: Name of the score.
        direction: Whether a higher or a lower score is the better one.
        rf_px: Receptive field of the exported network.
        out_channels: Channels of the network's output.
        input_shape: Of one image.
        outputs: Names of what program and ONNX give, in their order.
        graph: What goes into the exported graphs.
    """

    run: Path
    directory: Path
    trial: str
    searched: str
    patch: Patch
    primary: str
    direction: Direction
    rf_px: int
    out_channels: int
    input_shape: tuple[int, int, int, int]
    graph: Graph
    scores: list[Scored]
    forms: list[Form] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    outputs: tuple[str, ...] = ("output",)

    @property
    def faults(self) -> list[str]:
        """What went wrong with the forms that were asked for, one sentence per form."""
        return [form.said for form in self.forms if form.failed]

    def to_json(self) -> dict[str, Any]:
        """Return what `export.json` holds."""
        mean, std = channel_statistics(self.input_shape[1])
        return {
            "run": self.run.resolve().name,
            "trial": self.trial,
            "searched": json.loads(portable_candidate(Candidate.from_json(self.searched)).to_json()),
            "sites": portable_patch(self.patch).to_json()["sites"],
            "rf_px": self.rf_px,
            "primary": self.primary,
            "direction": self.direction,
            "scores": [asdict(scored) for scored in self.scores],
            "input": {"shape": ["B", *self.input_shape[1:]], "scale": 1 / 255, "mean": list(mean), "std": list(std)},
            "outputs": list(self.outputs),
            "graph": asdict(self.graph),
            "forms": [{**asdict(form), "difference": form.difference} for form in self.forms],
            "notices": self.notices,
            "versions": versions(),
        }

    @property
    def metadata(self) -> dict[str, str]:
        """What the files themselves say of the network, each value as JSON."""
        mean, std = channel_statistics(self.input_shape[1])
        graph, best = self.graph, next(scored for scored in self.scores if scored.chosen)
        said = {
            "classes": list(self.patch.classes),
            "input": "values from 0 to 255, uint8" if graph.normalise else "(values / 255 - mean) / std, float32",
            "output": "class ids, int32" if graph.argmax else "values, float32",
            "mean": list(mean),
            "std": list(std),
            "trained_size": list(self.input_shape[2:]),
            "receptive_field_px": self.rf_px,
            "sites": portable_patch(self.patch).to_json()["sites"],
            "scores": {f"{self.primary}_val": best.val, f"{self.primary}_test": best.test},
            "precision": "float16" if graph.half else "float32",
            "producer": f"rfsearch {__version__}",
        }
        return {key: json.dumps(value) for key, value in said.items()}


def export(
    run_dir: Path,
    out: Path | None = None,
    trial: str | None = None,
    integer: bool = False,
    finetune_steps: int = 0,
    formats: Sequence[str] = FORMATS,
    graph: Graph | None = None,
    folder: str | None = None,
    device: torch.device | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Write a run's winner, or another trial of it, in forms to use elsewhere; unfinished runs have one too.

    Args:
        run_dir: The run's directory.
        out: Folder to write to; `run_dir/export` by default.
        trial: Name of the trial; the winner by default.
        integer: Whether to replace learned real numbers by whole ones, in whichever of several ways validates best.
        finetune_steps: Optimiser steps after which networks of whole numbers are scored again.
        formats: Those of FORMATS to write beside state dict and patch.
        graph: What goes into their graphs. None: the network alone.
        folder: The run's images, if they are not where they were.
        device: Where to score and fine-tune; the CPU by default.
        say: Called with a sentence before what takes time.

    Returns:
        What was written. A form that fails or differs is among its faults.

    Raises:
        RequestError: What is asked for cannot be done.
        DataError: The images are not there, or not those of the run's shape and classes.
        RunDirectoryError: The run has no such trial, or the folder cannot be written.
    """
    graph = graph or Graph()
    _check(integer, finetune_steps, formats, graph)
    directory = out or default_folder(run_dir)
    run = read_run(run_dir)
    space, image_size = run.manifest.image_space, sound(run.manifest.space.image_size)
    record = record_of(run, trial)
    network = trained(run_dir, record.trial)
    say("Reading the images ...")
    data, notices = read_images(space, run.manifest.data, image_size, folder, run_dir / "cache")
    notices += changes_since(run, space)
    patch = patch_of(space.backbone, settings_of(space, data.classes), record)
    bench = Bench(space, data, device or torch.device("cpu"), say)
    fill = partial(take_weights, network)

    model = patch.install(bench.backbone(), fill)
    model.eval()
    tried = [(patch, model, Scored("trained", 0, record.val if record.val is not None else math.nan, record.test))]
    if integer:
        projected = project(patch, bench.rooms())
        notices += projected.notices or ["Nothing to project: every value is whole, exported as it is."]
        if projected.patches:
            tried = [(patch, model, bench.score(network, "trained"))]
            made, said = _in_whole_numbers(projected.patches, bench, fill, finetune_steps)
            tried, notices = tried + made, notices + said
    outputs = _outputs_of(model, bench)
    _check_output(graph, outputs, data.classes, bench.task.out_channels)
    best = max(range(1, len(tried)), key=lambda i: merit(tried[i][2].val, run.direction), default=0)
    patch, model, _ = tried[best]
    reference = network if best == 0 else model

    found = Exported(
        run_dir,
        directory,
        record.trial,
        record.candidate,
        patch,
        bench.task.primary,
        bench.task.direction,
        bench.field_px(model),
        bench.task.out_channels,
        data.input_shape,
        graph,
        [replace(scored, chosen=i == best) for i, (_, _, scored) in enumerate(tried)],
        notices=notices,
        outputs=outputs,
    )
    _clear(directory)
    try:
        checkpoint.save(model.cpu().state_dict(), directory / "model.pt")
        found.notices += write_patch(patch, directory)
        found.forms = Writer(directory, bench, graph, outputs, found.metadata, say).write(reference.cpu(), formats)
    except OSError as error:
        raise RunDirectoryError(f"{directory}: cannot be written: {error.strerror or error}.") from error
    write_whole(directory / "export.json", json.dumps(found.to_json(), indent=1) + "\n")
    return found


def _outputs_of(model: nn.Module, bench: Bench) -> tuple[str, ...]:
    """Return the names of what is exported of a network, which is on the CPU and in evaluation mode."""
    with torch.no_grad():
        return tuple(exported_outputs(model(normalised(bench.pixels()[:1]))))


def _in_whole_numbers(
    patches: Mapping[str, Patch], bench: Bench, fill: Callable[[nn.Module], None], finetune_steps: int
) -> tuple[list[tuple[Patch, nn.Module, Scored]], list[str]]:
    """Make a network of each patch, and score it, also after fine-tuning.

    Args:
        patches: By what was done to the trained network's numbers.
        bench: Scores and trains networks.
        fill: Gives a network the trained weights.
        finetune_steps: Optimiser steps after which each is scored again; 0 for none.

    Returns:
        Patch, network and scores of each, and sentences about what went wrong.
    """
    made, notices = [], []
    for name, patch in patches.items():
        start = patch.install(bench.backbone(), fill)
        start.eval()
        networks = {0: start}
        if finetune_steps:
            tuned = bench.finetune(patch.install(bench.backbone(), fill), name, finetune_steps)
            if tuned is None:
                notices.append(f"{name}: fine-tuning diverged and was left out.")
            else:
                networks[finetune_steps] = tuned
        made += [(patch, network, bench.score(network, name, steps)) for steps, network in networks.items()]
    return made, notices


def _check_output(graph: Graph, outputs: Sequence[str], classes: Sequence[str], out_channels: int) -> None:
    """Check that the network's output is of the kind that a graph is asked to go on with."""
    if not (graph.argmax or graph.upsample):
        return
    option = "--argmax" if graph.argmax else "--upsample"
    if len(outputs) > 1:
        raise RequestError(
            f"{option} goes with a network of one output. This one's are {', '.join(outputs)}; leave the option out."
        )
    if len(classes) != out_channels:
        raise RequestError(
            f"{option} goes with a network whose output has a channel for each class. This one's has {out_channels}, "
            f"and the data names {len(classes)} classes."
        )


def _check(integer: bool, finetune_steps: int, formats: Sequence[str], graph: Graph) -> None:
    if graph.opset is not None and graph.opset not in onnx_file.OPSETS:
        low, high = onnx_file.OPSETS[0], onnx_file.OPSETS[-1]
        closest = min(max(graph.opset, low), high)
        raise RequestError(f"--opset is from {low} to {high}. Got {graph.opset}. Nearest legal: {closest}.")
    for name in formats:
        if name not in FORMATS:
            raise RequestError(f"unknown format {name!r}.{nearest(name, FORMATS)}")
    if finetune_steps < 0:
        raise RequestError(f"--finetune is a number of optimiser steps, 0 or more. Got {finetune_steps}.")
    if finetune_steps and not integer:
        raise RequestError("--finetune trains what --integer has made of the winner. Give --integer too, or neither.")
    if tuple(formats) == ("onnx",) and (said := onnx_file.missing()):
        raise RequestError(said)


def patch_of(backbone: str, settings: Settings, record: Record) -> Patch:
    """Return the patch that makes a fresh network what the trial's network had become.

    Args:
        backbone: SPEC of the network.
        settings: With which candidates were installed.
        record: Of the trial.
    """
    candidate, outcome = Candidate.from_json(record.candidate), Candidate.from_json(record.outcome)
    started, bounds = dict(candidate), {"f": settings.f_bounds, "gamma": settings.sampling.bounds}

    def within(path: str, choice: Choice) -> Choice:
        """Return what training moved within its bounds, which single precision may miss by its rounding."""
        return choice.within(bounds) if started[path].choice.moves else choice

    kept = PatchSettings(
        f_bounds=settings.f_bounds,
        normalisation=settings.normalisation,
        border=settings.border,
        guidance_weight=settings.guidance_weight,
        f_background=settings.f_background,
        sampling=settings.sampling,
        dilations=settings.dilations if any(path.choice.tells_when_installed for _, path in candidate) else (),
    )
    return Patch(backbone, settings.classes, outcome.changed(within), kept)


def _clear(directory: Path) -> None:
    """Make a folder ready: what an earlier export left there would not go with what comes."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            (directory / name).unlink(missing_ok=True)
    except OSError as error:
        raise RunDirectoryError(f"{directory}: cannot be written: {error.strerror}. Choose another --out.") from error
