"""Read, write and apply the patch of an exported search: what each site of a network gets, as JSON.

A file of one object: format "rfsearch-patch", version 1; `backbone`, the SPEC of the network; `classes` in order of id;
`sites`, each with a choice as `rfsearch.Candidate` writes it, or a list of them for parallel paths, with learned values
fixed to what they ended at; `settings`, whatever else the layers need. A choice may also hold `split`: the `dilation`
of the last `channels` output channels of its convolution, the others having the choice's own.

Importing this module imports no torch; applying a patch does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from rfsearch.choices import Candidate, ChannelSplit, Choice, SitePath
from rfsearch.errors import ModelError, SpaceError, nearest
from rfsearch.space import SamplingSpec
from rfsearch.space.table import FARTHEST, LARGEST_FACTOR, WIDEST

if TYPE_CHECKING:
    from torch import nn

FORMAT = "rfsearch-patch"
VERSION = 1
_MOST = {"dilation": FARTHEST, "gamma": FARTHEST, "s": WIDEST, "f": LARGEST_FACTOR}
"""The largest value of each number of a choice, as in a space."""

_KEYS = ("dilation", "f", "fractional", "learned", "labels", "gamma", "s", "gamma_learned", "layer", "found", "split")


def apply(
    model: nn.Module, patch: str | Path | Mapping[str, Any], *, copy: bool = True, trust: bool = False
) -> nn.Module:
    """Give a model the receptive field that a patch describes, and keep the model's own weights.

    The state dict written beside the patch then loads strictly and gives the exported network. Whole dilations alone
    leave the model's own layers, dilated differently. Another f keeps an inflation layer and the interpolation that
    undoes it, with f fixed, or, in a choice that is `fractional`, gives the convolution the real dilation `dilation` /
    f. A choice with a `layer` has that layer in place of its convolution, and needs the package that provides it.

    Args:
        model: The model.
        patch: A file that `rfsearch export` wrote, its text, or its content. Or a candidate, such as
            {"conv6": {"dilation": 4, "f": 0.73}}, or its text.
        copy: Whether to patch a copy and leave the model as it is. With False, a network that cannot be copied can be
            patched too.
        trust: Whether code may run that the patch names, that is not installed, that your program could not import by
            itself, and that was not exported here: layers in files beside the patch.

    Returns:
        The copy, or the model itself with `copy=False`.

    Raises:
        SpaceError: The patch is not one.
        ModelError: The model lacks a site or cannot be copied, or a layer is not available.
        UntrustedError: It names such code.
    """
    from rfsearch.compiled import check_not_compiled
    from rfsearch.copies import copy_module

    read = Patch.read(patch, trust=trust)
    check_not_compiled(model)
    if not copy:
        return read.install(model)
    try:
        own = copy_module(model)
    except ModelError as error:
        raise ModelError(f"{error} Patch a network made for it: rfsearch.apply(network, patch, copy=False).") from error
    return read.install(own)


class PatchSettings(BaseModel):
    """Hold what the layers of a patched network need besides their choices. See `rfsearch.surgery.Settings`.

    `dilations` is written only if a choice names a layer. A patch without a `border` is of a time that had the paper's
    alone.

    Example:
        >>> PatchSettings().f_bounds
        (0.25, 4.0)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    f_bounds: tuple[float, float] = (0.25, 4.0)
    normalisation: Literal["exact", "paper"] = "exact"
    border: Literal["continuous", "paper"] = "paper"
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
    """Describe what each site of a network gets.

    Attributes:
        backbone: SPEC of the network that it is for.
        classes: Names of the classes, in order of id.
        candidate: What the sites get, with learned values fixed.
        settings: What the layers need besides.
        splits: Channels with a dilation of their own, by path.

    Example:
        >>> Patch.read("RUN/export/patch.json").install(make(num_classes))
    """

    backbone: str
    classes: tuple[str, ...]
    candidate: Candidate
    settings: PatchSettings
    splits: Mapping[str, ChannelSplit] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the content of the patch's file."""
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
        """Return the site of a path, and which of its parallel paths it is, from 0; None if it is the only one."""
        if path in dict(self.candidate.sites):
            return path, None
        site, _, number = path.rpartition("/")
        return site, int(number) - 1

    @staticmethod
    def read(source: str | Path | Mapping[str, Any], *, trust: bool = False) -> Patch:
        """Read a patch from a file, its text, or its content.

        Args:
            source: The patch.
            trust: Whether it may name any code; see `apply`.

        Raises:
            SpaceError: It is not a patch.
            UntrustedError: It names code that may not run.
        """
        body, where, folder = _body(source)
        if _is_candidate(body):
            settings = {"border": "continuous"}
            body = {
                "format": FORMAT,
                "version": VERSION,
                "backbone": "",
                "classes": (),
                "sites": body,
                "settings": settings,
            }
        if not isinstance(body, Mapping) or body.get("format") != FORMAT:
            found = f"format {body.get('format')!r}" if isinstance(body, Mapping) else f"a JSON {type(body).__name__}"
            raise SpaceError(f"{where}: a patch is an object of format {FORMAT!r}, or a candidate. Got {found}.")
        if isinstance(version := body.get("version"), int) and version > VERSION:
            raise SpaceError(
                f"{where}: written by a newer rfsearch (version {version}; this one reads up to {VERSION})."
            )
        try:
            file = _File.model_validate(body)
            if file.version != VERSION:
                raise SpaceError(f"versions of a patch start at {VERSION}. Got {file.version}.")
            choices, splits = _choices(file.sites)
            candidate = Candidate(choices)
            _check_bounds(candidate, splits)
            candidate = with_files(candidate, folder, trust, where)
        except ValidationError as error:
            faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            raise SpaceError(f"{where}: {'; '.join(faults)}.") from error
        except SpaceError as error:
            raise SpaceError(f"{where}: {error}") from error
        return Patch(file.backbone, file.classes, candidate, file.settings, splits)

    def install(self, model: nn.Module, fill: Callable[[nn.Module], None] | None = None) -> nn.Module:
        """Give the model itself this receptive field.

        Args:
            model: The model, changed in place.
            fill: Gives it other weights, in place, before the convolutions that are split take theirs apart.

        Returns:
            The model.
        """
        from rfsearch.surgery import Settings, install
        from rfsearch.surgery.inserts import SplitSite
        from rfsearch.surgery.places import lone_convolution

        modules = dict(model.named_modules())
        for site, _ in self.candidate.sites:
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


