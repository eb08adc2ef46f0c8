"""Fill the splits of an image set from files, into memory or into memory-mapped files."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rfsearch.data.faults import Faults
from rfsearch.data.image_set import Size, Split, map_array
from rfsearch.data.threads import attempt, thread_pool
from rfsearch.errors import DataError

_CACHE_FORMAT = 2  # part of every cache key; raise it when the arrays' meaning changes
_TALLY = "tally.json"


@dataclass(frozen=True)
class Item:
    """Name an image to be read, and every file it is made from."""

    name: str
    files: tuple[Path, ...]


def nfc(name: str) -> str:
    """Return a file's name in Unicode's composed form: file systems and lists write the same name in either form."""
    return unicodedata.normalize("NFC", name)


def physical_memory() -> int:
    """Return the memory of this machine, in bytes."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # no such question on this system
        return 8 * 2**30


def load_splits(
    items: Mapping[str, Sequence[Item]],
    read: Callable[[Item], tuple[np.ndarray, np.ndarray]],
    size: Size,
    faults: Faults,
    settings: object = None,
    memory_limit_bytes: int | None = None,
    cache: Path | str | None = None,
    tally: dict[str, int] | None = None,
    target: tuple[tuple[int, ...], Any] | None = None,
) -> dict[str, Split]:
    """Read every item with a pool of threads: into memory, or into mapped files where all of it exceeds the limit.

    Args:
        items: Of each split.
        read: Returns an item's H x W x 3 image and H x W label, both uint8 and of `size`, or another target. Its
            DataErrors go to `faults`, and the item stays blank.
        size: (H, W) px.
        faults: Gets what is wrong with items.
        settings: Whatever else decides what `read` returns. It is part of the cache's key, as are the files' paths,
            lengths and times.
        memory_limit_bytes: Size of the pixels above which the cache is used. None: a quarter of the physical memory.
        cache: Folder for mapped files. None: `$XDG_CACHE_HOME/rfsearch` or `~/.cache/rfsearch`.
        tally: What `read` counts on the way. It is kept with the cache, and read from there.
        target: Shape and dtype of an item's target. None: H x W uint8, a label.

    Raises:
        DataError: The cache cannot be written, or an item of a set too large for memory is faulty, so that no faulty
            cache is left behind.
    """
    tally = {} if tally is None else tally
    height, width = size
    limit = physical_memory() // 4 if memory_limit_bytes is None else memory_limit_bytes
    target = target or (size, np.uint8)
    item_bytes = 3 * height * width + math.prod(target[0]) * np.dtype(target[1]).itemsize
    total = sum(len(split) for split in items.values()) * item_bytes
    if total <= limit:
        return {title: _read_split(split, read, size, target, faults, np.empty) for title, split in items.items()}

    root = Path(cache) if cache is not None else default_cache()
    folder = root / _key(items, size, settings)
    if not folder.is_dir():
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=root, prefix="draft-") as scratch:
                draft = Path(scratch) / "draft"
                draft.mkdir()
                for title, split in items.items():
                    _read_split(split, read, size, target, faults, _file_allocator(draft, title))
                faults.check()
                (draft / _TALLY).write_text(json.dumps(tally), encoding="utf-8")
                _publish(draft, folder)
        except OSError as cause:
            gigabytes = total / 1e9
            raise DataError(f"{root}: the cache for {gigabytes:.1f} GB of pixels cannot be written: {cause}") from cause
    tally |= json.loads((folder / _TALLY).read_text(encoding="utf-8"))
    return {
        title: Split(
            map_array(folder / f"{title}-images.npy"),
            map_array(folder / f"{title}-labels.npy"),
            tuple(item.name for item in split),
        )
        for title, split in items.items()
    }


Allocator = Callable[[tuple[int, ...], Any], np.ndarray]


def _read_split(
    items: Sequence[Item],
    read: Callable[[Item], tuple[np.ndarray, np.ndarray]],
    size: Size,
    target: tuple[tuple[int, ...], Any],
    faults: Faults,
    allocate: Allocator,
) -> Split:
    shape, dtype = target
    images = allocate((len(items), 3, *size), np.uint8)
    labels = allocate((len(items), *shape), dtype)

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


def default_cache() -> Path:
    """Return the user's folder for what is costly to make again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rfsearch"
