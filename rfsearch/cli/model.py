"""What the commands that look at one model share: which model, on what input."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rfsearch.cli.options import SetOption, TrustOption
from rfsearch.errors import RequestError
from rfsearch.storage import run_directory, uri_of

if TYPE_CHECKING:
    from torch import nn

    from rfsearch.data import ImageSet
    from rfsearch.data.object_sizes import ObjectSizes
    from rfsearch.space import Space

ModelArgument = Annotated[
    str,
    typer.Argument(
        help="Network: a backbone's name, torchvision:NAME, timm:NAME, smp:ARCH/ENCODER, package.module:callable or "
        "path/to/file.py:callable; or the directory of a run, for its winner."
    ),
]
InputOption = Annotated[
    str | None,
    typer.Option("--input", help="Shape of one input, channels x axes: 3x224x224 (default), 2x1000, 1x32x64x64."),
]
ClassesOption = Annotated[int, typer.Option("--classes", help="Number of classes to build the network for.")]
FolderOption = Annotated[
    Path | None, typer.Option("--data", help="Folder of labelled images: its objects are held against the field.")
]
ModelSpaceOption = Annotated[str, typer.Option("--space", help="Which space's layout and image size --data has.")]

_DEFAULT_INPUT = "3x224x224"


@dataclass(frozen=True)
class LoadedModel:
    """Hold a network that is looked at.

    Attributes:
        name: What the user calls it.
        network: The network.
        shape: Shape of one input, channels first.
        images: Labelled images, if there are any.
        sizes: Sizes of their objects, where they have any.
        assumed: What was taken for granted, a sentence; empty where nothing was.
    """

    name: str
    network: nn.Module
    shape: tuple[int, ...]
    images: ImageSet | None
    sizes: ObjectSizes | None = None
    assumed: str = ""


def load_model(
    model: ModelArgument,
    input_shape: InputOption = None,
    classes: ClassesOption = 21,
    data: FolderOption = None,
    space: ModelSpaceOption = "folder",
    changes: SetOption = None,
    trust: TrustOption = False,
) -> LoadedModel:
    """Build a network, or load the winner of a run.

    Args:
        model: SPEC of a backbone, or the directory of a run.
        input_shape: Shape of one input as --input gives it, None for the images' or the default.
        classes: Number of classes, where no images say it.
        data: Folder of labelled images.
        space: Name of the space whose layout that folder has; with an embedded set, it needs none.
        changes: KEY=VALUE each, in place of what that space says.
        trust: Whether a run's code may be run that is not installed.

    Raises:
        RequestError: The input shape is none, or not that of the images.
    """
    from rfsearch import inspection
    from rfsearch.ledger.manifest import MANIFEST_FILE
    from rfsearch.networks import trained
    from rfsearch.tasks.from_space import task_of
    from rfsearch.trust import opened

    place = run_directory(model) if uri_of(model) else Path(model)
    run_dir = place if (place / MANIFEST_FILE).is_file() else None
    with tempfile.TemporaryDirectory() as cache, opened(run_dir, trust) if run_dir else nullcontext():
        found = _read_images(run_dir, data, space, changes or (), Path(cache))
        images = found[1] if found else None
        sizes, assumed = None, ""
        if found is None:
            shape = _parse_shape(input_shape or _DEFAULT_INPUT)
            assumed = (
                "" if input_shape else f"Measured on an input of {inspection.format_sizes(shape)}; --input has others."
            )
        else:
            task = task_of(*found)
            shape, classes = found[1].input_shape[1:], task.out_channels
            sizes = task.object_sizes(found[1].splits["train"])
            if input_shape and _parse_shape(input_shape) != shape:
                raise RequestError(
                    f"--input {input_shape} is not the size of the images, {inspection.format_sizes(shape)}. Leave it "
                    f"out{'' if run_dir else ', or choose another size of theirs with --set image_size=[H,W]'}."
                )
        network = trained(run_dir) if run_dir else inspection.build_network(model, classes, shape[0])
        return LoadedModel(model, network, shape, images, sizes, assumed)


def _read_images(
    run_dir: Path | None, folder: Path | None, space: str, changes: Sequence[str], cache: Path
) -> tuple[Space, ImageSet] | None:
    """Read the images of a run, of a folder or of a space, with that space; None where none of them is named.

    Raises:
        RequestError: Values are to be changed where there is no space of which they are.
    """
    from rfsearch.ledger.manifest import read_manifest
    from rfsearch.ledger.typed_json import sound
    from rfsearch.planning.plan import load_data
    from rfsearch.plugins import space_file
    from rfsearch.space import read_space

    given = str(folder) if folder else None
    if run_dir is not None:
        if changes:
            raise RequestError(
                f"--set does not go with a run, whose images are read as they were when it began. Got {changes[0]!r}."
            )
        manifest = read_manifest(run_dir)
        known = manifest.image_space
        return known, load_data(known, given or sound(manifest.data.folder), cache)
    if folder is not None or space != "folder":
        known = read_space(space_file(space), None, changes)
        return known, load_data(known, given, cache)
    if changes:
        raise RequestError(f"--set goes with --data or --space: it changes how images are read. Got {changes[0]!r}.")
    return None


def _parse_shape(text: str) -> tuple[int, ...]:
    parts = text.lower().split("x")
    if not 2 <= len(parts) <= 4 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise RequestError(f"--input is channels x axes, such as 3x224x224 or 2x1000. Got {text!r}.")
    return tuple(map(int, parts))


def layer_in_short(
    kind: str, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], groups: int = 1
) -> str:
    """Return a layer in short: its kind and kernel, then stride, dilation and groups where they are not 1."""
    from rfsearch.inspection import format_sizes

    parts = [kind, format_sizes(kernel)]
    for mark, sizes in (("s", stride), ("d", dilation), ("g", (groups,))):
        if any(size != 1 for size in sizes):
            parts.append(mark + (str(sizes[0]) if len(set(sizes)) == 1 else format_sizes(sizes)))
    return " ".join(part for part in parts if part)
