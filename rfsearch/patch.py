"""The patch of an exported search: what each site of a network gets, as JSON, and putting that on a fresh network.

A file of one object: format "rfsearch-patch", version 1; `backbone`, the SPEC of the network; `classes` in order of
id; `sites`, each with a choice as `rfsearch.Candidate` writes it, or a list of them for parallel paths, learned values
fixed to what they had become; `settings`, whatever else the layers need. A choice may also hold `split`: the
`dilation` of the last `channels` output channels of its convolution, the others having the choice's own.

Importing it imports no torch; applying a patch does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from rfsearch.errors import ModelError, SpaceError, nearest
from rfsearch.space import Candidate, Choice, SamplingSpec

if TYPE_CHECKING:
    from torch import nn

FORMAT = "rfsearch-patch"
VERSION = 1
_KEYS = ("dilation", "f", "fractional", "learned", "labels", "gamma", "s", "gamma_learned", "layer", "split")


def apply(model: nn.Module, patch: str | Path | Mapping[str, Any], *, copy: bool = True) -> nn.Module:
    """A copy of the model with the receptive field that a patch says; the model's own weights are kept.

    copy: whether to leave the given model as it is. Without, the patch is put onto the model itself, which is returned;
    so a network that cannot be copied is patched too.

    patch: a file that `rfsearch export` wrote, its text, or what is in it. The state dict written beside it then loads
    strictly and gives the exported network. Whole dilations alone leave the model's own layers, dilated differently.
    Another f keeps an inflation layer and the interpolation that undoes it, f being fixed, or, in a choice that is
    `fractional`, gives the convolution the real dilation `dilation` / f. A choice with a `layer` has that in the place
    of its convolution: whatever brought it is needed here too.

    Raises SpaceError for what is no patch, and ModelError for a site that the model lacks, a layer that is not here,
    and a model that cannot be copied.
    """
    from rfsearch.copies import copied
    from rfsearch.forms import check_plain

    read = Patch.read(patch)
    check_plain(model)
    if not copy:
        return read.install(model)
    try:
        own = copied(model)
    except ModelError as error:
        raise ModelError(f"{error} Patch a network made for it: rfsearch.apply(network, patch, copy=False).") from error
    return read.install(own)


@dataclass(frozen=True)
class Split:
    """The last `channels` output channels of a convolution, at a `dilation` of their own, px between taps."""

    dilation: int
    channels: int

    def __post_init__(self) -> None:
        if any(not isinstance(n, int) or n < 1 for n in (self.dilation, self.channels)):
            raise SpaceError(f"a split has a dilation and channels, whole numbers of at least 1. Got {self}.")


class PatchSettings(BaseModel):
    """What the layers of a patched network need beside their choices; see `rfsearch.surgery.Settings`. dilations: only
    where a choice names a layer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    f_bounds: tuple[float, float] = (0.25, 4.0)
    normalisation: Literal["exact", "paper"] = "exact"
    guidance_weight: float = 1.2
    f_background: float = 1.0
    sampling: SamplingSpec = SamplingSpec()
    dilations: tuple[int, ...] = ()


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: str
    version: int
    backbone: str
    classes: tuple[str, ...]
    sites: dict[str, dict[str, Any] | list[dict[str, Any]]]
    settings: PatchSettings


