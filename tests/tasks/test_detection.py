"""Detection: average precision against loops, boxes that move as the pixels do, and what is left out of a loss."""

import importlib.util
from functools import partial

import numpy as np
import pytest
import torch

from rfsearch.data import Split
from rfsearch.data.batches import Augment, Batches
from rfsearch.data.box_rows import NOTHING, PROPOSAL, intersections, padded, split_rows
from rfsearch.data.image_set import ImageSet
from rfsearch.data.rendered_objects import rendered_objects
from rfsearch.detector import Detected
from rfsearch.errors import DataError, ModelError, TrialError
from rfsearch.tasks.detection import Detection
from rfsearch.tasks.metrics.average_precision import (
    Found,
    Truth,
    area_under_curve,
    eleven_points,
    precision_and_recall,
    voc_scores,
)
from rfsearch.testing import TASK_CHECKS, boxed_objects, grid_outputs
from tests.references import average_precision_loops as loops

CPU = torch.device("cpu")


def random_scene(seed):
    """Images with boxes of three classes, the last without objects; detections near them and anywhere, many tied."""
    rng = np.random.default_rng(seed)
    found, truths = [], []
    for _ in range(6):
        corners = rng.uniform(0, 60, (rng.integers(0, 5), 2))
        boxes = np.concatenate([corners, corners + rng.uniform(8, 40, corners.shape)], axis=1)
        labels = rng.integers(0, 2, len(boxes))
        truths.append(Truth(boxes, labels, rng.random(len(boxes)) < 0.3))
        near = np.repeat(boxes, 2, axis=0) + rng.normal(0, 4, (2 * len(boxes), 4))
        anywhere = rng.uniform(0, 40, (3, 4)) + np.array([0, 0, 40, 40])
        seen = np.concatenate([near, anywhere])
        called = np.concatenate([np.repeat(labels, 2), rng.integers(0, 3, 3)])
        found.append(Found(seen, rng.integers(0, 6, len(seen)) / 5, called))  # of six scores, so that many are equal
    return found, truths


@pytest.mark.parametrize("seed", range(12))
def test_average_precision_is_that_of_loops_over_everything(seed):
    found, truths = random_scene(seed)
    for label in range(3):
        detections = [
            (image, score, tuple(box))
            for image, seen in enumerate(found)
            for box, score, k in zip(seen.boxes, seen.scores, seen.labels, strict=True)
            if k == label
        ]
        objects = [
            (image, tuple(box), bool(difficult))
            for image, truth in enumerate(truths)
            for box, k, difficult in zip(truth.boxes, truth.labels, truth.difficult, strict=True)
            if k == label
        ]
        expected = loops.curve(detections, objects)
        got = precision_and_recall(found, truths, label)
        if expected is None:
            assert got is None
            continue
        assert got is not None
        np.testing.assert_allclose(got, expected, atol=1e-12)
        assert area_under_curve(*got) == pytest.approx(loops.area(*expected), abs=1e-12)
        assert eleven_points(*got) == pytest.approx(loops.eleven(*expected), abs=1e-12)


def test_classes_without_objects_that_must_be_found_are_in_no_mean():
    box = np.array([[0.0, 0, 10, 10]])
    found = [Found(np.repeat(box, 2, 0), np.array([0.9, 0.8]), np.array([0, 1]))]
    truths = [Truth(np.repeat(box, 2, 0), np.array([0, 1]), np.array([False, True]))]
    assert voc_scores(found, truths, 3) == {"map50_classmean": 1.0, "map50_11pt_classmean": 1.0, "ap_0": 1.0}
    assert voc_scores(found, [Truth(box, np.array([1]), np.array([True]))], 3) == {}


@pytest.mark.skipif(importlib.util.find_spec("torchmetrics") is None, reason="needs the extra detection")
def test_cocos_average_at_a_half_is_the_area_where_each_box_is_found_once_and_ranks_by_score():
    from rfsearch.tasks.metrics.coco import coco_scores

    boxes = np.array([[0.0, 0, 20, 20], [30, 30, 60, 60], [70, 0, 90, 30]])
    truths = [Truth(boxes, np.array([0, 0, 1]), np.zeros(3, bool))]
    perfect = coco_scores([Found(boxes, np.array([0.9, 0.8, 0.7]), np.array([0, 0, 1]))], truths)
    assert perfect["map_coco"] == pytest.approx(1.0)
    half = [Found(boxes[:1], np.array([0.9]), np.array([0]))]
    assert coco_scores(half, truths)["map50_coco"] == pytest.approx((51 / 101 + 0) / 2, abs=1e-3)  # 101 recalls
    crowd = [Truth(boxes, np.array([0, 0, 1]), np.array([False, True, False]))]
    assert coco_scores(half, crowd)["map50_coco"] == pytest.approx(0.5)


