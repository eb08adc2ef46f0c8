"""A space: model, sites, choices, task and training recipe, read from a TOML file and checked whole.

All faults of a file are reported at once, each with its line.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from rfsearch.errors import SpaceError, nearest
from rfsearch.space.choice import Candidate, Choice, Sampling

SINGLE, LSDFN = "single", "lsdfn"
STEM = "{stem}"  # in a pattern of file names: what an image and its label have in common

_Byte = Annotated[int, Field(ge=0, le=255)]
_Colour = tuple[_Byte, _Byte, _Byte]

_LARGEST_CLASS = 255  # that a byte per pixel holds
_LARGEST_ID = 65_535  # that labels of 16 bits hold


def _as_stored_id(key: Any) -> Any:
    """A key of the map of ids: TOML and JSON write numbers as text there."""
    number = int(key) if isinstance(key, str) and key.isascii() and key.isdecimal() and len(key) < 9 else key
    if key == "other" or (isinstance(number, int) and 0 <= number <= _LARGEST_ID):
        return number
    raise ValueError(
        f"a key is an id that the labels hold, at least 0 and less than or equal to {_LARGEST_ID}, or `other` for all "
        f"ids that are not listed. Got {key!r}"
    )


def _as_class_id(value: Any) -> Any:
    """A value of the map of ids."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST_CLASS:
        return value
    raise ValueError(
        f"a value is the id of a class, a whole number of at least 0 and less than or equal to {_LARGEST_CLASS}. "
        f"Got {value!r}"
    )


_StoredId = Annotated[int | Literal["other"], BeforeValidator(_as_stored_id)]
_ClassId = Annotated[int, BeforeValidator(_as_class_id)]


def _as_several(colours: Any) -> Any:
    """A single [red, green, blue] as a row of colours."""
    single = isinstance(colours, (list, tuple)) and colours and not isinstance(colours[0], (list, tuple))
    return [colours] if single else colours


# Bounds against slips of the keyboard, far beyond what any training has used: without them such a number ends as a hang
# or as a process without memory, long after the file was read.
_MOST_STEPS = 10**9
_MOST_IMAGES = 10**6  # at a time, or drawn
_LONGEST_SIDE = 2**15  # px
_MOST_RUNGS = 10**4
_MOST_CHANNELS = 2**16
_WIDEST = 2**10  # taps or regions of an axis
_FARTHEST = 2**15  # px: dilations and sample strides
_LARGEST_FACTOR = 2.0**10  # of f, and of zooming images


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_Count = Annotated[int, Field(ge=0, le=_MOST_IMAGES)]
_Side = Annotated[int, Field(ge=1, le=_LONGEST_SIDE)]
_Dilation = Annotated[int, Field(ge=1, le=_FARTHEST)]