def _is_candidate(body: Any) -> bool:
    """Return whether a patch's content is a candidate: what each site gets, and nothing else."""

    def is_path(value: Any) -> bool:
        return isinstance(value, Mapping) and not {"dilation", "kind", "gamma", "layer"}.isdisjoint(value)

    if not isinstance(body, Mapping):
        return False
    paths = [path for given in body.values() for path in (given if isinstance(given, list) else [given])]
    return bool(paths) and all(map(is_path, paths))


def with_files(candidate: Candidate, folder: Path | None, trust: bool, where: str) -> Candidate:
    """Return a candidate whose layers are those of files beside the patch, where these are there.

    Args:
        candidate: The candidate.
        folder: That of the patch; None where it is no file.
        trust: Whether any code may run.
        where: What the patch is called.

    Raises:
        UntrustedError: A layer may not run.
    """
    if not any(path.choice.specs for _, path in candidate):
        return candidate
    from rfsearch.sources import on_path_of_program
    from rfsearch.trust import require_trusted

    beside = layer_files(candidate, folder)

    def found(_: str, choice: Choice) -> Choice:
        source, _, attribute = str(getattr(choice, "layer", "")).rpartition(":")
        if (file := beside.get(source)) is None:
            return choice
        # The program's own file, where that is the same, needs no trust.
        own = None if trust else on_path_of_program(source, file.read_bytes())
        return replace(choice, layer=f"{(own or file).resolve()}:{attribute}")  # type: ignore[type-var]

    candidate = candidate.changed(found)
    if not trust:
        specs = [spec for _, path in candidate for spec in path.choice.specs]
        require_trusted(specs, where, None if folder is None else Path(where), [*beside.values()])
    return candidate


