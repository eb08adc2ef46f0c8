"""Read a space from a TOML file, checked whole: all faults are reported at once, each with its line."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import ErrorDetails

from rfsearch.errors import SpaceError, nearest
from rfsearch.space.changes import apply_changes
from rfsearch.space.choices import SpaceChoice
from rfsearch.space.data_spec import DataSpec
from rfsearch.space.faults import describe_change, describe_fault
from rfsearch.space.forms import LSDFN, PATHS, SINGLE, PathSet, SamplingSpec
from rfsearch.space.recipe import Recipe
from rfsearch.space.space import Space
from rfsearch.space.table import FARTHEST, LARGEST_FACTOR, Side, Table
from rfsearch.space.task_spec import TaskSpec, where_written, with_task_table


class Preset(Table):
    """Hold one size of a space. See `Space` for the fields."""

    backbone: str
    weights: str = "none"
    form: str = SINGLE
    sampling: SamplingSpec = SamplingSpec()
    sites: tuple[str, ...] = ()
    dilations: tuple[Annotated[int, Field(le=FARTHEST)], ...] = Field(min_length=1)
    reference: int
    choices: tuple[SpaceChoice, ...] = ()
    f_bounds: tuple[float, float] = (0.25, 4.0)
    f_search: tuple[float, float] = (0.7, 1.4)
    f_starts: dict[str, tuple[int, ...]] = Field(default={})
    image_size: tuple[Side, Side] | None = None
    strategies: tuple[str, ...] = ()
    budget: str
    task: TaskSpec
    recipe: Recipe

    @model_validator(mode="after")
    def _consistent(self) -> Preset:
        if any(d < 1 for d in self.dilations) or len(set(self.dilations)) != len(self.dilations):
            raise ValueError("dilations are different integers of at least 1")
        if self.reference not in self.dilations:
            raise ValueError(f"reference {self.reference} is none of the dilations {list(self.dilations)}")
        for name, (low, high) in (("f_bounds", self.f_bounds), ("f_search", self.f_search)):
            if not 1 / LARGEST_FACTOR <= low <= 1 <= high <= LARGEST_FACTOR:
                raise ValueError(f"{name} = [low, high] needs 0 < low <= 1 <= high <= {LARGEST_FACTOR:g}")
        if not self.f_bounds[0] <= self.f_search[0] <= self.f_search[1] <= self.f_bounds[1]:
            raise ValueError(f"f_search {list(self.f_search)} lies within f_bounds {list(self.f_bounds)}")
        for form, starts in self.f_starts.items():
            if not starts or (strange := [d for d in starts if d not in self.dilations]):
                got = f"{strange[0]}, which is none of {list(self.dilations)}" if starts else "none"
                raise ValueError(f"f_starts of {form} are some of the dilations. Got {got}")
        if self.choices and self.form != SINGLE:
            raise ValueError(f"choices are what a site with one path may get: they go with the form {SINGLE!r}")
        return self


class SpaceFile(Table):
    """Hold a whole space file. See `Space` for the fields."""

    name: str
    title: str
    cite: str = ""
    task: TaskSpec
    data: DataSpec
    paths: dict[str, PathSet] = Field(default={})
    default_preset: str = "mini"
    presets: dict[str, Preset] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _has_a_task_table(cls, body: Any) -> Any:
        return with_task_table(body)

    @field_validator("presets", mode="before")
    @classmethod
    def _shares_its_task(cls, presets: Any, info: ValidationInfo) -> Any:
        """Give each preset the file's task, with the keys that its own table changes."""
        task: TaskSpec | None = info.data.get("task")
        if not isinstance(presets, Mapping):
            return presets
        bodies = {name: with_task_table(preset) for name, preset in presets.items()}
        for body in bodies.values():
            if isinstance(body, dict) and isinstance(body["task"], Mapping):
                # Where the file's own table is faulty, whose keys these are is not known.
                body["task"] = {"name": task.name, **task.owned, **body["task"]} if task else {}
        return bodies

    @model_validator(mode="after")
    def _known_forms(self) -> SpaceFile:
        if taken := {SINGLE, LSDFN} & set(self.paths):
            raise ValueError(f"paths are named bi, tri or anything but {' and '.join(sorted(taken))}")
        for name, preset in self.presets.items():
            for form in (preset.form, *preset.f_starts):
                if form not in self.forms:
                    raise ValueError(f"preset {name} has the unknown form {form!r}.{nearest(form, self.forms)}")
        return self

    @property
    def forms(self) -> tuple[str, ...]:
        """Return what a site can get."""
        return (SINGLE, *dict.fromkeys([*PATHS, *self.paths]), LSDFN)

    def preset_and_form(self, wanted: str) -> tuple[Preset, str]:
        """Return a preset by its name, or in another form: `bi` is the default preset's, `paper-bi` that of `paper`."""
        preset = self.presets[self.preset_of(wanted)]
        return preset, preset.form if wanted in self.presets else wanted.rpartition("-")[2]

    def preset_of(self, wanted: str) -> str:
        """Return the name of a preset that may be wanted in another form."""
        if wanted in self.presets:
            return wanted
        base, _, form = wanted.rpartition("-")
        base = base or self.default_preset
        if base not in self.presets or form not in self.forms:
            known = [*self.presets, *self.forms, *(f"{name}-{form}" for name in self.presets for form in self.forms)]
            raise SpaceError(f"space {self.name!r} has no preset {wanted!r}.{nearest(wanted, known)}")
        return base