class DataSpec(_Frozen):
    """Where images come from. default: the embedded set used without --data, or None where --data is needed.

    layout: how a --data folder is laid out. classes: in order of id; empty: the folder's classes.txt, else the names of
    `colours`, else its labels. ignore_index: of pixels without a class, after `map`. rendered: number of images per
    split of the embedded set. resize: how images of another shape are brought to the size: "stretch" distorts them,
    "crop" keeps the centre, "pad" adds ignored pixels. white: the value of grey images of more than 8 bits that is
    white; left out: their type's largest, 1 of floats. max_pixels: images of more are refused; left out: 178,956,970.
    Of the layout folder alone: images, labels: how files are named, such as "{stem}_mask.png", without an ending for
    any. map: class id of each id in the labels, of all others as `other`. colours: of each class by name, one [red,
    green, blue] or several, for labels that hold colours; those of `ignore` have no class. colour_match: other colours
    are a fault ("exact") or taken for the nearest ("nearest"). resize_labels: labels of another size than their image
    are resized.
    """

    default: Literal["rendered-faces"] | None = None
    layout: Literal["helen", "voc", "folder"] = "folder"
    classes: tuple[str, ...] = ()
    ignore_index: int | None = Field(default=None, ge=0, le=255)
    flip_pairs: tuple[tuple[int, int], ...] = ()
    rendered: tuple[_Count, _Count, _Count] = (512, 128, 128)
    resize: Literal["stretch", "crop", "pad"] = "stretch"
    white: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    max_pixels: int | None = Field(default=None, gt=0)
    images: str = STEM
    labels: str = STEM
    map: dict[_StoredId, _ClassId] = {}
    colours: dict[str, Annotated[tuple[_Colour, ...], BeforeValidator(_as_several)]] = {}
    colour_match: Literal["exact", "nearest"] = "exact"
    resize_labels: bool = False

    @field_validator("images", "labels", "map", "colours", "colour_match", "resize_labels")
    @classmethod
    def _of_folders(cls, value: Any, info: ValidationInfo) -> Any:
        layout = info.data.get("layout", "folder")
        if layout != "folder" and value != cls.model_fields[str(info.field_name)].default:
            raise ValueError(f"only the layout folder reads this: the labels of {layout} have a form of their own")
        return value

    @field_validator("images", "labels")
    @classmethod
    def _pattern(cls, value: str) -> str:
        if value.count(STEM) != 1 or "/" in value or "\\" in value:
            raise ValueError(f'a file\'s name that holds {STEM} once, without a folder, such as "{STEM}_mask.png"')
        return value

    @field_validator("resize")
    @classmethod
    def _room_for_padding(cls, value: str, info: ValidationInfo) -> str:
        if value == "pad" and info.data.get("layout") == "folder" and info.data.get("ignore_index") is None:
            raise ValueError(
                "padded pixels have no class: set ignore_index too, to an id that is no class, such as 255"
            )
        return value

    @field_validator("map")
    @classmethod
    def _known_ids(cls, value: dict[int | str, int], info: ValidationInfo) -> dict[int | str, int]:
        count, ignored = len(info.data.get("classes", ())), info.data.get("ignore_index")
        outside = sorted({k for k in value.values() if count <= k != ignored}) if count else []
        if outside:
            raise ValueError(f"class ids are 0..{count - 1} and the ignore_index. Got {', '.join(map(str, outside))}")
        return value

    @field_validator("colours")
    @classmethod
    def _known_colours(cls, value: dict[str, tuple[_Colour, ...]], info: ValidationInfo) -> Any:
        classes = info.data.get("classes", ())
        unknown = [name for name in value if classes and name not in (*classes, "ignore")]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no class.{nearest(unknown[0], (*classes, 'ignore'))}")
        if value and info.data.get("map"):
            raise ValueError("labels hold ids or colours: give a map or colours")
        several = [colour for listed in value.values() for colour in listed]
        if twice := [list(colour) for colour in dict.fromkeys(several) if several.count(colour) > 1]:
            raise ValueError(f"each colour stands for one class. Given twice: {', '.join(map(str, twice))}")
        return value


