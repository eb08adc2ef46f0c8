"""Object sizes on label maps drawn by hand, whose answer is known."""

import time

import numpy as np
import pytest

from rfsearch.data import Split, rendered_faces
from rfsearch.data.object_sizes import SMALLEST_AREA, object_sizes

CLASSES = ("background", "car", "pole", "void")


def drawn(*boxes: tuple[int, int, int, int, int], size: tuple[int, int] = (40, 60)) -> np.ndarray:
    """One H x W label map. boxes: (class id, top, left, height, width), later ones on top."""
    label = np.zeros(size, np.uint8)
    for class_id, top, left, height, width in boxes:
        label[top : top + height, left : left + width] = class_id
    return label


def px(labels: np.ndarray, **options: object) -> dict[str, list[int]]:
    found = object_sizes(labels, CLASSES, **options)
    return {name: sizes.tolist() for name, sizes in found.px.items()}


def test_a_size_is_the_longer_side_of_an_objects_box_and_objects_of_all_images_count():
    first = drawn((1, 2, 3, 5, 12), (1, 20, 3, 9, 2), (2, 10, 40, 30, 2))
    second = drawn((1, 0, 0, 7, 7))
    assert px(np.stack([first, second])) == {"car": [7, 9, 12], "pole": [30], "void": []}


def test_corners_connect_and_classes_do_not():
    diagonal = np.zeros((20, 20), np.uint8)
    np.fill_diagonal(diagonal[:15, :15], 1)
    beside = drawn((1, 0, 0, 4, 10), (2, 0, 10, 4, 10))
    assert px(diagonal[None])["car"] == [15]
    assert px(beside[None]) == {"car": [10], "pole": [10], "void": []}


def test_what_stands_behind_another_object_counts_as_its_visible_parts():
    occluded = drawn((1, 10, 5, 8, 40), (2, 0, 20, 40, 3))
    assert px(occluded[None]) == {"car": [15, 22], "pole": [40], "void": []}


def test_specks_are_no_objects():
    assert SMALLEST_AREA == 4
    assert px(drawn((1, 0, 0, 1, 3), (1, 10, 10, 2, 2), (2, 20, 0, 3, 1))[None]) == {"car": [2], "pole": [], "void": []}


def test_background_and_ignored_pixels_are_no_objects():
    label = drawn((1, 0, 0, 6, 6), (3, 20, 20, 10, 10))
    assert px(label[None], ignore_index=3) == {"car": [6], "pole": []}
    unnamed = np.where(label == 3, 255, label).astype(np.uint8)
    assert px(unnamed[None], ignore_index=255) == {"car": [6], "pole": [], "void": []}
    assert "background" in px(label[None], leave_out=())


def test_many_images_are_sampled_evenly():
    labels = np.stack([drawn((1, 0, 0, 4, i + 4)) for i in range(11)])
    found = object_sizes(labels, CLASSES, most_images=3)
    assert found.px["car"].tolist() == [4, 9, 14]
    assert found.images == 3
    assert object_sizes(labels, CLASSES, most_images=1).px["car"].tolist() == [4]
    assert object_sizes(labels, CLASSES).images == 11


def test_a_split_gives_what_its_labels_give():
    split = rendered_faces(3, 1, 1, (48, 48)).splits["train"]
    classes = [str(i) for i in range(11)]
    of_split, of_labels = object_sizes(split, classes), object_sizes(split.targets, classes)
    assert isinstance(split, Split)
    assert {k: v.tolist() for k, v in of_split.px.items()} == {k: v.tolist() for k, v in of_labels.px.items()}


def test_label_maps_are_a_stack():
    with pytest.raises(ValueError, match=r"N x H x W. Got labels.shape=\(40, 60\)"):
        object_sizes(drawn(), CLASSES)


def sized(**sizes: list[int]):
    """Objects of these widths, each in an image of its own."""
    names = list(sizes)
    labels = [drawn((names.index(n) + 1, 0, 0, 4, w), size=(8, 128)) for n in names for w in sizes[n]]
    return object_sizes(np.stack(labels), ("background", *names, "unseen"))


def test_quantiles_are_of_each_class():
    extents = sized(car=list(range(10, 111)), pole=[20]).extents()
    assert (extents["car"].count, extents["car"].low, extents["car"].median, extents["car"].high) == (101, 20, 60, 100)
    assert extents["pole"].median == 20
    assert set(extents) == {"car", "pole"}


def test_a_field_is_compared_with_the_median_object_of_every_class():
    found = sized(car=[50, 60, 70], pole=[4, 30, 100], sign=[8, 9, 10])
    compared = found.compare(30)
    assert (compared.larger, compared.smaller, compared.absent) == (("car",), ("sign", "pole"), ("unseen",))
    assert str(compared) == (
        "The median object is larger than a field of 30 px for car. "
        "A field of 30 px covers the median object of sign, pole. No objects: unseen."
    )
    assert found.compare(29).larger == ("pole", "car")
    assert str(found.compare(100)).startswith("A field of 100 px covers")


def test_the_histogram_counts_every_object_once_in_bins_of_half_an_octave():
    edges, counts = sized(car=[4, 5, 6, 8, 64], pole=[127]).histogram()
    assert edges[:5] == pytest.approx([1, 2**0.5, 2, 2**1.5, 4])
    assert edges[-2] <= 127 < edges[-1]
    assert {round(edge): int(n) for edge, n in zip(edges[:-1], counts["car"], strict=True) if n} == {
        4: 2,
        6: 1,
        8: 1,
        64: 1,
    }
    assert counts["pole"].sum() == 1
    assert counts["unseen"].sum() == 0
    on_the_edge, _ = sized(car=[64]).histogram()
    assert on_the_edge[-2] == 64


def test_five_hundred_small_images_take_about_a_second():
    tile = rendered_faces(32, 1, 1, (96, 96)).splits["train"].targets
    labels = np.concatenate([tile] * 16)
    started = time.process_time()
    found = object_sizes(labels, [str(i) for i in range(11)])
    assert found.images == 512
    assert time.process_time() - started < 3  # 0.4 s on one core; the rest is for a busy machine