def read_space(path: Path, preset: str | None, changes: Sequence[str] = ()) -> Space:
    """Read one preset of a space file.

    Args:
        path: The file.
        preset: Name of a preset, of one in another form, such as `paper-bi`, or of a form. None: the default preset.
        changes: KEY=VALUE each, in place of what the file says; see `rfsearch.space.changes`.

    Raises:
        SpaceError: The file cannot be read, has no such preset, or has faults; all of them in one message, each with
            its line. Or the changes have faults.
    """
    text, body = read_toml(path)
    file = _checked(body, str(path), partial(describe_fault, text))
    wanted = preset or file.default_preset
    if changes:
        changed = apply_changes(body, file.preset_of(wanted), Preset.model_fields, changes)
        file = _checked(changed, f"--set {' --set '.join(changes)}", describe_change)
    chosen, form = file.preset_and_form(wanted)
    shared = file.model_dump(include={"name", "title", "cite"})
    return Space(
        **shared,
        source=str(path),
        preset=wanted,
        data=file.data,
        paths={**PATHS, **file.paths},
        **{k: getattr(chosen, k) for k in Preset.model_fields if k != "form"},
        form=chosen.form,
    ).with_form(form)


def read_toml(path: Path) -> tuple[str, dict[str, Any]]:
    """Return a file's text, and what it says.

    Raises:
        SpaceError: It cannot be read, or is not valid.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin with a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError(f"{path}: cannot be read: {error}.") from error
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpaceError(f"{path}: not valid TOML: {error}.") from error
    except RecursionError:
        raise SpaceError(f"{path}: its values are nested too deeply.") from None
    except ValueError as error:  # a number of more digits than Python reads, a date that is none
        raise SpaceError(f"{path}: a value that cannot be read: {error}.") from error


def _checked(body: Mapping[str, Any], source: str, describe: Callable[[ErrorDetails], str]) -> SpaceFile:
    """Check the values of a file; all faults go into one message, after where they come from."""
    try:
        return SpaceFile.model_validate(body)
    except ValidationError as error:
        faults = error.errors()
        for fault in faults:
            fault["loc"] = where_written(fault["loc"], body)
        lines = "\n".join(f"  {describe(fault)}" for fault in faults)
        raise SpaceError(f"{source}: {len(faults)} fault(s):\n{lines}") from error