def layer_files(candidate: Candidate, folder: Path | None) -> dict[str, Path]:
    """Return the files beside a patch that its layers are in, by what the patch calls them."""
    sources = [spec.rpartition(":")[0] for _, path in candidate for spec in path.choice.specs]
    files = {source: folder / source for source in sources if folder is not None and source.endswith(".py")}
    return {source: file for source, file in files.items() if not Path(source).is_absolute() and file.is_file()}


def _body(source: str | Path | Mapping[str, Any]) -> tuple[Any, str, Path | None]:
    """Return what a patch holds, where it came from, for messages, and the folder of its file."""
    folder = None
    if isinstance(source, Mapping):
        return source, "patch", folder
    text, where = str(source), "patch"
    if not text.lstrip().startswith(("{", "[")):
        path, where = Path(source), text
        folder = path.parent
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:  # ValueError: no text, or no name of a file
            raise SpaceError(
                f"{str(path)[:200]!r}: no patch can be read from it: {getattr(error, 'strerror', error)}."
            ) from error
    try:
        return json.loads(text), where, folder
    except (ValueError, RecursionError) as error:
        raise SpaceError(f"{where}: not valid JSON: {error}.") from error


def _check_bounds(candidate: Candidate, splits: Mapping[str, ChannelSplit]) -> None:
    """Raise SpaceError for a number with which a network would take all memory, or for ever."""
    for name, path in candidate:
        found = [*path.choice.numbers.items(), *(("dilation", dilation) for dilation in path.choice.dilations)]
        found += [("dilation", splits[name].dilation)] if name in splits else []
        for number, value in found:
            least = f"at least {1 / LARGEST_FACTOR:g} and " if number == "f" else ""
            if value > (most := _MOST.get(number, math.inf)) or (number == "f" and value < 1 / most):
                raise SpaceError(f"{name}: {number} is {least}at most {most:g}. Got {min(value, 1e300):g}.")


def _choices(sites: Mapping[str, Any]) -> tuple[dict[str, list[SitePath]], dict[str, ChannelSplit]]:
    choices: dict[str, list[SitePath]] = {}
    splits: dict[str, ChannelSplit] = {}
    if not sites:
        raise SpaceError("a patch sets at least one site. Got none.")
    for site, body in sites.items():
        paths = body if isinstance(body, list) else [body]
        found = []
        for number, path in enumerate(paths, start=1):
            name = f"{site}/{number}" if len(paths) > 1 else site
            known = _KEYS if "kind" not in path else tuple(path)
            for key in path:
                if key not in known:
                    raise SpaceError(f"{name}: unknown key {key!r} of a choice.{nearest(key, known)}")
                if known is _KEYS and key in ("dilation", "s") and not isinstance(path[key], int):
                    raise SpaceError(f"{name}: {key} is a whole number. Got {path[key]!r}.")
            try:
                found.append(SitePath.from_json({key: value for key, value in path.items() if key != "split"}))
                if "split" in path:
                    splits[name] = ChannelSplit(**path["split"])
            except KeyError as error:
                raise SpaceError(f"{name}: a choice without {error}.") from error
            except (TypeError, ValueError) as error:
                raise SpaceError(f"{name}: not a choice: {error}.") from error
            except SpaceError as error:
                raise SpaceError(f"{name}: not a choice: {error}") from error
            if found[-1].choice.searched:
                raise SpaceError(f"{name}: a patch holds dilations that were found. Got one still to be found.")
        choices[site] = found
    return choices, splits
