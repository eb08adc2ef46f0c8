"""The manifest of a run: what was asked for, what it means, and what it runs on. One writer, one reader.

Manifests of earlier versions stay readable: what they do not say has a default. A part that is damaged is reported
when it is needed and not before, so that a report makes do with the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from rfsearch.direction import Direction
from rfsearch.errors import RunDirectoryError, closest
from rfsearch.ledger.budget import Budget, Currency
from rfsearch.ledger.files import read_json, write_whole
from rfsearch.ledger.record import Cost
from rfsearch.ledger.request import Request
from rfsearch.ledger.schema import SCHEMA
from rfsearch.ledger.typed_json import Kept, known, read_parts, sound
from rfsearch.space import SINGLE, OwnSpace, Space
from rfsearch.storage import name_of

MANIFEST_FILE = "manifest.json"
_NAMED = 5  # runs at most, where one is not found

_RECORDED_BY_MISTAKE = ("rfsearch", "own_loop", "planning.py")

Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class ArmName:
    """Name one arm of a run.

    Attributes:
        strategy: Label of its strategy.
        seed: Its seed.
    """

    strategy: str
    seed: int


@dataclass(frozen=True)
class Network:
    """Identify the network that a run trains, and the user's code that decides what trials score.

    Attributes:
        tensors: Digest of the names and shapes in its state dict, as its backbone makes it.
        parameters: Their number, likewise.
        sources: SHA-256 of the user's files that make it, by path.
        layers: SHA-256 of the user's files of layers that trials put into it, as far as they are known beforehand.
        code: SHA-256 of the user's files of the task, the metric and the layouts, by what they make and by path.
    """

    tensors: str
    parameters: int
    sources: Mapping[str, str]
    layers: Mapping[str, str] = field(default_factory=dict)
    code: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def users_files(self) -> Mapping[str, str]:
        """Its sources, without the file of rfsearch's that stands there in runs of earlier versions.

        They recorded it in the place of the file in which a model that was passed as a function is written.
        """
        return {path: sha for path, sha in self.sources.items() if Path(path).parts[-3:] != _RECORDED_BY_MISTAKE}


@dataclass(frozen=True, kw_only=True)
class SpaceFacts:
    """Tell what the space of a run is, in short.

    Attributes:
        name: Name of the space.
        title: Its title.
        cite: The paper it is from.
        preset: Its preset.
        metric: Its metric.
        backbone: SPEC of its network.
        primary: Name of the score that the search goes by, its averaging in the name.
        direction: Whether a higher or a lower score is the better one.
        in_channels: Channels of the images.
        out_channels: Channels of the network's output; None in a run of an earlier version, where they are the classes.
        sites: Module names.
        dilations: What a site may get.
        f_bounds: Bounds of a learned f.
        form: What a site gets.
        gamma_bounds: Bounds of a learned sample stride.
        reference: The hand default, as JSON, or its dilation.
        image_size: H x W, in px.
        costs: What the search goes by beside the score, fields of a record.
    """

    name: Kept[str]
    title: Kept[str]
    cite: Kept[str]
    preset: Kept[str]
    metric: Kept[str | None]
    backbone: Kept[str]
    primary: Kept[str]
    sites: Kept[tuple[str, ...]]
    dilations: Kept[tuple[int, ...]]
    f_bounds: Kept[tuple[Positive, Positive]]
    form: Kept[str] = SINGLE
    gamma_bounds: Kept[tuple[Positive, Positive]] = (0.25, 16.0)
    reference: Kept[str | int]
    image_size: Kept[tuple[int, int]]
    direction: Kept[Direction] = "maximize"
    in_channels: Kept[int] = 3
    out_channels: Kept[int | None] = None
    costs: Kept[tuple[str, ...]] = ()


@dataclass(frozen=True)
class BudgetFacts:
    """Tell what each arm may spend.

    Attributes:
        text: As it was asked for.
        currency: What is counted.
        limit: How much of it.
        reference_flop: Training FLOP of one full training of the reference candidate: what 1x means.
        full_training: Cost of that training with its evaluations, if the run recorded it.
    """

    text: Kept[str]
    currency: Kept[Currency]
    limit: Kept[Positive]
    reference_flop: Kept[Positive]
    full_training: Kept[Cost | None] = None

    @property
    def of_an_arm(self) -> Budget:
        """The budget.

        Raises:
            RunDirectoryError: It is damaged.
        """
        return Budget(sound(self.text), sound(self.currency), sound(self.limit))


@dataclass(frozen=True)
class DataFacts:
    """Identify the data of a run.

    Attributes:
        name: Name of the set.
        summary: What it is, in a line.
        rendered: Whether the images are drawings.
        notice: What a reader must know of it; empty where that is nothing.
        classes: Names of its classes.
        fingerprint: Digest of every image and label.
        folder: Where it was read from; None for an embedded set.
        splits: Number of images of each split.
        noun: What is called an object in it, in the singular.
    """

    name: Kept[str]
    summary: Kept[str]
    rendered: Kept[bool]
    notice: Kept[str]
    classes: Kept[tuple[str, ...]]
    fingerprint: Kept[str]
    folder: Kept[str | None]
    splits: Kept[dict[str, int]]
    noun: Kept[str] = "object"


@dataclass(frozen=True, kw_only=True)
class PlannedCandidate:
    """Tell what is known of a candidate before anything is trained.

    Attributes:
        candidate: The candidate, as JSON.
        rf_px: Its receptive field, in px.
        share: That as a share of the longer side of an image.
        flop: Training FLOP of its full training.
        seconds: Seconds that it takes one worker.
        peak_bytes: Peak memory of it, in bytes.
        alike: Other candidates, as JSON, whose receptive fields cannot be told apart from this one's at the images'
            size.
        path_rf_px: Receptive field of each path, in px, where paths are parallel.
        objects: float of the training images' objects that are no longer than the receptive field.
    """

    candidate: str
    alike: tuple[str, ...] = ()
    rf_px: int
    path_rf_px: Mapping[str, int] = field(default_factory=dict)
    share: float
    objects: float | None = None
    flop: float
    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Machine:
    """Describe a machine.

    Attributes:
        cpu: Name of its processor.
        cores: Number of its cores that this process may use.
        memory_bytes: Its memory, in bytes, if it is known.
        device: What trials train on.
        system: Operating system and architecture.
    """

    cpu: str = ""
    cores: int | None = None
    memory_bytes: int | None = None
    device: str = ""
    system: str = ""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Hold everything that is needed to read, repeat or resume a run, beside its ledger.

    Attributes:
        schema: Version of the run's files.
        command: The command that started it.
        started: When, UTC in ISO format.
        request: What was asked for.
        resolved_space: The space that it means, fitted to its network and data.
        space: That space in short.
        network: The network, if the run recorded it.
        arms: The run's arms, in their order.
        budget: What each of them may spend.
        data: The data.
        forecast: What was known of the first candidates.
        flop_per_s: Rate of one worker.
        notices: What a reader must know, one sentence each.
        versions: Versions of Python and of the packages that decide what a run computes.
        machine: The machine.
        workers: Number of trials at a time.

    Example:
        manifest = read_manifest(Path("runs/mine"))
        sound(manifest.request).strategies  # RunDirectoryError where the request is damaged
        known(manifest.space.title, "")  # empty where the title is damaged
    """

    schema: Kept[int]
    command: Kept[str]
    started: Kept[str]
    request: Kept[Request]
    resolved_space: Kept[Space | OwnSpace]
    space: SpaceFacts
    network: Kept[Network | None] = None
    arms: Kept[tuple[ArmName, ...]]
    budget: BudgetFacts
    data: DataFacts
    forecast: Kept[tuple[PlannedCandidate, ...]]
    flop_per_s: Kept[Positive]
    notices: Kept[tuple[str, ...]]
    versions: Kept[dict[str, str]]
    machine: Kept[Machine]
    workers: Kept[int]

    @property
    def files(self) -> list[str]:
        """The paths of the user's files that trials run, as they were at the start."""
        network = known(self.network, None)
        if network is None:
            return []
        return [path for files in (network.users_files, network.layers, *network.code.values()) for path in files]

    @property
    def has_own_trainings(self) -> bool:
        """Whether the trainings were its user's own."""
        return isinstance(self.resolved_space, OwnSpace)

    @property
    def image_space(self) -> Space:
        """The space of a run of built-in trainings on images.

        Raises:
            RunDirectoryError: It is damaged, or the trainings were its user's own.
        """
        space = sound(self.resolved_space)
        if isinstance(space, Space):
            return space
        raise RunDirectoryError(
            "this run's trainings were your own: rfsearch has neither its images nor its score. Build the winner in "
            "your code: rfsearch.apply(model, patch), with patch.json and model.pt from rfsearch export RUN."
        )

    def to_json(self) -> str:
        """Return the text of the file."""
        return json.dumps(asdict(self), indent=1, default=_plain)


