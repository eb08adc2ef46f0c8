"""A space: model, sites, choices, task and training recipe, read from a TOML file and checked whole.

All faults of a file are reported at once, each with its line.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rfsearch.errors import SpaceError, nearest
from rfsearch.space.choice import Candidate, Choice


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSpec(_Frozen):
    """Where images come from. default: the embedded set used without --data, or None where --data is needed.

    layout: how a --data folder is laid out. classes: in order of id; empty: the folder's classes.txt, else its labels.
    rendered: number of images per split of the embedded set.
    """

    default: Literal["rendered-faces"] | None = None
    layout: Literal["helen", "folder"] = "folder"
    classes: tuple[str, ...] = ()
    ignore_index: int | None = Field(default=None, ge=0, le=255)
    flip_pairs: tuple[tuple[int, int], ...] = ()
    rendered: tuple[int, int, int] = (512, 128, 128)


class Recipe(_Frozen):
    """How every candidate of the space is trained: what may not vary between them.

    steps, batch_size: length of one full training. class_weights: of the loss, none, or each class's pixels weighted by
    the inverse square root of their share of the training split, so that small parts are not drowned.
    lr, momentum, weight_decay: stochastic gradient descent with the rate lr (1 - step / steps)^power after `warmup`
    steps of linear growth; weights a backbone brings trained get lr x pretrained_lr_multiplier.
    f_lr_multiplier: rate of a learned f over lr, without weight decay; f_delay: share of the training before f may move
    (Wei sec. 5.1). normalisation: of f's gradient, exact or the paper's (Wei eq. 10-11). rungs: validations on the way,
    on rung_images of the validation split. Augmentation: flip, scale range, shift as a share of the side, brightness
    and contrast as +- shares.
    """

    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    class_weights: Literal["none", "sqrt"] = "none"
    lr: float = Field(gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    power: float = Field(default=0.9, ge=0)
    warmup: int = Field(default=0, ge=0)
    pretrained_lr_multiplier: float = Field(default=1.0, gt=0)
    f_lr_multiplier: float = Field(default=1.0, gt=0)
    f_delay: float = Field(default=0.0, ge=0, lt=1)
    normalisation: Literal["exact", "paper"] = "exact"
    rungs: int = Field(default=3, ge=0)
    rung_images: int = Field(default=64, gt=0)
    eval_batch_size: int = Field(default=16, gt=0)
    flip: bool = True
    scale: tuple[float, float] = (1.0, 1.0)
    shift: float = Field(default=0.0, ge=0, lt=1)
    brightness: float = Field(default=0.0, ge=0, lt=1)
    contrast: float = Field(default=0.0, ge=0, lt=1)

    def rung_steps(self) -> tuple[int, ...]:
        """The steps after which a training is looked at, its last one included."""
        return tuple(sorted({round(self.steps * i / (self.rungs + 1)) for i in range(1, self.rungs + 2)} - {0}))


class Preset(_Frozen):
    """One size of a space. See `Space` for the fields."""

    backbone: str
    weights: str = "none"
    sites: tuple[str, ...] = Field(min_length=1)
    dilations: tuple[int, ...] = Field(min_length=1)
    reference: int
    f_bounds: tuple[float, float] = (0.25, 4.0)
    f_search: tuple[float, float] = (0.7, 1.4)
    image_size: tuple[int, int] | None = None
    budget: str
    recipe: Recipe

    @model_validator(mode="after")
    def _consistent(self) -> Preset:
        if any(d < 1 for d in self.dilations) or len(set(self.dilations)) != len(self.dilations):
            raise ValueError("dilations are different integers of at least 1")
        if self.reference not in self.dilations:
            raise ValueError(f"reference {self.reference} is none of the dilations {list(self.dilations)}")
        for name, (low, high) in (("f_bounds", self.f_bounds), ("f_search", self.f_search)):
            if not 0 < low <= 1 <= high:
                raise ValueError(f"{name} = [low, high] needs 0 < low <= 1 <= high")
        if not self.f_bounds[0] <= self.f_search[0] <= self.f_search[1] <= self.f_bounds[1]:
            raise ValueError(f"f_search {list(self.f_search)} lies within f_bounds {list(self.f_bounds)}")
        return self


class SpaceFile(_Frozen):
    """A whole space file."""

    name: str
    title: str
    cite: str = ""
    task: str = "segmentation"
    metric: str
    data: DataSpec
    default_preset: str = "mini"
    presets: dict[str, Preset] = Field(min_length=1)


class Space(_Frozen):
    """What may vary in a search, and what must not: one preset of a space file, resolved.

    backbone: SPEC of the network. weights: "none", "hub" or a path, for a backbone that can take trained weights.
    sites: module paths whose receptive field is searched. dilations: what a site may get, and where learned factors
    start. reference: the hand default, whose one full training is the budget unit 1x. f_bounds: of a learned f;
    f_search: of a fixed real f in Bayesian and random search. image_size: H x W in px, None: as the data has it.
    """

    name: str
    title: str
    cite: str
    source: str
    preset: str
    task: str
    metric: str
    data: DataSpec
    backbone: str
    weights: str
    sites: tuple[str, ...]
    dilations: tuple[int, ...]
    reference: int
    f_bounds: tuple[float, float]
    f_search: tuple[float, float]
    image_size: tuple[int, int] | None
    budget: str
    recipe: Recipe

    def uniform(self, choice: Choice) -> Candidate:
        """The candidate that gives every site the same choice."""
        return Candidate.of(dict.fromkeys(self.sites, choice))

    @property
    def reference_candidate(self) -> Candidate:
        return self.uniform(Choice(self.reference))

    def with_(self, **changes: Any) -> Space:
        """The same space with some fields replaced."""
        return self.model_copy(update={key: value for key, value in changes.items() if value is not None})


def read_space(path: Path, preset: str | None) -> Space:
    """Read one preset (the file's default one for None) of a space file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError(f"{path}: cannot be read: {error}.") from error
    try:
        body = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpaceError(f"{path}: not valid TOML: {error}.") from error
    try:
        file = SpaceFile.model_validate(body)
    except ValidationError as error:
        faults = "\n".join(f"  {_fault(text, fault)}" for fault in error.errors())
        raise SpaceError(f"{path}: {error.error_count()} fault(s):\n{faults}") from error
    wanted = preset or file.default_preset
    if wanted not in file.presets:
        raise SpaceError(f"space {file.name!r} has no preset {wanted!r}.{nearest(wanted, file.presets)}")
    shared = file.model_dump(include={"name", "title", "cite", "task", "metric"})
    chosen = file.presets[wanted]
    return Space(
        **shared,
        source=str(path),
        preset=wanted,
        data=file.data,
        **{k: getattr(chosen, k) for k in Preset.model_fields},
    )


def _fault(text: str, fault: Any) -> str:
    """One validation fault as `line N, key: what`."""
    keys = [str(part) for part in fault["loc"]]
    message = fault["msg"].removeprefix("Value error, ")
    return f"line {_line_of(text, keys)}, {'.'.join(keys) or 'file'}: {message}"


def _line_of(text: str, keys: list[str]) -> int:
    """The line that sets a key: the deepest part of its path that stands in the file under its own table."""
    best, table = 1, ""
    wanted = [".".join(keys[:depth]) for depth in range(1, len(keys) + 1)]
    for number, line in enumerate(text.splitlines(), start=1):
        if head := re.match(r"\s*\[([^\[\]]+)\]", line):
            table = head[1].strip()
            path = table
        elif pair := re.match(r"\s*([\w-]+)\s*=", line):
            path = f"{table}.{pair[1]}" if table else pair[1]
        else:
            continue
        if path in wanted:
            best = number
    return best
