"""Find what an export starts from: the run's trial, its images, and what has changed since."""

from __future__ import annotations

from pathlib import Path

from rfsearch.data import ImageSet
from rfsearch.errors import DataError, RunDirectoryError, nearest
from rfsearch.identity import edited, sources_of
from rfsearch.ledger import Record, Run, incumbent
from rfsearch.ledger.manifest import DataFacts
from rfsearch.ledger.typed_json import sound
from rfsearch.planning.plan import load_data
from rfsearch.space import Space


def record_of(run: Run, trial: str | None) -> Record:
    """Return the record of a trial, or of the one that leads so far."""
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


def changes_since(run: Run, space: Space) -> list[str]:
    """Return what a reader must know of the run, in sentences."""
    said = []
    if run.running:
        said.append(f"The run is still running ({run.running}): this is its leader so far.")
    network = sound(run.manifest.network)
    if network and (changed := edited(network.sources, sources_of(space.backbone))):
        names = ", ".join(Path(file).name for file in changed)
        said.append(f"{names} has changed since the run started. The weights fit, but what it computes may differ.")
    return said


def read_images(
    space: Space, then: DataFacts, image_size: tuple[int, int], folder: str | None, cache: Path
) -> tuple[ImageSet, list[str]]:
    """Read the run's images, and return them with what a reader must know of them."""
    then_classes, then_fingerprint, then_folder = sound(then.classes), sound(then.fingerprint), sound(then.folder)
    try:
        data = load_data(space, folder or then_folder, cache)
    except DataError as error:
        hint = "" if folder else " If the images have moved, say where to with --data."
        raise DataError(f"{error}{hint}") from error
    if (data.classes, data.image_size) != (then_classes, image_size):
        (height, width), (h, w) = image_size, data.image_size
        raise DataError(
            f"{folder or data.name}: the run's images are {height} x {width} px (H x W) in {len(then_classes)} classes "
            f"({', '.join(then_classes)}). Got {h} x {w} px, {len(data.classes)} classes ({', '.join(data.classes)})."
        )
    if data.fingerprint() != then_fingerprint:
        return data, ["These are not the images of the run: what is scored here does not compare with its scores."]
    return data, []