def _plain(value: object) -> Any:
    """Return as JSON what is no dataclass."""
    assert isinstance(value, BaseModel)
    return value.model_dump(mode="json")


def write_manifest(run_dir: Path, manifest: Manifest) -> None:
    """Write the manifest of a run, so that a reader finds a whole one."""
    write_whole(run_dir / MANIFEST_FILE, manifest.to_json())


def read_manifest(run_dir: Path) -> Manifest:
    """Read the manifest of a run.

    Raises:
        RunDirectoryError: There is none, or it is no JSON object. Damaged parts are reported where they are needed.
    """
    path = run_dir / MANIFEST_FILE
    try:
        body = read_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise RunDirectoryError(_why_no_run(run_dir)) from None
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{path}: cannot be read: {error}.") from error
    if not isinstance(body, dict):
        raise RunDirectoryError(f"{path}: a manifest is a JSON object. Got a {type(body).__name__}.")
    schema = body.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise RunDirectoryError(
            f"{path}: written by a newer rfsearch (schema {schema}; this one reads up to {SCHEMA})."
        )
    _give_border(body)
    return read_parts(Manifest, body, path)


def _why_no_run(run_dir: Path) -> str:
    """Say why no run can be read from a directory, and which runs beside a missing one there are."""
    if run_dir.exists():
        return f"{name_of(run_dir)}: not a run: it has no {MANIFEST_FILE}."
    names = sorted(path.parent.name for path in run_dir.parent.glob(f"*/{MANIFEST_FILE}"))
    if close := closest(run_dir.name, names):
        return f"{run_dir}: does not exist. Did you mean {str(run_dir.with_name(close))!r}?"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{run_dir}: does not exist. Runs in {run_dir.parent}: {', '.join(names[:_NAMED]) or 'none'}{more}."


def _give_border(body: dict[str, Any]) -> None:
    """Give a run from before maps had a choice of borders the one that it was trained with, the paper's."""
    space = body.get("resolved_space")
    recipe = space.get("recipe") if isinstance(space, dict) else None
    if isinstance(recipe, dict):
        recipe.setdefault("border", "paper")
