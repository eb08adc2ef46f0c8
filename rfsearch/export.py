"""A run's winner as something to use elsewhere: a state dict with its patch, an exported program, ONNX.

    model.pt      state dict of the exported network
    patch.json    what its sites hold; see `rfsearch.patch`
    model.pt2     `torch.export`: runs without rfsearch and without the network's own code
    model.onnx    the same for other runtimes
    export.json   what was written, its receptive field and scores, and how far each form is from the network

Images are B x C x H x W as in training, H x W that of the run; out comes what the network gives, such as logits. In the
last two forms f and gamma are constants, and so are the sizes of all maps.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rfsearch.choices import Candidate, Choice, Room
from rfsearch.data import ImageSet
from rfsearch.data.batches import channel_statistics, normalised_images
from rfsearch.direction import Direction, merit
from rfsearch.errors import DataError, ModelError, RequestError, RunDirectoryError, SpaceError, nearest
from rfsearch.identity import edited, sources_of
from rfsearch.layers import LSDFN, FractionalConv2d, Inflation, InflationFactor, Interpolation, SampleStride
from rfsearch.lazy import give_sizes
from rfsearch.ledger import Record, Run, incumbent, read_run
from rfsearch.ledger.files import write_whole
from rfsearch.ledger.manifest import DataFacts
from rfsearch.ledger.typed_json import sound
from rfsearch.networks import fresh_backbone, trained
from rfsearch.outputs import main_output
from rfsearch.patch import Patch, PatchSettings
from rfsearch.planning.plan import load_data
from rfsearch.projection import project
from rfsearch.provenance import versions
from rfsearch.receptive import receptive_field
from rfsearch.space import Space
from rfsearch.surgery import measure_sites
from rfsearch.surgery.dilation import _KEY as DILATION
from rfsearch.surgery.inserts import SplitSite
from rfsearch.surgery.places import lone_convolution
from rfsearch.tasks.from_space import task_of
from rfsearch.trial import checkpoint
from rfsearch.trial.batches import training_batches
from rfsearch.trial.optimisation import Optimisation
from rfsearch.trial.schedule import tuning_recipe

FORMATS = ("onnx", "program")
TOLERANCE = 1e-4  # of logits, between the network and what was exported
_COMPARED = 8  # images
_EXTERNAL_BYTES = 2**30  # larger weights are written beside an ONNX file, which holds 2 GiB at most
_FILES = ("model.pt", "patch.json", "model.pt2", "model.onnx", "model.onnx.data", "export.json")


@dataclass(frozen=True)
class Scored:
    """Scores of one network. name: trained, rounded or split. steps: of fine-tuning. chosen: this one was exported."""

    name: str
    steps: int
    val: float
    test: float | None
    chosen: bool = False


@dataclass(frozen=True)
class Form:
    """Hold one form of the exported network.

    Attributes:
        name: Its name.
        file: Its file, None where it could not be written.
        batch: Images at a time, None for any number.
        difference: Largest difference of logits on real images, None where it was not measured.
        said: What there is to know of it, or "".
        failed: Whether it is not what was asked for.
    """

    name: str
    file: str | None
    batch: int | None = None
    difference: float | None = None
    said: str = ""
    failed: bool = False


@dataclass
class Exported:
    """What was exported.

    Attributes:
        searched: The candidate as it was searched.
        primary: Name of the score.
        direction: Whether a higher or a lower score is the better one.
        rf_px: Receptive field of the exported network.
        input_shape: Of one image.
    """

    run: Path
    directory: Path
    trial: str
    searched: str
    patch: Patch
    primary: str
    direction: Direction
    rf_px: int
    input_shape: tuple[int, int, int, int]
    scores: list[Scored]
    forms: list[Form] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        """What went wrong with what was asked for, a sentence each."""
        return [form.said for form in self.forms if form.failed]

    def to_json(self) -> dict[str, Any]:
        """Return what `export.json` holds."""
        mean, std = channel_statistics(self.input_shape[1])
        return {
            "run": str(self.run),
            "trial": self.trial,
            "searched": json.loads(self.searched),
            "sites": self.patch.to_json()["sites"],
            "rf_px": self.rf_px,
            "primary": self.primary,
            "direction": self.direction,
            "scores": [asdict(scored) for scored in self.scores],
            "input": {"shape": ["B", *self.input_shape[1:]], "scale": 1 / 255, "mean": list(mean), "std": list(std)},
            "forms": [asdict(form) for form in self.forms],
            "notices": self.notices,
            "versions": versions(),
        }


def export(
    run_dir: Path,
    out: Path | None = None,
    trial: str | None = None,
    integer: bool = False,
    finetune_steps: int = 0,
    formats: Sequence[str] = FORMATS,
    folder: str | None = None,
    device: torch.device | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Write a run's winner, or the trial named, to `out` (by default run_dir/export); unfinished runs have one too.

    integer: with whole numbers instead of learned real ones, whichever of several ways validates best, also after
    `finetune_steps` optimiser steps. formats: of FORMATS, beside state dict and patch. folder: of the run's images,
    where they are not where they were. device: to score and to fine-tune on. say: told what takes time.

    Raises RequestError for what cannot be done; a form that fails or differs is said in the result.
    """
    _check(integer, finetune_steps, formats)
    directory = out or run_dir / "export"
    run = read_run(run_dir)
    space, image_size = sound(run.manifest.resolved_space), sound(run.manifest.space.image_size)
    record = _record(run, trial)
    network = trained(run_dir, record.trial)
    say("Reading the images ...")
    data, notices = _data(space, run.manifest.data, image_size, folder, run_dir / "cache")
    notices += _of_the_run(run, space)
    patch = patch_of(space, data.classes, record)
    bench = _Bench(space, data, device or torch.device("cpu"), say)
    fill = partial(take_weights, network)

    scores = [Scored("trained", 0, record.val if record.val is not None else math.nan, record.test)]
    model, best = patch.install(bench.backbone(), fill), 0
    model.eval()
    if integer:
        projected = project(patch, bench.rooms())
        notices += projected.notices or ["Nothing to project: every value is whole, exported as it is."]
        tried = [(patch, model)]
        if projected.patches:
            scores = [bench.score(network, "trained")]
        for name, whole in projected.patches.items():
            start = whole.install(bench.backbone(), fill)
            start.eval()
            networks = {0: start}
            if finetune_steps:
                tuned = bench.finetune(whole.install(bench.backbone(), fill), name, finetune_steps)
                if tuned is None:
                    notices.append(f"{name}: fine-tuning diverged and was left out.")
                else:
                    networks[finetune_steps] = tuned
            for steps, network_ in networks.items():
                tried.append((whole, network_))
                scores.append(bench.score(network_, name, steps))
        if len(scores) > 1:
            best = max(range(1, len(scores)), key=lambda i: merit(scores[i].val, run.direction))
        patch, model = tried[best]
    scores[best] = replace(scores[best], chosen=True)
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
        data.input_shape,
        scores,
        notices=notices,
    )
    _clear(directory)
    try:
        checkpoint.save(model.cpu().state_dict(), directory / "model.pt")
        write_whole(directory / "patch.json", json.dumps(patch.to_json(), indent=1) + "\n")
        found.forms = _forms(directory, reference.cpu(), bench, formats, say)
    except OSError as error:
        raise RunDirectoryError(f"{directory}: cannot be written: {error.strerror or error}.") from error
    write_whole(directory / "export.json", json.dumps(found.to_json(), indent=1) + "\n")
    return found


