"""What an image set is, and how one is filled from files.

An image set is a handful of named splits of equally large images with a class id per pixel. The arrays live in memory
or, above a limit, in `.npy` files that are memory-mapped read-only; whoever uses them cannot tell the difference.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import mmap
import os
import tempfile
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from rfsearch.errors import DataError, nearest

Size = tuple[int, int]  # (H, W), px
A = TypeVar("A")
R = TypeVar("R")

_FAULTS_SHOWN = 5
_SIBLINGS_SHOWN = 12
_FEW_TO_CHOOSE_ON = 10  # with fewer, one image more or less decides which candidate leads
_CACHE_FORMAT = 2  # part of every cache key; raise it when the arrays' meaning changes
_TALLY = "tally.json"


def nfc(name: str) -> str:
    """A file's name in Unicode's composed form: file systems and lists write the same name in either form."""
    return unicodedata.normalize("NFC", name)


def evenly(count: int, most: int) -> list[int]:
    """At most that many indices of so many, evenly spread."""
    return [round(i * (count - 1) / max(1, most - 1)) for i in range(most)] if most < count else list(range(count))


@dataclass(frozen=True, eq=False)
class Split:
    """images: N x 3 x H x W uint8 (RGB). labels: N x H x W uint8, a class id per pixel. names: one an image.

    A memory-mapped array is pickled as the path of its file, so that sending a split to a worker costs nothing.
    """

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        n, *rest = self.images.shape
        if len(rest) != 3 or rest[0] != 3 or self.labels.shape != (n, *rest[1:]) or len(self.names) != n:
            raise ValueError(
                "images must be N x 3 x H x W, labels N x H x W, names N. "
                f"Got {self.images.shape=}, {self.labels.shape=}, {len(self.names)=}."
            )
        if self.images.dtype != np.uint8 or self.labels.dtype != np.uint8:
            raise ValueError(f"Both arrays must be uint8. Got {self.images.dtype=}, {self.labels.dtype=}.")

    def __len__(self) -> int:
        return len(self.names)

    def some(self, most: int) -> Split:
        """At most that many of the images, spread evenly over the split."""
        if len(self) <= most:
            return self
        chosen = evenly(len(self), most)
        return Split(self.images[chosen], self.labels[chosen], tuple(self.names[i] for i in chosen))

    def __getstate__(self) -> dict[str, Any]:
        return {"images": _by_path(self.images), "labels": _by_path(self.labels), "names": self.names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for field, value in state.items():
            object.__setattr__(self, field, _map(value) if isinstance(value, Path) else value)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images to train, choose and report on.

    splits: `train` and `val`, and `test` where there is one. ignore_index: the id of pixels without a class, or None.
    flip_pairs: class ids that a horizontal flip exchanges. rendered: the images are drawings, no photographs.
    notice: what a reader of the results must know about the data, in sentences; may be empty.
    """

    name: str
    classes: tuple[str, ...]
    ignore_index: int | None
    splits: dict[str, Split]
    rendered: bool = False
    flip_pairs: tuple[tuple[int, int], ...] = ()
    notice: str = ""

    def __post_init__(self) -> None:
        missing = [split for split in ("train", "val") if not len(self.splits.get(split, ()))]
        if missing:
            raise DataError(f"{self.name}: an image set needs a train and a val split. Empty: {', '.join(missing)}.")
        sizes = {split.images.shape[2:] for split in self.splits.values()}
        if len(sizes) > 1:
            raise DataError(f"{self.name}: all images must be of one size. Got (H, W) {sorted(sizes)}.")
        outside = [pair for pair in self.flip_pairs if not all(0 <= i < self.num_classes for i in pair)]
        if outside:
            raise DataError(f"{self.name}: flip pairs must be class ids in 0..{self.num_classes - 1}. Got {outside}.")

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def image_size(self) -> Size:
        """(H, W) in px."""
        height, width = self.splits["train"].images.shape[2:]
        return height, width

    def fingerprint(self) -> str:
        """SHA-256 over all that training can see: classes, ignore index, names, labels and images of every split."""
        digest = hashlib.sha256(repr((self.classes, self.ignore_index)).encode())
        for title in sorted(self.splits):
            split = self.splits[title]
            digest.update(repr((title, split.images.shape, split.names)).encode())
            for array in (split.labels, split.images):
                for row in array:  # row by row: a mapped array never has to fit into memory
                    digest.update(np.ascontiguousarray(row).data)
        return digest.hexdigest()

    def summary(self) -> str:
        height, width = self.image_size
        counts = ", ".join(f"{title} {len(split)}" for title, split in self.splits.items())
        kind = "rendered" if self.rendered else "read from files"
        ignored = "" if self.ignore_index is None else f", id {self.ignore_index} ignored"
        return f"{self.name}: {self.num_classes} classes{ignored}, {width} x {height} px (W x H), {counts}; {kind}"


