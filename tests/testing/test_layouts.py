"""The suite for layouts: a sound one passes it, and each kind of broken layout fails just the check that is meant."""

import random
import time
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ConfigDict, Field

from rfsearch.data import Folder, Layout, rendered_faces
from rfsearch.errors import DataError
from rfsearch.testing import layouts
from tests.data.test_folder_kinds import put


class _Drawn(Layout):
    """Rendered faces of a folder that has a file `faces`."""

    def read(self, root, size, *, cache=None, memory_limit_bytes=None):
        if not (root / "faces").is_file():
            raise DataError(f"{root}: there is no file faces.")
        return rendered_faces(3, 2, 0, size or (36, 48), seed=self.seed())

    def seed(self):
        return 0


class _ForgetsItsKey(_Drawn):
    key: int = Field(default=3, exclude=True)


class _TakesAnyKey(_Drawn):
    model_config = ConfigDict(extra="allow")


class _ShufflesImages(_Drawn):
    def seed(self):
        return random.getrandbits(30)


class _IgnoresTheSize(_Drawn):
    def read(self, root, size, **how):
        return super().read(root, None, **how)


class _UnknownIds(_Drawn):
    def read(self, root, size, **how):
        return replace(super().read(root, size, **how), classes=("a", "b"), flip_pairs=())


class _ValidatesOnTrainingImages(_Drawn):
    def read(self, root, size, **how):
        data = super().read(root, size, **how)
        return replace(data, splits={"train": data.splits["train"], "val": data.splits["train"]})


class _OtherImagesWhenMapped(_Drawn):
    def read(self, root, size, *, cache=None, memory_limit_bytes=None):
        return super().read(root, size) if memory_limit_bytes is None else rendered_faces(3, 2, 0, (36, 48), seed=1)


class _WritesBesideTheData(_Drawn):
    def read(self, root, size, **how):
        data = super().read(root, size, **how)
        (root / "index").write_text(str(time.time_ns()))
        return data


class _TrustsTheFolder(_Drawn):
    def read(self, root, size, **how):
        (root / "faces").read_text()
        return super().read(root, size, **how)


class _GivesADictOfArrays(_Drawn):
    def read(self, root, size, **how):
        return super().read(root, size, **how).splits


TABLE = "layout_is_a_table_of_keys"
TRAINABLE = "layout_reads_images_that_can_be_trained_on"
BROKEN_LAYOUTS = [
    (_ForgetsItsKey(key=4), TABLE, "survives JSON unchanged"),
    (_TakesAnyKey(), TABLE, "refuses a key that is none of its fields"),
    (_UnknownIds(), TRAINABLE, r"ids of the 2 classes, .* split train also holds \[2, "),
    (_ValidatesOnTrainingImages(), TRAINABLE, "no image is in two splits"),
    (_GivesADictOfArrays(), TRAINABLE, "read gives an ImageSet. Got dict"),
    (_ShufflesImages(), "layout_repeats_itself", "twice gives the same images"),
    (_IgnoresTheSize(), "layout_gives_the_size_that_is_asked_for", r"\(40, 56\). Got \(36, 48\)"),
    (_OtherImagesWhenMapped(), "layout_reads_alike_within_any_memory", "the memory limit changes no image"),
    (_WritesBesideTheData(), "layout_leaves_the_folder_alone", "reading changes no file"),
    (_TrustsTheFolder(), "layout_reports_a_folder_that_is_none_of_its_own", "is a DataError. Got FileNotFoundError"),
]


@pytest.fixture
def faces(tmp_path):
    (tmp_path / "faces").touch()
    return tmp_path


@pytest.mark.parametrize("check", layouts.LAYOUT_CHECKS, ids=lambda check: check.__name__)
def test_a_sound_layout_passes(check, faces):
    check(_Drawn(), faces)


@pytest.mark.parametrize("check", layouts.LAYOUT_CHECKS, ids=lambda check: check.__name__)
def test_the_folder_layout_passes(check, tmp_path):
    for title in ("train", "val"):
        for name in ("0", "1"):
            put(
                tmp_path,
                title,
                f"{title}{name}",
                np.full((24, 32, 3), int(name), np.uint8),
                label=np.eye(24, 32, dtype=np.uint8),
            )
    check(Folder(), tmp_path)


@pytest.mark.parametrize(("layout", "check", "message"), BROKEN_LAYOUTS, ids=lambda value: str(value)[:60])
def test_a_broken_layout_fails(layout, check, message, faces):
    with pytest.raises(AssertionError, match=message):
        getattr(layouts, check)(layout, faces)