def _check(integer: bool, finetune_steps: int, formats: Sequence[str]) -> None:
    for name in formats:
        if name not in FORMATS:
            raise RequestError(f"unknown format {name!r}.{nearest(name, FORMATS)}")
    if finetune_steps < 0:
        raise RequestError(f"--finetune is a number of optimiser steps, 0 or more. Got {finetune_steps}.")
    if finetune_steps and not integer:
        raise RequestError("--finetune trains what --integer has made of the winner. Give --integer too, or neither.")
    if tuple(formats) == ("onnx",) and (said := _onnx_missing()):
        raise RequestError(said)


def _record(run: Run, trial: str | None) -> Record:
    """The record of a trial, or of the one that leads so far."""
    records, run_dir = run.records, run.directory
    if trial:
        named = next((record for record in records if record.trial == trial), None)
        if named is None:
            raise RunDirectoryError(
                f"{run_dir}: no trial {trial!r} has finished.{nearest(trial, [r.trial for r in records])}"
            )
        return named
    if (best := incumbent(records, run.direction)) is None:
        raise RunDirectoryError(f"{run_dir}: no trial was scored, so there is no winner to export.")
    return best


def _of_the_run(run: Run, space: Space) -> list[str]:
    """What a reader must know of the run, a sentence each."""
    said = []
    if run.running:
        said.append(f"The run is still running ({run.running}): this is its leader so far.")
    network = sound(run.manifest.network)
    if network and (changed := edited(network.sources, sources_of(space.backbone))):
        said.append(
            f"{', '.join(changed)} has changed since the run started. The weights fit, but what it computes may differ."
        )
    return said