def few_to_choose_on(data: ImageSet) -> str:
    """Say that the validation split is too small to choose a candidate on, where it is."""
    count = len(data.splits["val"])
    if count >= _FEW_TO_CHOOSE_ON:
        return ""
    return (
        f"The validation split has {count} image{'s' if count > 1 else ''}, which is too few to choose on: which "
        f"candidate leads is largely chance below {_FEW_TO_CHOOSE_ON}. Move labelled images there."
    )


def with_labels_to_score(data: ImageSet) -> ImageSet:
    """Leave out a test split in which no pixel has a class, as where its labels are withheld, and say so.

    Raises:
        DataError: No pixel of the train or val split has a class: nothing could be learned or scored.
    """
    empty = [title for title, split in data.splits.items() if not _holds_classes(split, data.ignore_index)]
    for title in empty:
        if title != "test":
            raise DataError(
                f"{data.name}: no label pixel of the split {title} has a class: all are the ignored id "
                f"{data.ignore_index}. Check its labels and the ignore_index."
            )
    if not empty:
        return data
    said = "No label pixel of the split test has a class, so it was left out: no test split."
    splits = {title: split for title, split in data.splits.items() if title not in empty}
    return replace(data, splits=splits, notice=f"{data.notice} {said}".strip())


def _holds_classes(split: Split, ignore_index: int | None) -> bool:
    return ignore_index is None or any(bool((label != ignore_index).any()) for label in split.labels)


@dataclass(frozen=True)
class Item:
    """One image to be read: its name and every file it is made from."""

    name: str
    files: tuple[Path, ...]


class Faults:
    """Collects what is wrong with a data set, so that one message says it all.

    >>> faults = Faults("data/street")
    >>> faults.add("train/images/7.jpg: no label train/labels/7.png")
    >>> faults.check()
    Traceback (most recent call last):
    rfsearch.errors.DataError: data/street: 1 fault: train/images/7.jpg: no label train/labels/7.png
    """

    def __init__(self, where: str | Path) -> None:
        self._where = where
        self._found: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, fault: str) -> None:
        self._found.append(fault)

    def check(self) -> None:
        """Raise one DataError that names the first few faults and counts the rest."""
        if not self._found:
            return
        total, shown = len(self._found), self._found[:_FAULTS_SHOWN]
        if total == 1:
            raise DataError(f"{self._where}: 1 fault: {shown[0]}")
        lines = "".join(f"\n  {fault}" for fault in shown)
        more = f"\n  ... and {total - len(shown)} more" if total > len(shown) else ""
        raise DataError(f"{self._where}: {total} faults:{lines}{more}")


def require_folder(path: Path) -> Path:
    """The path, if it is a folder; else a DataError that names the nearest folder beside it."""
    if path.is_dir():
        return path
    if path.exists():
        raise DataError(f"{path}: a folder is needed, this is a file.")
    missing = path
    while not missing.parent.is_dir():
        missing = missing.parent
    siblings = sorted(entry.name for entry in missing.parent.iterdir() if entry.is_dir())
    if len(siblings) > _SIBLINGS_SHOWN:
        siblings = difflib.get_close_matches(missing.name, siblings, n=_SIBLINGS_SHOWN, cutoff=0.4)
    where = f"{path}: no such folder; {missing.name!r} is not in {missing.parent}."
    raise DataError(where + nearest(missing.name, siblings))


def attempt(function: Callable[[A], R]) -> Callable[[A], R | DataError]:
    """Give the function's DataError back instead of raising it, so that a pool's other calls go on."""

    def call(argument: A) -> R | DataError:
        try:
            return function(argument)
        except DataError as fault:
            return fault

    return call


def thread_pool() -> ThreadPoolExecutor:
    """Threads to read files with: decoders leave Python's lock alone."""
    return ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))


