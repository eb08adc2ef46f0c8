"""What every layout keeps to: it reads a sound folder alike every time, at any size, and leaves it alone."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rfsearch.data import ImageSet, Layout
from rfsearch.errors import DataError
from rfsearch.testing.rules import hold, same


def layout_is_a_table_of_keys(layout: Layout, root: Path) -> None:
    """Check that it survives the manifest of a run unchanged, and that no key that it does not know is passed over."""
    body = layout.model_dump_json()
    again = type(layout).model_validate_json(body)
    hold(again == layout, f"a layout survives JSON unchanged. Got {layout!r}, read back as {again!r}")
    try:
        type(layout).model_validate({**layout.model_dump(), "no such key": 1})
    except ValueError:
        return
    raise AssertionError("a layout refuses a key that is none of its fields. It took 'no such key'.")


def layout_reads_images_that_can_be_trained_on(layout: Layout, root: Path) -> None:
    """Train and val splits of different images, whose labels are ids of classes or the ignored one."""
    data = _read(layout, root)
    names = [name for split in data.splits.values() for name in split.names]
    hold(len(set(names)) == len(names), "no image is in two splits, or twice in one. Names repeat")
    if not data.classes or data.splits["train"].targets.dtype != np.uint8:
        return  # what targets other than class ids need to be is for their task to say
    known = {*range(data.num_classes)} | ({data.ignore_index} if data.ignore_index is not None else set())
    for title, split in data.splits.items():
        unknown = sorted({*np.unique(split.targets).tolist()} - known)
        hold(
            not unknown,
            f"labels hold ids of the {data.num_classes} classes, or the ignored one, {data.ignore_index}. The split "
            f"{title} also holds {unknown[:5]}",
        )


def layout_repeats_itself(layout: Layout, root: Path) -> None:
    """Check that a folder gives the same images in the same order every time, so that a run can be resumed."""
    first, second = (_read(layout, root).fingerprint() for _ in range(2))
    same(first, second, "reading a folder twice gives the same images, targets and names")


def layout_gives_the_size_that_is_asked_for(layout: Layout, root: Path) -> None:
    """Check that every image has the (H, W) of the space, whatever its own."""
    for size in ((40, 56), (49, 35)):
        got = _read(layout, root, size).image_size
        hold(got == size, f"images get the size (H, W) that is asked for, {size}. Got {got}")


def layout_reads_alike_within_any_memory(layout: Layout, root: Path) -> None:
    """Check that what is mapped from a cache, if the memory is too small, equals what is held in memory."""
    held = _read(layout, root)
    with tempfile.TemporaryDirectory() as cache:
        mapped = layout.read(root, None, cache=cache, memory_limit_bytes=0)
        same(mapped.fingerprint(), held.fingerprint(), "the memory limit changes no image, label or name")
        for title, split in held.splits.items():
            sent = pickle.loads(pickle.dumps(mapped.splits[title]))
            hold(
                np.array_equal(sent.targets, split.targets, equal_nan=split.targets.dtype.kind == "f"),
                f"a split can be sent to another process. The targets of {title} changed on the way",
            )


def layout_leaves_the_folder_alone(layout: Layout, root: Path) -> None:
    """Check that reading writes nothing into the user's folder."""
    before = _files(root)
    _read(layout, root)
    same(sorted(_files(root).items()), sorted(before.items()), "reading changes no file of the folder")


def layout_reports_a_folder_that_is_none_of_its_own(layout: Layout, root: Path) -> None:
    """Check that a missing folder and an empty one are a DataError, which names the folder."""
    with tempfile.TemporaryDirectory() as empty:
        for folder in (Path(empty), Path(empty) / "missing"):
            try:
                layout.read(folder, None)
            except DataError as error:
                hold(str(empty) in str(error), f"a message about a folder names it, {folder}. Got {error}")
            except Exception as error:
                raise AssertionError(f"a folder that is no such data set is a DataError. Got {error!r}.") from error
            else:
                raise AssertionError("a folder without any image is a DataError. It was read.")


LAYOUT_CHECKS: tuple[Callable[[Layout, Path], None], ...] = (
    layout_is_a_table_of_keys,
    layout_reads_images_that_can_be_trained_on,
    layout_repeats_itself,
    layout_gives_the_size_that_is_asked_for,
    layout_reads_alike_within_any_memory,
    layout_leaves_the_folder_alone,
    layout_reports_a_folder_that_is_none_of_its_own,
)


def _read(layout: Layout, root: Path, size: tuple[int, int] | None = None) -> ImageSet:
    """Read a sound folder, which must succeed."""
    try:
        data = layout.read(root, size)
    except Exception as error:
        raise AssertionError(f"a layout reads a sound folder at size {size}. This one raised {error!r}.") from error
    hold(isinstance(data, ImageSet), f"read gives an ImageSet. Got {type(data).__name__}")
    return data


def _files(root: Path) -> dict[str, tuple[int, int]]:
    """Return the size and time of every file below a folder, by its path."""
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in root.rglob("*") if p.is_file()}