def _data(
    space: Space, then: DataFacts, image_size: tuple[int, int], folder: str | None, cache: Path
) -> tuple[ImageSet, list[str]]:
    """Read the run's images, and return them with what a reader must know of them."""
    then_classes, then_fingerprint, then_folder = sound(then.classes), sound(then.fingerprint), sound(then.folder)
    try:
        data = load_data(space, folder or then_folder, cache)
    except DataError as error:
        hint = "" if folder else " If the images have moved, say where to with --data."
        raise DataError(f"{error}{hint}") from error
    expected, got = (
        (then_classes, image_size),
        (data.classes, data.image_size),
    )
    if got != expected:
        (classes, (height, width)), (other, (h, w)) = expected, got
        raise DataError(
            f"{folder or data.name}: the run's images are {height} x {width} px (H x W) in {len(classes)} classes "
            f"({', '.join(classes)}). Got {h} x {w} px, {len(other)} classes ({', '.join(other)})."
        )
    if data.fingerprint() != then_fingerprint:
        return data, ["These are not the images of the run: what is scored here does not compare with its scores."]
    return data, []


def patch_of(space: Space, classes: tuple[str, ...], record: Record) -> Patch:
    """What the trial's network had become."""
    candidate, outcome = Candidate.from_json(record.candidate), Candidate.from_json(record.outcome)
    started, bounds = dict(candidate), {"f": space.f_bounds, "gamma": space.sampling.bounds}

    def within(path: str, choice: Choice) -> Choice:
        """Return what training moved within its bounds, which single precision may miss by its rounding."""
        return choice.within(bounds) if started[path].choice.moves else choice

    recipe = space.recipe
    settings = PatchSettings(
        f_bounds=space.f_bounds,
        normalisation=recipe.normalisation,
        border=recipe.border,
        guidance_weight=recipe.guidance_weight,
        f_background=recipe.f_background,
        sampling=space.sampling,
        dilations=space.dilations if any(path.choice.tells_when_installed for _, path in candidate) else (),
    )
    return Patch(space.backbone, classes, outcome.changed(within), settings)


