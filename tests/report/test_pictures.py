from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rfsearch.report.pictures import gallery
from rfsearch.tasks.colours import IGNORED, PALETTE, colour, coloured
from rfsearch.tasks.pictures import Pictures
from tests.report.made_up import examples


def decoded(uri: str) -> np.ndarray:
    head, body = uri.split(",", 1)
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))).convert("RGB"))


def test_maps_carry_the_palette_and_pictures_their_pixels(tmp_path: Path) -> None:
    examples(tmp_path / "t")
    with np.load(tmp_path / "t" / "examples.npz") as held:
        images, truth, prediction = held["images"], held["truth"], held["prediction"]
    shown = gallery(tmp_path / "t" / "examples.npz", ["ground", "skin"])
    assert shown is not None
    assert [name for name, _ in shown.legend] == ["ground", "skin", "class 2", "ignored"]
    for i, (image, true, called) in enumerate(shown.images):
        assert (decoded(image.uri) == images[i].transpose(1, 2, 0)).all()
        for part, labels in ((true, truth[i]), (called, prediction[i])):
            assert (decoded(part.uri) == np.array([colour(c) for c in labels.ravel()]).reshape(*labels.shape, 3)).all()
        labelled = truth[i] != IGNORED
        share = (truth[i] == prediction[i])[labelled].mean()
        said = called.caption.removeprefix("recommended, ").removesuffix(" %")
        assert float(said) == pytest.approx(100 * share, rel=1e-2)


def test_pictures_of_any_task_are_shown_as_it_drew_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, 256, (3, 20, 30, 3), np.uint8) for _ in range(3)]
    legend = {"near": (255, 0, 0), "far": (0, 0, 255)}
    with (tmp_path / "examples.npz").open("wb") as file:
        Pictures(*drawn, ("0.1 m", "", "2 m"), legend, "The figure is the mean error.").write(file)
    shown = gallery(tmp_path / "examples.npz", ["no", "classes"], limit=2)
    assert shown is not None
    assert shown.legend == (("near", "#ff0000"), ("far", "#0000ff"))
    assert shown.says == "The figure is the mean error."
    assert [parts[-1].caption for parts in shown.images] == ["recommended, 0.1 m", "recommended"]
    for i, parts in enumerate(shown.images):
        for part, pixels in zip(parts, drawn, strict=True):
            assert (decoded(part.uri) == pixels[i]).all()


def test_class_maps_keep_their_colours_when_they_are_reduced(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 24, (1, 500, 400), np.uint8)
    maps = coloured(labels)
    with (tmp_path / "examples.npz").open("wb") as file:
        Pictures(maps, maps, maps, ("",), {}).write(file)
    shown = gallery(tmp_path / "examples.npz", [])
    assert shown is not None
    found = {tuple(pixel) for pixel in decoded(shown.images[0][1].uri).reshape(-1, 3).tolist()}
    assert found == {colour(k) for k in range(24)}


def test_large_pictures_are_reduced(tmp_path: Path) -> None:
    big = np.zeros((1, 3, 800, 1000), np.uint8)
    labels = np.ones((1, 800, 1000), np.uint8)
    np.savez_compressed(tmp_path / "examples.npz", images=big, truth=labels, prediction=labels)
    shown = gallery(tmp_path / "examples.npz", [])
    assert shown is not None
    assert decoded(shown.images[0][0].uri).shape == (256, 320, 3)
    assert shown.images[0][2].caption == "recommended, 100 %"


@pytest.mark.parametrize(
    "arrays",
    [
        {"images": np.zeros((1, 3, 4, 4), np.uint8)},
        {"images": np.zeros((0, 3, 4, 4)), "truth": np.zeros((0, 4, 4)), "prediction": np.zeros((0, 4, 4))},
        {"images": np.zeros((1, 3, 4, 4)), "truth": np.zeros((1, 5, 4)), "prediction": np.zeros((1, 5, 4))},
        {"images": np.zeros((1, 4, 4)), "truth": np.zeros((1, 4, 4)), "prediction": np.zeros((1, 4, 4))},
    ],
)
def test_odd_examples_are_none(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "examples.npz", **arrays)
    assert gallery(tmp_path / "examples.npz", []) is None


def test_missing_examples_are_none(tmp_path: Path) -> None:
    assert gallery(tmp_path / "examples.npz", []) is None


def test_palette_tells_its_classes_apart() -> None:
    colours = np.array(PALETTE, float)
    apart = np.abs(colours[:, None] - colours[None]).sum(-1)
    np.fill_diagonal(apart, np.inf)
    assert apart[:12, :12].min() >= 110
    assert apart.min() >= 75
    assert len({colour(i) for i in range(2 * len(PALETTE))}) == 2 * len(PALETTE)


def test_what_two_networks_see_is_compared_pixel_by_pixel(tmp_path: Path) -> None:
    truth = np.array([[[0, 1, 2, 0]]], np.uint8)
    ours, theirs = np.array([[[0, 1, 1, 0]]], np.uint8), np.array([[[1, 0, 0, 0]]], np.uint8)
    images = np.zeros((1, 3, 1, 4), np.uint8)
    for name, prediction in (("ours", ours), ("theirs", theirs)):
        np.savez_compressed(tmp_path / f"{name}.npz", images=images, truth=truth, prediction=prediction)
    shown = gallery(tmp_path / "ours.npz", ["a", "b", "c"], tmp_path / "theirs.npz", "hand default")
    assert shown is not None
    assert shown.compared
    assert [part.caption for part in shown.images[0]] == [
        "image", "truth", "recommended, 75.0 %", "hand default, 25.0 %", "difference",
    ]  # fmt: skip
    first, second, third, fourth = decoded(shown.images[0][-1].uri)[0].tolist()
    assert first == second  # ours alone is right
    assert len({tuple(first), tuple(third), tuple(fourth)}) == 3
    swapped = gallery(tmp_path / "theirs.npz", [], tmp_path / "ours.npz", "other")
    assert swapped is not None
    assert decoded(swapped.images[0][-1].uri)[0].tolist()[0] != first


def test_other_images_are_not_compared(tmp_path: Path) -> None:
    for seed, name in enumerate(("ours", "theirs")):
        labels = np.full((1, 2, 2), seed, np.uint8)
        np.savez_compressed(tmp_path / f"{name}.npz", images=np.zeros((1, 3, 2, 2), np.uint8), truth=labels,
                            prediction=labels)  # fmt: skip
    shown = gallery(tmp_path / "ours.npz", ["a"], tmp_path / "theirs.npz", "hand default")
    assert shown is not None
    assert len(shown.images[0]) == 3