class Recipe(_Frozen):
    """How every candidate of the space is trained: what may not vary between them.

    steps, batch_size: length of one full training. class_weights: of the loss, none, or each class's pixels weighted by
    the inverse square root of their share of the training split, so that small parts are not drowned.
    lr, momentum, weight_decay: stochastic gradient descent with the rate lr (1 - step / steps)^power after `warmup`
    steps of linear growth, and x lr_drop after each of lr_steps, shares of the training; weights a backbone brings
    trained get lr x pretrained_lr_multiplier.
    For a learned f or gamma (Wei sec. 4.2 and 5.1): f_lr_multiplier, gamma_lr_multiplier: its rate over lr, without
    weight decay; f_delay: share of the training before it may move; f_clip: largest size of its gradient, none if left
    out; f_background: what a background pixel counts in f's gradient, 1 like any other; normalisation: of f's gradient,
    exact or the paper's (Wei eq. 10-11). guidance_weight: W of loss guidance (Wei eq. 12).
    low_centre: kernels start with less weight at their centre (see `rfsearch.layers.initialisation.low_centre_`); of no
    effect on a space with trained weights. rungs: validations on the way, on rung_images of the validation split.
    Augmentation: flip, scale range, shift as a share of the side, brightness and contrast as +- shares.
    """

    steps: int = Field(gt=0, le=_MOST_STEPS)
    batch_size: int = Field(gt=0, le=_MOST_IMAGES)
    class_weights: Literal["none", "sqrt"] = "none"
    lr: float = Field(gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    power: float = Field(default=0.9, ge=0)
    warmup: int = Field(default=0, ge=0, le=_MOST_STEPS)
    lr_steps: tuple[float, ...] = ()
    lr_drop: float = Field(default=0.1, gt=0, le=1)
    pretrained_lr_multiplier: float = Field(default=1.0, gt=0)
    f_lr_multiplier: float = Field(default=1.0, gt=0)
    gamma_lr_multiplier: float = Field(default=1.0, gt=0)
    f_delay: float = Field(default=0.0, ge=0, lt=1)
    f_clip: float | None = Field(default=None, gt=0)
    f_background: float = Field(default=1.0, ge=0)
    guidance_weight: float = Field(default=1.2, gt=0)
    normalisation: Literal["exact", "paper"] = "exact"
    low_centre: bool = False
    rungs: int = Field(default=3, ge=0, le=_MOST_RUNGS)
    rung_images: int = Field(default=64, gt=0, le=_MOST_IMAGES)
    eval_batch_size: int = Field(default=16, gt=0, le=_MOST_IMAGES)
    flip: bool = True
    scale: tuple[float, float] = (1.0, 1.0)
    shift: float = Field(default=0.0, ge=0, lt=1)
    brightness: float = Field(default=0.0, ge=0, lt=1)
    contrast: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if any(not 0 < share < 1 for share in self.lr_steps) or list(self.lr_steps) != sorted(set(self.lr_steps)):
            raise ValueError("lr_steps are ascending shares of the training, between 0 and 1")
        low, high = self.scale
        if not 1 / _LARGEST_FACTOR <= low <= high <= _LARGEST_FACTOR:
            raise ValueError(f"scale = [low, high] needs 0 < low <= high <= {_LARGEST_FACTOR:g}")
        return self

    def rate(self, step: int) -> float:
        """The learning rate of new weights at a step."""
        rate = self.lr * max(0.0, 1 - step / self.steps) ** self.power  # a forecast times more steps than one may have
        rate *= self.lr_drop ** sum(step >= share * self.steps for share in self.lr_steps)
        return rate * (step + 1) / self.warmup if step < self.warmup else rate

    def rung_steps(self) -> tuple[int, ...]:
        """The steps after which a training is looked at, its last one included."""
        return tuple(sorted({round(self.steps * i / (self.rungs + 1)) for i in range(1, self.rungs + 2)} - {0}))


class PathSet(_Frozen):
    """Parallel paths at every site. manual: their dilations as set by hand, the baseline of this number of paths.

    labels: the classes that guide each path (Wei eq. 12), an empty set for a path that is not guided; left out where
    no path is.
    """

    manual: tuple[Annotated[int, Field(le=_FARTHEST)], ...] = Field(min_length=2)
    labels: tuple[tuple[str, ...], ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> PathSet:
        if any(d < 1 for d in self.manual):
            raise ValueError("manual dilations are integers of at least 1")
        if len(self.labels) not in (0, len(self.manual)):
            raise ValueError(f"labels has a set for each path: {len(self.manual)} paths, {len(self.labels)} label sets")
        return self


_PATHS = {"bi": PathSet(manual=(4, 6)), "tri": PathSet(manual=(4, 6, 8))}  # Wei et al.: the manual dilations


class SamplingSpec(_Frozen):
    """What an LS-DFN block at a site may be. gammas: sample strides, px of the site's map, where learned ones start
    too. regions: s, regions an axis, odd; 1 is the plain dynamic filter network. features: channels of its feature
    branch. channels: of its output, one a class if left out. kernel: taps an axis, odd. bounds: of a learned gamma.
    """

    gammas: tuple[float, ...] = Field(default=(1.0, 2.0, 3.0), min_length=1)
    regions: tuple[Annotated[int, Field(le=_WIDEST)], ...] = Field(default=(5,), min_length=1)
    features: int = Field(default=32, gt=0, le=_MOST_CHANNELS)
    channels: int | None = Field(default=None, gt=0, le=_MOST_CHANNELS)
    kernel: int = Field(default=3, gt=0, le=_WIDEST)
    bounds: tuple[float, float] = (0.25, 16.0)

    @model_validator(mode="after")
    def _consistent(self) -> SamplingSpec:
        low, high = self.bounds
        if not 0 < low <= high <= _FARTHEST:
            raise ValueError(f"bounds = [low, high] needs 0 < low <= high <= {_FARTHEST}")
        if any(not low <= gamma <= high for gamma in self.gammas) or len(set(self.gammas)) != len(self.gammas):
            raise ValueError(f"gammas are different sample strides within bounds {list(self.bounds)}, above 0")
        if any(s < 1 or s % 2 == 0 for s in self.regions):
            raise ValueError(f"regions are odd numbers of at least 1, got {list(self.regions)}")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel is odd, got {self.kernel}")
        return self


class Preset(_Frozen):
    """One size of a space. See `Space` for the fields."""

    backbone: str
    weights: str = "none"
    form: str = SINGLE
    sampling: SamplingSpec = SamplingSpec()
    sites: tuple[str, ...] = Field(min_length=1)
    dilations: tuple[Annotated[int, Field(le=_FARTHEST)], ...] = Field(min_length=1)
    reference: int
    f_bounds: tuple[float, float] = (0.25, 4.0)
    f_search: tuple[float, float] = (0.7, 1.4)
    image_size: tuple[_Side, _Side] | None = None
    budget: str
    recipe: Recipe

    @model_validator(mode="after")
    def _consistent(self) -> Preset:
        if any(d < 1 for d in self.dilations) or len(set(self.dilations)) != len(self.dilations):
            raise ValueError("dilations are different integers of at least 1")
        if self.reference not in self.dilations:
            raise ValueError(f"reference {self.reference} is none of the dilations {list(self.dilations)}")
        for name, (low, high) in (("f_bounds", self.f_bounds), ("f_search", self.f_search)):
            if not 1 / _LARGEST_FACTOR <= low <= 1 <= high <= _LARGEST_FACTOR:
                raise ValueError(f"{name} = [low, high] needs 0 < low <= 1 <= high <= {_LARGEST_FACTOR:g}")
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
    paths: dict[str, PathSet] = {}
    default_preset: str = "mini"
    presets: dict[str, Preset] = Field(min_length=1)

    @model_validator(mode="after")
    def _known_forms(self) -> SpaceFile:
        if taken := {SINGLE, LSDFN} & set(self.paths):
            raise ValueError(f"paths are named bi, tri or anything but {' and '.join(sorted(taken))}")
        for name, preset in self.presets.items():
            if preset.form not in self.forms:
                raise ValueError(
                    f"preset {name} has the unknown form {preset.form!r}.{nearest(preset.form, self.forms)}"
                )
        return self

    @property
    def forms(self) -> tuple[str, ...]:
        """What a site can get."""
        return (SINGLE, *dict.fromkeys([*_PATHS, *self.paths]), LSDFN)

    def preset_and_form(self, wanted: str) -> tuple[Preset, str]:
        """A preset by its name, or in another form: `bi` is the default preset's, `paper-bi` that of `paper`."""
        if wanted in self.presets:
            return self.presets[wanted], self.presets[wanted].form
        base, _, form = wanted.rpartition("-")
        base = base or self.default_preset
        if base not in self.presets or form not in self.forms:
            known = [*self.presets, *self.forms, *(f"{name}-{form}" for name in self.presets for form in self.forms)]
            raise SpaceError(f"space {self.name!r} has no preset {wanted!r}.{nearest(wanted, known)}")
        return self.presets[base], form


class Space(_Frozen):
    """What may vary in a search, and what must not: one preset of a space file, resolved.

    backbone: SPEC of the network. weights: "none", "hub" or a path, for a backbone that can take trained weights.
    sites: module paths whose receptive field is searched. dilations: what a site may get, and where learned factors
    start. reference: the hand default, whose one full training is the budget unit 1x. f_bounds: of a learned f;
    f_search: of a fixed real f in Bayesian and random search. image_size: H x W in px, None: as the data has it.
    form: what a site gets: "single", one path; a name of `paths`, several in parallel; "lsdfn", an LS-DFN block.
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
    sites: tuple[str, ...] = Field(min_length=1)
    dilations: tuple[_Dilation, ...] = Field(min_length=1)
    reference: _Dilation
    f_bounds: tuple[float, float]
    f_search: tuple[float, float]
    image_size: tuple[_Side, _Side] | None
    budget: str
    recipe: Recipe
    form: str = SINGLE
    paths: dict[str, PathSet] = _PATHS
    sampling: SamplingSpec = SamplingSpec()

    def uniform(self, choice: Choice | Sequence[Choice]) -> Candidate:
        """The candidate that gives every site the same choice, or the same parallel paths."""
        return Candidate.of(dict.fromkeys(self.sites, choice))

    @property
    def reference_candidate(self) -> Candidate:
        """The hand default of a single path: its one full training is the budget unit 1x, whatever the form."""
        return self.uniform(Choice(self.reference))

    @property
    def default_candidate(self) -> Candidate:
        """The hand default of this form."""
        if self.path_set:
            return self.uniform([Choice(d) for d in sorted(self.path_set.manual)])
        if self.form == LSDFN:
            return self.uniform(self.sampled(self.sampling.gammas[0], max(self.sampling.regions)))
        return self.reference_candidate

    @property
    def path_set(self) -> PathSet | None:
        """The parallel paths of this form, None where a site has one path."""
        return self.paths.get(self.form)

    def sampled(self, gamma: float, s: int, learned: bool = False) -> Choice:
        """An LS-DFN block behind a site at the hand default's dilation; s = 1 samples no neighbour, whatever gamma."""
        return Choice(self.reference, sampling=Sampling(gamma if s > 1 else 1.0, s, learned and s > 1))

    @property
    def forms(self) -> tuple[str, ...]:
        return (SINGLE, *self.paths, LSDFN)

    def with_form(self, form: str) -> Space:
        """The same space with another form."""
        if form not in self.forms:
            raise SpaceError(f"a site gets one of {', '.join(self.forms)}. Got {form!r}.{nearest(form, self.forms)}")
        return self.with_(form=form)

    def with_path_count(self, count: int) -> Space:
        """The same space with that many parallel paths."""
        forms = {1: SINGLE} | {len(paths.manual): name for name, paths in self.paths.items()}
        if count not in forms:
            known = sorted(forms)
            closest = min(known, key=lambda n: abs(n - count))
            raise SpaceError(
                f"--paths is one of {', '.join(map(str, known))} in space {self.name!r}. Got {count}. "
                f"Nearest: {closest}. More are added to its file as a table [paths.NAME]."
            )
        return self.with_(form=forms[count])

    def with_(self, **changes: Any) -> Space:
        """The same space with some fields replaced."""
        return self.model_copy(update={key: value for key, value in changes.items() if value is not None})


def read_space(path: Path, preset: str | None) -> Space:
    """Read one preset of a space file (None: its default one), in its own form or another, such as `paper-bi`."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin with a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError(f"{path}: cannot be read: {error}.") from error
    try:
        body = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpaceError(f"{path}: not valid TOML: {error}.") from error
    except RecursionError:
        raise SpaceError(f"{path}: its values are nested too deeply.") from None
    except ValueError as error:  # a number of more digits than Python reads, a date that is none
        raise SpaceError(f"{path}: a value that cannot be read: {error}.") from error
    try:
        file = SpaceFile.model_validate(body)
    except ValidationError as error:
        faults = "\n".join(f"  {_fault(text, fault)}" for fault in error.errors())
        raise SpaceError(f"{path}: {error.error_count()} fault(s):\n{faults}") from error
    wanted = preset or file.default_preset
    chosen, form = file.preset_and_form(wanted)
    shared = file.model_dump(include={"name", "title", "cite", "task", "metric"})
    return Space(
        **shared,
        source=str(path),
        preset=wanted,
        data=file.data,
        paths={**_PATHS, **file.paths},
        **{k: getattr(chosen, k) for k in Preset.model_fields if k != "form"},
        form=form,
    )


def _fault(text: str, fault: Any) -> str:
    """One validation fault as `line N, key: what`."""
    keys = [str(part) for part in fault["loc"] if part != "[key]"]  # pydantic's mark of a key that is wrong itself
    return f"line {_line_of(text, keys)}, {'.'.join(keys) or 'file'}: {_in_plain_words(fault)}"


# What a value of a space file must be, by pydantic's name for the fault; its own words are of Python's types.
_WANTED = {
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list, in square brackets"),
    **dict.fromkeys(("dict_type", "model_type"), "a table of keys and values"),
    "string_type": "text, in quotes",
}
_MOST_SHOWN = 60  # characters of a value


def _in_plain_words(fault: Any) -> str:
    """What is wrong with a value, in words of the file and not of Python, and the value."""
    message: str = fault["msg"].removeprefix("Value error, ")
    rule = "Input should be "
    wanted = _WANTED.get(fault["type"]) or (message.removeprefix(rule) if message.startswith(rule) else "")
    if not wanted:
        return message
    got = repr(fault["input"])
    return f"must be {wanted}. Got {got if len(got) <= _MOST_SHOWN else f'{got[:_MOST_SHOWN]}...'}"


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