class _Bench:
    """Scores networks on the run's images and trains them on."""

    def __init__(self, space: Space, data: ImageSet, device: torch.device, say: Callable[[str], None]) -> None:
        self._space, self._data, self._device, self._say = space, data, device, say
        self.task = task_of(space, data)

    def backbone(self) -> nn.Module:
        """The space's network, fresh."""
        network = fresh_backbone(self._space, self.task)
        give_sizes(network, self._data.input_shape)
        return network

    def images(self) -> Tensor:
        """Up to 8 real images, of the test split where there is one: B x C x H x W as in training."""
        splits = self._data.splits
        return normalised_images(splits.get("test", splits["val"]).some(_COMPARED))

    def field_px(self, model: nn.Module) -> int:
        """Receptive field of a unit of the output, px: what it reads by itself where it also sees the whole image."""
        read = receptive_field(model, self._data.input_shape)
        return read.local_px or read.px

    def rooms(self) -> dict[str, Room]:
        """What every site of the space has room for."""
        model, rooms = self.backbone(), {}
        for site in measure_sites(model, self._space.sites, self._data.image_size, self._data.in_channels):
            conv = lone_convolution(model, site.path)
            span = min(site.map_size) - self._space.sampling.kernel
            rooms[site.path] = Room(site.largest_dilation, span, _channels(conv) if conv is not None else 0)
        return rooms

    def score(self, model: nn.Module, name: str, steps: int = 0) -> Scored:
        splits, found = self._data.splits, []
        model.to(self._device)
        model.eval()
        for split in ("val", "test"):
            if split in splits:
                tuned = f" after {steps} steps" if steps else ""
                self._say(f"Scoring the {name} network{tuned} on {len(splits[split])} {split} images ...")
                batch = self._space.recipe.eval_batch_size
                found.append(self.task.evaluate(model, splits[split], batch, self._device).primary)
        return Scored(name, steps, found[0], found[1] if len(found) > 1 else None)

    def finetune(self, model: nn.Module, name: str, steps: int) -> nn.Module | None:
        """The network, trained on by the space's recipe at a tenth of its rate; None where the loss is no number."""
        self._say(f"Fine-tuning the {name} network for {steps} steps ...")
        recipe = self._space.recipe
        torch.manual_seed(0)
        model.to(self._device)
        if not model.training:
            model.train()
        batches = training_batches(recipe, self._data, self.task, 0, self._device)
        tuning = tuning_recipe(recipe, steps)
        optimisation = Optimisation(model, self.task, tuning, self._space.weights != "none")
        for step in range(steps):
            optimisation.set_rates(step)
            optimisation.clear()
            loss = optimisation.find_gradients(*batches.at(step))
            optimisation.move()
        model.eval()
        return model if math.isfinite(loss.item()) else None


def take_weights(source: nn.Module, target: nn.Module) -> None:
    """Copy all weights between two forms of one network that differ only in dilations and inflation, in place.

    Raises ModelError where they differ in more.
    """
    given, taken = list(_weights(source)), list(_weights(target))
    shapes, wanted = ([tuple(tensor.shape) for tensor in found] for found in (given, taken))
    if shapes != wanted:
        raise ModelError(f"These are not two forms of one network: {len(given)} and {len(taken)} tensors of their own.")
    with torch.no_grad():
        for old, new in zip(given, taken, strict=True):
            new.copy_(old)
    for left, right in zip(_telling(source), _telling(target), strict=True):
        right.set_extra_state(left.get_extra_state())


def _weights(model: nn.Module) -> Iterator[Tensor]:
    """All that a state dict holds but for f, gamma and dilations, in the order of the modules."""
    for module in model.modules():
        if not isinstance(module, InflationFactor | SampleStride):
            dilation = {"log_dilation", "bounds"} if isinstance(module, FractionalConv2d) else {DILATION}
            for name, tensor in chain(module._parameters.items(), module._buffers.items()):
                if tensor is not None and name not in dilation | module._non_persistent_buffers_set:
                    yield tensor


def _telling(model: nn.Module) -> list[nn.Module]:
    """The modules that keep more in a state dict than tensors of their own."""
    plain = nn.Module.get_extra_state
    return [module for module in model.modules() if type(module).get_extra_state is not plain]


def _channels(conv: nn.Module) -> int:
    """Output channels of a convolution that can be split between two dilations, 0 where they cannot."""
    try:
        split = SplitSite(conv, 1 + max(conv.dilation), 1)  # type: ignore[arg-type]
    except SpaceError:
        return 0
    return split.near.out_channels + split.far.out_channels


