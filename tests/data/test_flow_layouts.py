"""FlyingChairs, MPI Sintel and KITTI as they unpack: what becomes of their files, and what is refused by name."""

import shutil
import struct

import numpy as np
import pytest
from PIL import Image

from rfsearch.data.chairs import Chairs
from rfsearch.data.fitting import fit
from rfsearch.data.flo import read_flo
from rfsearch.data.flow_pairs import divide, lay_flow
from rfsearch.data.kitti import Kitti, read_kitti_flow
from rfsearch.data.sintel import Sintel
from rfsearch.errors import DataError
from rfsearch.testing import LAYOUT_CHECKS
from tests.flow_folders import SIZE, drawn, write_chairs, write_kitti, write_kitti_flow, write_sintel

LAYOUTS = {
    "chairs": (Chairs(), write_chairs),
    "sintel": (Sintel(), write_sintel),
    "sintel-scenes": (Sintel(passes=("final",), val_scenes=("cave_3",), resize="pad"), write_sintel),
    "kitti": (Kitti(truth="noc", resize="crop"), write_kitti),
}


@pytest.mark.parametrize("check", LAYOUT_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_layout_passes(check, name, tmp_path):
    layout, write = LAYOUTS[name]
    check(layout, write(tmp_path / "set"))


def test_chairs_are_read_as_they_were_drawn(tmp_path):
    data = Chairs().read(write_chairs(tmp_path), None)
    assert data.splits["test"].names == ("00003",)
    assert len(data.splits["train"]) == 4
    assert len(data.splits["val"]) == 1
    pair = drawn(3)
    np.testing.assert_array_equal(
        data.splits["test"].images[0], np.concatenate([pair.first, pair.second], 2).T.swapaxes(1, 2)
    )
    np.testing.assert_array_equal(data.splits["test"].targets[0], pair.flow.transpose(2, 0, 1))
    assert "validation split of FlyingChairs_train_val.txt (1 pairs)" in data.notice


@pytest.mark.parametrize("place", ["data", "FlyingChairs_release", ""])
def test_chairs_are_found_where_they_unpack(place, tmp_path):
    write_chairs(tmp_path / "FlyingChairs_release")
    root = {"data": "FlyingChairs_release/data", "": "", "FlyingChairs_release": "FlyingChairs_release"}[place]
    assert len(Chairs().read(tmp_path / root, None).splits["train"]) == 4


def test_a_part_of_the_chairs_keeps_its_lines(tmp_path):
    write_chairs(tmp_path)
    for file in (tmp_path / "data").glob("00001_*"):
        file.unlink()
    assert Chairs().read(tmp_path, None).splits["test"].names == ("00003",)


CHAIRS_FAULTS = {
    "no split file": (lambda root: (root / "FlyingChairs_train_val.txt").unlink(), "train_val.txt: no such file"),
    "short list": (
        lambda root: (root / "FlyingChairs_train_val.txt").write_text("1\n1\n2\n1\n1\n"),
        "line 6: 1 .train. or 2 .validation. for pair 00006; it ends before",
    ),
    "other label": (
        lambda root: (root / "FlyingChairs_train_val.txt").write_text("1\n1\n2\n7\n1\n1\n"),
        "line 4: 1 .train. or 2 .validation. for pair 00004; got '7'",
    ),
    "missing image": (lambda root: (root / "data/00002_img2.ppm").unlink(), "00002_img2.ppm: no such file"),
    "damaged image": (lambda root: (root / "data/00002_img1.ppm").write_bytes(b"P6 zzz"), "00002_img1.ppm: cannot be"),
    "unequal pair": (
        lambda root: Image.new("RGB", (50, 40)).save(root / "data/00002_img2.ppm"),
        r"00002_img2.ppm: the images of a pair are of one size. Got 50 x 40 px here and 56 x 40 px in 00002_img1.ppm",
    ),
    "unequal flow": (
        lambda root: (root / "data/00002_flow.flo").write_bytes(b"PIEH" + struct.pack("<ii2f", 1, 1, 0, 0)),
        r"00002_flow.flo: flow is of its images' size, 56 x 40 px \(W x H\). Got 1 x 1 px",
    ),
    "cut flow": (
        lambda root: (root / "data/00002_flow.flo").write_bytes((root / "data/00002_flow.flo").read_bytes()[:-8]),
        "00002_flow.flo: 56 x 40 px .* take 17,932 bytes. Got 17,924",
    ),
}


@pytest.mark.parametrize("fault", CHAIRS_FAULTS)
def test_faulty_chairs_are_refused_by_name(fault, tmp_path):
    damage, message = CHAIRS_FAULTS[fault]
    damage(write_chairs(tmp_path))
    with pytest.raises(DataError, match=message):
        Chairs().read(tmp_path, None)


def test_sintel_is_divided_by_scene_and_reads_what_is_not_to_be_scored(tmp_path):
    write_sintel(tmp_path)
    data = Sintel(val_scenes=("bamboo_2",), test_scenes=("cave_3",)).read(tmp_path, None)
    assert data.splits["val"].names == tuple(f"{p}/bamboo_2/frame_000{k}" for p in ("clean", "final") for k in (1, 2))
    assert {name.split("/")[1] for name in data.splits["train"].names} == {"alley_1"}
    first = data.splits["train"]
    pair = drawn(1)
    np.testing.assert_array_equal(np.isnan(first.targets[0]), ~np.broadcast_to(pair.visible, (2, *SIZE)))
    known = first.targets[0][:, pair.visible]
    np.testing.assert_array_equal(known, pair.flow.transpose(2, 0, 1)[:, pair.visible])
    np.testing.assert_array_equal(first.images[0][:3].transpose(1, 2, 0), pair.first // 2)
    np.testing.assert_array_equal(first.images[0][3:].transpose(1, 2, 0), drawn(2).first // 2)  # the next frame
    assert (first.images[2] == first.images[0] + 20).all()  # the same pair in the final pass


SINTEL_FAULTS = {
    "unknown scene": (Sintel(val_scenes=("aley_1",)), "flow/aley_1: no such scene. Did you mean 'alley_1'"),
    "scene in two": (
        Sintel(val_scenes=("alley_1",), test_scenes=("alley_1",)),
        "In val_scenes and test_scenes: alley_1",
    ),
    "nothing left": (Sintel(val_scenes=("alley_1", "bamboo_2", "cave_3")), "one scene to train on"),
}


@pytest.mark.parametrize("fault", SINTEL_FAULTS)
def test_scenes_that_cannot_be_held_out_are_refused(fault, tmp_path):
    layout, message = SINTEL_FAULTS[fault]
    with pytest.raises(DataError, match=message):
        layout.read(write_sintel(tmp_path), None)


def test_sintel_without_a_pass_or_a_frame_is_refused(tmp_path):
    write_sintel(tmp_path)
    (tmp_path / "training/clean/alley_1/frame_0003.png").unlink()
    with pytest.raises(
        DataError, match="alley_1/frame_0002.flo: there are no images .*frame_0002.png and of the frame"
    ):
        Sintel().read(tmp_path, None)
    shutil.rmtree(tmp_path / "training/final")
    with pytest.raises(DataError, match="final"):
        Sintel().read(tmp_path, None)


@pytest.mark.parametrize("images", ["image_2", "colored_0", "image_0"])
def test_kitti_is_read_to_its_steps_of_a_64th(images, tmp_path):
    data = Kitti().read(write_kitti(tmp_path, images=images), None)
    assert {title: len(split) for title, split in data.splits.items()} == {"train": 4, "val": 1, "test": 1}
    for split in data.splits.values():
        for name, flow in zip(split.names, split.targets, strict=True):
            expected = drawn(100 + int(name)).flow.transpose(2, 0, 1)
            np.testing.assert_allclose(flow, expected, atol=1 / 128 + 1e-4)
            assert (flow * 64 == np.rint(flow * 64)).all()


def test_kitti_without_occluded_pixels(tmp_path):
    split = Kitti(truth="noc").read(write_kitti(tmp_path), None).splits["train"]
    known = np.isfinite(split.targets[0]).all(axis=0)
    np.testing.assert_array_equal(known, drawn(100 + int(split.names[0])).visible)
    assert 0 < known.mean() < 1


def test_a_file_that_is_no_kitti_flow_is_refused_by_name(tmp_path):
    path = tmp_path / "000000_10.png"
    with pytest.raises(DataError, match="000000_10.png: no such file"):
        read_kitti_flow(path)
    Image.new("RGB", (4, 3)).save(path)
    with pytest.raises(DataError, match="000000_10.png: .* 3 channels of 16 bits. Got 3 of 8 bits"):
        read_kitti_flow(path)
    write_kitti_flow(path, np.zeros((3, 4, 2)), np.ones((3, 4), bool))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match="000000_10.png: cannot be decoded as PNG"):
        read_kitti_flow(path)


def test_kitti_without_an_image_is_refused_by_name(tmp_path):
    write_kitti(tmp_path)
    (tmp_path / "training/image_2/000003_11.png").unlink()
    with pytest.raises(DataError, match="flow_occ/000003_10.png: there is no image .*000003_11.png"):
        Kitti().read(tmp_path, None)


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_resized_vectors_end_where_resized_points_do(resize):
    """A point and where it goes, both moved to the canvas by hand, are apart by the vector that is read there."""
    height, width, target = 40, 60, (24, 24)
    y, x = np.mgrid[:height, :width].astype(float)
    flow = np.stack([0.2 * x - 3, 4 - 0.1 * y], axis=2)
    placed = fit((height, width), target, resize)
    laid = lay_flow(flow, placed)
    assert laid.shape == (2, *target)
    left, upper, right, lower = placed.box
    across, down = placed.size[1] / (right - left), placed.size[0] / (lower - upper)
    assert {"stretch": (0.4, 0.6), "crop": (0.6, 0.6), "pad": (0.4, 0.4)}[resize] == pytest.approx((across, down))
    inside = np.isfinite(laid).all(axis=0)
    assert inside.all() == (resize != "pad")
    for row, column in np.argwhere(inside):
        at = (
            (column - placed.corner[0] + 0.5) / across + left - 0.5,
            (row - placed.corner[1] + 0.5) / down + upper - 0.5,
        )
        # The nearest pixel is half a pixel away at most, where the field is another by a tenth of a pixel at most.
        expected = (0.2 * at[0] - 3) * across, (4 - 0.1 * at[1]) * down
        np.testing.assert_allclose(laid[:, row, column], expected, atol=0.11 * max(across, down))


def test_groups_are_divided_alike_each_time():
    names = [f"scene {k}" for k in range(23)]
    titles = divide(names)
    assert titles == divide(names[::-1])
    assert [list(titles.values()).count(title) for title in ("train", "val", "test")] == [15, 4, 4]
    assert sorted(divide(["a", "b"]).values()) == ["train", "val"]


def test_unknown_flow_of_a_file_is_unknown_in_the_set(tmp_path):
    write_chairs(tmp_path)
    file = tmp_path / "data/00003_flow.flo"
    body = bytearray(file.read_bytes())
    body[12:16] = struct.pack("<f", 1e10)
    file.write_bytes(body)
    assert np.isnan(read_flo(file)).sum() == 2
    assert np.isnan(Chairs().read(tmp_path, None).splits["test"].targets).sum() == 2