def test_boxes_move_as_the_pixels_of_their_images_do():
    """Each image is one white box; where it lies after augmentation is where the moved box is."""
    rng = np.random.default_rng(0)
    size, count = (60, 84), 24
    images, rows = np.zeros((count, 3, *size), np.uint8), []
    for i in range(count):
        left, upper = rng.integers(8, 40), rng.integers(8, 30)
        right, lower = left + rng.integers(10, 30), upper + rng.integers(10, 20)
        images[i, :, upper:lower, left:right] = 255
        rows.append(np.array([[left, upper, right, lower, 0, 0]], np.float32))
    split = Split(images, padded(rows), tuple(map(str, range(count))))
    data = ImageSet("toy", ("thing",), None, {"train": split, "val": split})
    task = Detection(Detection.Keys(min_visible=0.0), data)
    augment = Augment(flip=True, scale=(0.7, 1.4), shift=0.3, crop=(48, 56))
    seen = 0
    for step in range(6):
        pixels, target = Batches(split, 4, 0, task, augment).at(step)
        bright = pixels.mean(1) > 0.9  # 0 is what comes from outside, below it what was black
        for mask, (box,) in zip(bright, target, strict=True):
            if box[4] == NOTHING or min(box[2] - box[0], box[3] - box[1]) < 3:
                continue
            lines, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
            expected = torch.tensor([columns.min(), lines.min(), columns.max() + 1, lines.max() + 1]).float()
            torch.testing.assert_close(box[:4], expected, atol=1.0, rtol=0)
            seen += 1
    assert seen > 10


def moved(rows, keys=None, pairs=(), **grid):
    """Rows after a motion of a 40 x 40 image: mirrored, or shifted to the right by so many px."""
    split = Split(np.zeros((1, 3, 40, 40), np.uint8), padded([np.array(rows, np.float32)]), ("one",))
    data = ImageSet("toy", ("left", "right"), None, {"train": split, "val": split}, flip_pairs=pairs)
    task = Detection(keys or Detection.Keys(), data)
    from rfsearch.data.batches import Motion

    centres = (2 * torch.arange(40) + 1) / 40 - 1
    across = centres - 2 * grid.get("right", 0) / 40
    plane = torch.stack(torch.meshgrid(across * (-1 if grid.get("mirrored") else 1), centres, indexing="xy"), -1)
    motion = Motion(plane[None], torch.tensor([bool(grid.get("mirrored"))]), torch.ones(1))
    return task.moved(task.target(torch.from_numpy(split.targets)), motion)[0]


def test_a_box_that_leaves_is_clipped_and_then_dropped():
    box = [10, 10, 30, 20, 1, 0]
    assert moved([box], right=15)[0].tolist() == pytest.approx([25, 10, 40, 20, 1, 0], abs=1e-4)
    assert moved([box], right=25)[0].tolist() == pytest.approx([35, 10, 40, 20, 1, 0], abs=1e-4)  # a quarter is left
    assert moved([box], right=26)[0].tolist() == [0, 0, 0, 0, NOTHING, 0]


def test_a_mirrored_image_exchanges_the_classes_of_a_pair_and_keeps_proposals():
    rows = moved(
        [[0, 0, 10, 10, 0, 0], [5, 5, 20, 20, 1, 1], [4, 4, 8, 8, PROPOSAL, 0]], pairs=((0, 1),), mirrored=True
    )
    expected = [[30, 0, 40, 10, 1, 0], [20, 5, 35, 20, 0, 1], [32, 4, 36, 8, PROPOSAL, 0]]
    torch.testing.assert_close(rows, torch.tensor(expected, dtype=torch.float32), atol=1e-4, rtol=0)


class Canned(torch.nn.Module):
    """Finds what it was made with, and keeps the objects that it was to learn from."""

    def __init__(self, found):
        super().__init__()
        self.found, self.told = found, []

    def forward(self, images):
        self.out = images.new_zeros(len(images), 1, 2, 2)
        return self

    def loss(self, objects):
        self.told += objects
        return self.out.sum()

    def detections(self):
        return [self.found] * len(self.out)


def test_difficult_objects_are_not_trained_on():
    data = boxed_objects()
    rows = data.splits["train"].targets.copy()
    rows[0] = padded([np.array([[1, 2, 30, 40, 3, 0], [5, 5, 9, 9, 1, 1], [2, 2, 7, 7, PROPOSAL, 0]], np.float32)], 6)
    task = Detection(Detection.Keys(), data)
    network = Canned(None)
    task.loss(network(torch.zeros(1, 3, 64, 64)), torch.from_numpy(rows[:1]))
    (told,) = network.told
    assert told.boxes.tolist() == [[1, 2, 30, 40]]
    assert told.labels.tolist() == [3]
    assert told.proposals.tolist() == [[2, 2, 7, 7]]