class _Logits(nn.Module):
    """Return a network's logits themselves, and nothing around them.

    In the network, which it takes over, f and gamma become plain numbers: what is traced then has maps of known sizes.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        model.eval()
        self.network = model.requires_grad_(False)
        for module in self.network.modules():
            if isinstance(module, Inflation | Interpolation):
                module.factor = _Constant(f=float(module.factor.f))  # type: ignore[assignment]
            elif isinstance(module, LSDFN):
                module.stride = _Constant(gamma=float(module.stride.gamma))  # type: ignore[assignment]

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = main_output(self.network(image))
        return logits


class _Constant(nn.Module):
    """Numbers in the place of a module with parameters of these names."""

    def __init__(self, **numbers: float) -> None:
        super().__init__()
        for name, number in numbers.items():
            setattr(self, name, number)


def _forms(
    directory: Path, model: nn.Module, bench: _Bench, formats: Sequence[str], say: Callable[[str], None]
) -> list[Form]:
    """Write the model in every form asked for, and hold each against it on real images."""
    images = bench.images()
    logits = _Logits(model)
    with torch.no_grad():
        expected = logits(images)
    again = Patch.read(directory / "patch.json").install(bench.backbone())
    again.load_state_dict(torch.load(directory / "model.pt", weights_only=True))
    forms = [_compared("state dict", "model.pt", None, _Logits(again), images, expected)]
    if not formats:
        return forms
    say("Tracing the network with torch.export ...")
    try:
        program, batch = _traced(logits, images[:1])
    except Exception as error:
        said = f"torch.export does not take this network: {_brief(error)}"
        return [*forms, *(Form(name, None, said=said, failed=True) for name in formats)]
    if "program" in formats:
        checkpoint.write(directory / "model.pt2", partial(torch.export.save, program))
        loaded = torch.export.load(directory / "model.pt2").module()
        forms.append(_compared("program", "model.pt2", batch, loaded, images, expected))
    if "onnx" in formats:
        forms.append(_onnx(directory / "model.onnx", program, batch, images, expected, say))
    return forms


def _traced(network: nn.Module, image: Tensor) -> tuple[torch.export.ExportedProgram, int | None]:
    """A network as a program, and how many images at a time it takes: None for any number, where that can be."""
    with _quiet():
        if any(isinstance(module, LSDFN) for module in network.modules()):  # its work is cut up by the batch's size
            return torch.export.export(network, (image,), strict=False), 1
        try:
            dynamic = ({0: torch.export.Dim("batch")},)
            return torch.export.export(network, (torch.cat([image] * 2),), dynamic_shapes=dynamic, strict=False), None
        except Exception:
            return torch.export.export(network, (image,), strict=False), 1


def _onnx(
    file: Path,
    program: torch.export.ExportedProgram,
    batch: int | None,
    images: Tensor,
    expected: Tensor,
    say: Callable[[str], None],
) -> Form:
    if said := _onnx_missing():
        return Form("onnx", None, said=said)
    say("Translating it to ONNX ...")
    size = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    try:
        with _quiet():
            made = torch.onnx.export(
                program, dynamo=True, verbose=False, input_names=["image"], output_names=["logits"]
            )
            assert made is not None
            made.save(file, external_data=size > _EXTERNAL_BYTES)
    except OSError:
        raise
    except Exception as error:
        return Form("onnx", None, said=f"torch.onnx does not take this network: {_brief(error)}", failed=True)
    if importlib.util.find_spec("onnxruntime") is None:
        said = "Not compared: onnxruntime is not installed. Get it with: pip install onnxruntime"
        return Form("onnx", file.name, batch, said=said)
    onnxruntime = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"image": image.numpy()})[0])

    return _compared("onnx", file.name, batch, run, images, expected)


def _compared(
    name: str, file: str, batch: int | None, run: Callable[[Tensor], Tensor], images: Tensor, expected: Tensor
) -> Form:
    """A form that was written, with its distance from the network's own logits on some images."""
    with torch.no_grad():
        got = torch.cat([run(some) for some in images.split(batch or len(images))])
    difference = float((got - expected).abs().max())
    said = ""
    if not difference <= TOLERANCE:  # nor if it is no number
        said = f"{file} differs from the network by {difference:.3g} in its logits; at most {TOLERANCE:g} is allowed."
    return Form(name, file, batch, difference, said, failed=bool(said))


def _onnx_missing() -> str:
    """What to do for ONNX, or "" where it can be written."""
    missing = [package for package in ("onnx", "onnxscript") if importlib.util.find_spec(package) is None]
    if not missing:
        return ""
    return f"No ONNX: {' and '.join(missing)} not installed. Get it with: pip install {' '.join(missing)}"


def _clear(directory: Path) -> None:
    """Make a folder ready: what an earlier export left there would not go with what comes."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            (directory / name).unlink(missing_ok=True)
    except OSError as error:
        raise RunDirectoryError(f"{directory}: cannot be written: {error.strerror}. Choose another --out.") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No chatter of exporters, whose failures are told in our words."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"[:300]