@dataclass(frozen=True)
class Patch:
    """What a network gets. backbone: SPEC of the network it is for. classes: in order of id. splits: by path."""

    backbone: str
    classes: tuple[str, ...]
    candidate: Candidate
    settings: PatchSettings
    splits: Mapping[str, Split] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        sites = json.loads(self.candidate.to_json())
        for path, split in self.splits.items():
            site, number = self.site_of(path)
            (sites[site] if number is None else sites[site][number])["split"] = vars(split)
        left_out = set() if self.settings.dilations else {"dilations"}
        return {
            "format": FORMAT,
            "version": VERSION,
            "backbone": self.backbone,
            "classes": list(self.classes),
            "sites": sites,
            "settings": self.settings.model_dump(mode="json", exclude=left_out),
        }

    def site_of(self, path: str) -> tuple[str, int | None]:
        """The site of a path, and which of its parallel paths it is, from 0; None where it is the only one."""
        if path in dict(self.candidate.choices):
            return path, None
        site, _, number = path.rpartition("/")
        return site, int(number) - 1

    @staticmethod
    def read(source: str | Path | Mapping[str, Any]) -> Patch:
        """Of a file, its text, or what is in it. Raises SpaceError for what is no patch."""
        body, where = _body(source)
        if not isinstance(body, Mapping) or body.get("format") != FORMAT:
            found = f"format {body.get('format')!r}" if isinstance(body, Mapping) else f"a JSON {type(body).__name__}"
            raise SpaceError(f"{where}: a patch is an object of format {FORMAT!r}. Got {found}.")
        if isinstance(version := body.get("version"), int) and version > VERSION:
            raise SpaceError(
                f"{where}: written by a newer rfsearch (version {version}; this one reads up to {VERSION})."
            )
        try:
            file = _File.model_validate(body)
            if file.version != VERSION:
                raise SpaceError(f"versions of a patch start at {VERSION}. Got {file.version}.")
            choices, splits = _choices(file.sites)
            candidate = Candidate.of(choices)
        except ValidationError as error:
            faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            raise SpaceError(f"{where}: {'; '.join(faults)}.") from error
        except SpaceError as error:
            raise SpaceError(f"{where}: {error}") from error
        return Patch(file.backbone, file.classes, candidate, file.settings, splits)

    def install(self, model: nn.Module, fill: Callable[[nn.Module], None] | None = None) -> nn.Module:
        """Give the model itself this receptive field, and return it. fill: may give it other weights, in place, before
        the convolutions that are split take theirs apart."""
        from rfsearch.surgery import Settings, install
        from rfsearch.surgery.inserts import SplitSite
        from rfsearch.surgery.places import lone_convolution

        modules = dict(model.named_modules())
        for site, _ in self.candidate.choices:
            for part in site.split(":"):
                if part not in modules:
                    known = [name for name, module in modules.items() if hasattr(module, "dilation")]
                    raise ModelError(f"site {site!r}: the model has no module {part!r}.{nearest(part, known)}")
        settings = Settings(**dict(self.settings), classes=self.classes)
        learnable = install(model, self.candidate, settings)
        if fill:
            fill(model)
        for path, split in self.splits.items():
            place = learnable.modules[path]
            conv = lone_convolution(model, place)
            if conv is None or conv is not model.get_submodule(place):
                raise SpaceError(
                    f"{path}: only a lone convolution without inflation can be split between two dilations."
                )
            model.set_submodule(place, SplitSite(conv, split.dilation, split.channels))
        return model


def _body(source: str | Path | Mapping[str, Any]) -> tuple[Any, str]:
    """What a patch holds, and where it came from, for messages."""
    if isinstance(source, Mapping):
        return source, "patch"
    text, where = str(source), "patch"
    if not text.lstrip().startswith(("{", "[")):
        path, where = Path(source), text
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SpaceError(f"{path}: no patch can be read here: {getattr(error, 'strerror', error)}.") from error
    try:
        return json.loads(text), where
    except ValueError as error:
        raise SpaceError(f"{where}: not valid JSON: {error}.") from error


def _choices(sites: Mapping[str, Any]) -> tuple[dict[str, Choice | list[Choice]], dict[str, Split]]:
    choices: dict[str, Choice | list[Choice]] = {}
    splits: dict[str, Split] = {}
    if not sites:
        raise SpaceError("a patch sets at least one site. Got none.")
    for site, body in sites.items():
        paths = body if isinstance(body, list) else [body]
        found = []
        for number, path in enumerate(paths, start=1):
            name = f"{site}/{number}" if len(paths) > 1 else site
            for key in path:
                if key not in _KEYS:
                    raise SpaceError(f"{name}: unknown key {key!r} of a choice.{nearest(key, _KEYS)}")
                if key in ("dilation", "s") and not isinstance(path[key], int):
                    raise SpaceError(f"{name}: {key} is a whole number. Got {path[key]!r}.")
            try:
                found.append(Choice.from_json(path))
                if found[-1].to_find:
                    raise SpaceError(f"{name}: a patch holds dilations that were found. Got one that is to be found.")
                if "split" in path:
                    splits[name] = Split(**path["split"])
            except KeyError as error:
                raise SpaceError(f"{name}: a choice with no {error}.") from error
            except (TypeError, ValueError) as error:
                raise SpaceError(f"{name}: not a choice: {error}.") from error
        choices[site] = found
    return choices, splits