def load_splits(
    items: Mapping[str, Sequence[Item]],
    read: Callable[[Item], tuple[np.ndarray, np.ndarray]],
    size: Size,
    faults: Faults,
    settings: object = None,
    memory_limit_bytes: int | None = None,
    cache: Path | str | None = None,
    tally: dict[str, int] | None = None,
) -> dict[str, Split]:
    """Read every item with a pool of threads: into memory, or into mapped files where all of it exceeds the limit.

    A fault in a set too large for memory is raised at once, so that no faulty cache is left behind.
    read: gives an item's H x W x 3 image and H x W label, both uint8 and of `size`; its DataErrors go to `faults`,
    and the item stays blank. settings: whatever else decides what `read` gives (it enters the cache's key, as do the
    files' paths, lengths and times). memory_limit_bytes: a quarter of the physical memory if None. cache: the folder
    for mapped files, `$XDG_CACHE_HOME/rfsearch` or `~/.cache/rfsearch` if None; used only above the limit. tally: what
    `read` counts on the way; kept with the cache and given back from there.
    """
    tally = {} if tally is None else tally
    height, width = size
    limit = physical_memory() // 4 if memory_limit_bytes is None else memory_limit_bytes
    total = sum(len(split) for split in items.values()) * height * width * 4
    if total <= limit:
        return {title: _read_split(split, read, size, faults, np.empty) for title, split in items.items()}

    root = Path(cache) if cache is not None else _default_cache()
    folder = root / _key(items, size, settings)
    if not folder.is_dir():
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=root, prefix="draft-") as scratch:
                draft = Path(scratch) / "draft"
                draft.mkdir()
                for title, split in items.items():
                    _read_split(split, read, size, faults, _file_allocator(draft, title))
                faults.check()
                (draft / _TALLY).write_text(json.dumps(tally), encoding="utf-8")
                _publish(draft, folder)
        except OSError as cause:
            gigabytes = total / 1e9
            raise DataError(f"{root}: the cache for {gigabytes:.1f} GB of pixels cannot be written: {cause}") from cause
    tally |= json.loads((folder / _TALLY).read_text(encoding="utf-8"))
    return {
        title: Split(
            _map(folder / f"{title}-images.npy"),
            _map(folder / f"{title}-labels.npy"),
            tuple(item.name for item in split),
        )
        for title, split in items.items()
    }


Allocator = Callable[[tuple[int, ...], Any], np.ndarray]


def _read_split(
    items: Sequence[Item],
    read: Callable[[Item], tuple[np.ndarray, np.ndarray]],
    size: Size,
    faults: Faults,
    allocate: Allocator,
) -> Split:
    images = allocate((len(items), 3, *size), np.uint8)
    labels = allocate((len(items), *size), np.uint8)

    def fill(index: int) -> None:
        image, label = read(items[index])
        images[index] = image.transpose(2, 0, 1)
        labels[index] = label

    with thread_pool() as pool:
        for index, result in enumerate(pool.map(attempt(fill), range(len(items)))):
            if isinstance(result, DataError):
                faults.add(str(result))
                images[index], labels[index] = 0, 0
    return Split(images, labels, tuple(item.name for item in items))


def _file_allocator(folder: Path, title: str) -> Allocator:
    kinds = iter(("images", "labels"))

    def allocate(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return np.lib.format.open_memmap(folder / f"{title}-{next(kinds)}.npy", mode="w+", dtype=dtype, shape=shape)

    return allocate


def _publish(draft: Path, folder: Path) -> None:
    try:
        draft.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was first, with the same content
            raise


def _key(items: Mapping[str, Sequence[Item]], size: Size, settings: object) -> str:
    digest = hashlib.sha256(repr((_CACHE_FORMAT, size, settings)).encode())
    for title, split in items.items():
        for item in split:
            digest.update(repr((title, item.name)).encode())
            for file in item.files:
                stat = file.stat() if file.exists() else None
                digest.update(repr((str(file.absolute()), stat and (stat.st_size, stat.st_mtime_ns))).encode())
    return digest.hexdigest()[:32]


def _by_path(array: np.ndarray) -> np.ndarray | Path:
    """The file's path if the array is a whole mapped file; a slice of one is an ordinary array."""
    if isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap) and array.filename is not None:
        return Path(array.filename).absolute()
    return np.asarray(array)


def _map(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r")
    except FileNotFoundError as cause:
        raise DataError(
            f"{path}: the mapped pixels are not on this machine. Choose a cache folder that every worker sees, "
            "or raise the memory limit so that the pixels travel with the task."
        ) from cause


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rfsearch"


def physical_memory() -> int:
    """Return the memory of this machine, in bytes."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # no such question on this system
        return 8 * 2**30