def test_a_split_without_objects_has_no_score():
    data = boxed_objects()
    empty = Split(data.splits["val"].images, padded([np.zeros((0, 6))] * 5), data.splits["val"].names)
    network = Canned(Detected(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64)))
    with pytest.raises(TrialError, match="map50_classmean is undefined"):
        Detection(Detection.Keys(), data).evaluate(network, empty, 2, CPU)


def test_other_targets_and_other_networks_are_refused():
    faces = boxed_objects()
    labels = Split(faces.splits["val"].images, np.zeros((5, 64, 64), np.uint8), faces.splits["val"].names)
    with pytest.raises(DataError, match="detection needs rows of boxes, 5 x M x 6 float32. Got 5 x 64 x 64 uint8"):
        Detection(Detection.Keys(), ImageSet("toy", ("a",), None, {"train": labels, "val": labels}))
    task = Detection(Detection.Keys(), faces)
    with pytest.raises(ModelError, match=r"loss\(objects\), detections\(\) and `out`.*torchvision:fcos_resnet50_fpn"):
        task.check_output(torch.zeros(2, 4, 8, 8), 2, "wei-small")


def test_cocos_averages_without_their_library_are_one_message(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"need torchmetrics and pycocotools: pip install 'rfsearch\[detection\]'"):
        Detection(Detection.Keys(metric="coco-map"), boxed_objects())


def test_objects_are_as_large_as_the_longer_sides_of_their_boxes():
    data = boxed_objects()
    sizes = Detection(Detection.Keys(), data).object_sizes(data.splits["train"])
    boxes = [(k, box) for rows in data.splits["train"].targets for box, k, _ in zip(*split_rows(rows), strict=True)]
    for k, name in enumerate(data.classes):
        assert sizes.px[name].tolist() == sorted(max(b[2] - b[0], b[3] - b[1]) for label, b in boxes if label == k)


def test_pictures_frame_objects_and_sure_detections():
    data = boxed_objects()
    whole = data.splits["val"]
    first = next(i for i, rows in enumerate(whole.targets) if len(split_rows(rows)[0]) > 1)
    split = Split(whole.images[[first]], whole.targets[[first]], ("one",))
    boxes, labels, difficult = split_rows(split.targets[0])
    assert not difficult.any()
    found = Detected(torch.from_numpy(boxes), torch.tensor([0.9] + [0.1] * (len(boxes) - 1)), torch.from_numpy(labels))
    pictures = Detection(Detection.Keys(), data).pictures(Canned(found), split, CPU)
    assert pictures.captions[0] == f"1/{len(boxes)}, 0 wrong"
    left, upper = boxes[0, :2].round().astype(int)
    colour = pictures.legend[data.classes[labels[0]]]
    assert tuple(pictures.predictions[0, upper, left]) == colour


@pytest.mark.parametrize("check", TASK_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("metric", ["voc-map", "voc-map-11"])
def test_detection_passes_the_suite_of_tasks(check, metric):
    data = boxed_objects()
    check(partial(Detection, Detection.Keys(metric=metric)), data, grid_outputs(data))


def test_drawn_boxes_hold_their_objects_to_the_pixel_and_are_alike_every_time():
    one, other = rendered_objects(3, 2, 0, (96, 96), seed=4), rendered_objects(5, 2, 0, (96, 96), seed=4)
    np.testing.assert_array_equal(one.splits["train"].targets, other.splits["train"].targets[:3])
    np.testing.assert_array_equal(one.splits["train"].images, other.splits["train"].images[:3])
    assert one.fingerprint() != rendered_objects(3, 2, 0, (96, 96), seed=5).fingerprint()
    sides = [
        max(box[2] - box[0], box[3] - box[1])
        for rows in rendered_objects(60, 1, 0).splits["train"].targets
        for box in split_rows(rows)[0]
    ]
    assert 4 <= min(sides) < 12
    assert 60 < max(sides) <= 82


def test_intersections_are_those_of_counted_pixels():
    rng = np.random.default_rng(1)
    corners = rng.integers(0, 20, (5, 2))
    boxes = np.concatenate([corners, corners + rng.integers(1, 12, (5, 2))], axis=1).astype(float)
    masks = np.zeros((5, 40, 40), bool)
    for mask, (left, upper, right, lower) in zip(masks, boxes.astype(int), strict=True):
        mask[upper:lower, left:right] = True
    expected = [[(a & b).sum() / (a | b).sum() for b in masks] for a in masks]
    np.testing.assert_allclose(intersections(boxes, boxes), expected)
