"""Optical flow: its scores against loops, its vectors moved against points that are moved, its losses, its pictures."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rfsearch.data import Augment, Batches, ImageSet, Split, rendered_faces
from rfsearch.data.batches import Motion
from rfsearch.data.rendered_motions import rendered_motions
from rfsearch.errors import DataError, ModelError, TrialError
from rfsearch.space.task_spec import TaskSpec
from rfsearch.tasks.flow import FLOWNET_WEIGHTS, FlowEstimation
from rfsearch.testing import TASK_CHECKS
from tests.references import flow_loops as loops

CPU = torch.device("cpu")


def flow_set(flow: np.ndarray, images: np.ndarray | None = None) -> ImageSet:
    """A set whose splits have this flow, N x 2 x H x W, and images of noise."""
    count, _, height, width = flow.shape
    if images is None:
        images = np.random.default_rng(1).integers(0, 256, (count, 6, height, width), np.uint8)
    split = Split(images, flow.astype(np.float32), tuple(map(str, range(count))))
    return ImageSet("toy", (), None, {"train": split, "val": split})


def task_for(data: ImageSet, **keys: object) -> FlowEstimation:
    return FlowEstimation(FlowEstimation.Keys(**keys), data)


class Fixed(nn.Module):
    """Gives the same fields whatever the images, in their order."""

    def __init__(self, fields: Tensor) -> None:
        super().__init__()
        self._fields, self._given = fields, 0

    def forward(self, images: Tensor) -> Tensor:
        first = self._given % len(self._fields)
        self._given += len(images)
        return self._fields[first : first + len(images)]


def random_fields(seed: int, count: int = 5, size: tuple[int, int] = (9, 13)) -> tuple[np.ndarray, np.ndarray]:
    """True and found displacements of all lengths; some are unknown, some are found exactly."""
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.uniform(-2, 4.5, (count, 1, *size)))
    way = rng.uniform(0, 2 * math.pi, (count, 1, *size))
    true = (lengths * np.concatenate([np.cos(way), np.sin(way)], axis=1)).astype(np.float32)
    found = (true + rng.normal(0, 1, true.shape) * np.exp(rng.uniform(-3, 3, lengths.shape))).astype(np.float32)
    found[:, :, :2] = true[:, :, :2]
    true[np.broadcast_to(rng.random(lengths.shape) < 0.2, true.shape)] = np.nan
    return true, found


@pytest.mark.parametrize(
    "keys",
    [{}, {"metric": "fl-all", "loss": "multi-scale", "scale_weights": [1, 3]}],
    ids=str,
)
@pytest.mark.parametrize("check", TASK_CHECKS, ids=lambda check: check.__name__)
def test_the_task_passes(check, keys):
    check(partial(FlowEstimation, FlowEstimation.Keys(**keys)), rendered_motions(6, 5, 2, (64, 64)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_scores_equal_the_loops(seed, batch):
    true, found = random_fields(seed)
    task = task_for(flow_set(true))
    scores = task.evaluate(Fixed(torch.from_numpy(found)), flow_set(true).splits["val"], batch, CPU)
    assert scores.primary == scores.all["aepe"]
    assert dict(scores.all) == pytest.approx(loops.scores(true, found), rel=1e-6)
    assert len(scores.all) == 5


def test_lengths_without_a_pixel_have_no_score_and_a_split_without_truth_has_none():
    true = np.full((2, 2, 4, 4), 3.0, np.float32)
    split = flow_set(true).splits["val"]
    scores = task_for(flow_set(true)).evaluate(Fixed(torch.zeros(2, 2, 4, 4)), split, 2, CPU)
    assert dict(scores.all) == pytest.approx({"aepe": 18**0.5, "fl_all": 1.0, "aepe_0_10": 18**0.5})
    unknown = flow_set(np.full_like(true, np.nan))
    with pytest.raises(TrialError, match="aepe is undefined: the split has no pixel whose flow is known"):
        task_for(unknown).evaluate(Fixed(torch.zeros(2, 2, 4, 4)), unknown.splits["val"], 2, CPU)
    with pytest.raises(TrialError, match="fl_all is undefined: the network gives displacements that are not finite"):
        task_for(flow_set(true), metric="fl-all").evaluate(Fixed(torch.full((2, 2, 4, 4), math.nan)), split, 2, CPU)


def test_coarse_fields_are_enlarged_and_stay_pixels_of_the_image():
    true = np.full((2, 2, 16, 24), 8.0, np.float32)
    split = flow_set(true).splits["val"]
    scores = task_for(flow_set(true)).evaluate(Fixed(torch.full((2, 2, 4, 6), 8.0)), split, 2, CPU)
    assert scores.primary == pytest.approx(0, abs=1e-6)


def test_the_loss_is_the_error_over_known_pixels():
    true, found = random_fields(7)
    task = task_for(flow_set(true))
    target = task.target(torch.from_numpy(true))
    assert task.loss(torch.from_numpy(found), target).item() == pytest.approx(
        loops.scores(true, found)["aepe"], rel=1e-5
    )


def test_the_gradient_of_an_error_points_away_from_the_truth_and_is_0_at_it_and_where_nothing_is_known():
    true = np.zeros((1, 2, 2, 2), np.float32)
    true[0, :, 1, 1] = np.nan
    found = torch.tensor([[[[3.0, 0.0], [0.0, 5.0]], [[4.0, 0.0], [-2.0, 5.0]]]], requires_grad=True)
    task = task_for(flow_set(true))
    task.loss(found, task.target(torch.from_numpy(true))).backward()
    expected = torch.tensor([[[[0.6, 0.0], [0.0, 0.0]], [[0.8, 0.0], [-1.0, 0.0]]]]) / 3  # of three known pixels
    torch.testing.assert_close(found.grad, expected)


def test_the_loss_of_several_scales_is_the_weighted_mean_of_errors_at_their_sizes():
    rng = np.random.default_rng(3)
    true = rng.normal(0, 5, (2, 2, 8, 12)).astype(np.float32)
    true[:, :, 2:4, 3:9] = np.nan  # parts of cells, and whole ones
    task = task_for(flow_set(true), loss="multi-scale")
    sizes = ((8, 12), (4, 6), (2, 3))
    scales = [torch.from_numpy(rng.normal(0, 5, (2, 2, *size)).astype(np.float32)) for size in sizes]
    errors = [
        loops.scores(loops.shrunk(true, size), scale.numpy())["aepe"] for size, scale in zip(sizes, scales, strict=True)
    ]
    weights = FLOWNET_WEIGHTS[:3]
    expected = sum(w * e for w, e in zip(weights, errors, strict=True)) / sum(weights)
    target = task.target(torch.from_numpy(true))
    assert task.loss(tuple(scales), target).item() == pytest.approx(expected, rel=1e-5)
    assert task.loss(scales[1], target).item() == pytest.approx(errors[1], rel=1e-5)  # a single one


def test_flownets_weights_count_the_coarsest_scale_most():
    assert FLOWNET_WEIGHTS == (0.005, 0.01, 0.02, 0.08, 0.32)


def test_every_scale_of_several_is_checked():
    task = task_for(flow_set(np.zeros((2, 2, 8, 8))), loss="multi-scale")
    good = torch.zeros(2, 2, 4, 4)
    task.check_output((good, good), 2, "net")
    with pytest.raises(ModelError, match="'net' maps 2 images to displacements of 2 x 2 x h x w"):
        task.check_output((good, good[:, :1]), 2, "net")


def affine_motion(zoom: tuple[float, ...], mirrored: tuple[bool, ...], shift: tuple[float, float], size) -> Motion:
    """As augmentation makes it, of as many images as there are zooms."""
    height, width = size
    x = (2 * torch.arange(width) + 1) / width - 1
    y = (2 * torch.arange(height) + 1) / height - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).repeat(len(zoom), 1, 1, 1)
    factors, flipped = torch.tensor(zoom), torch.tensor(mirrored)
    grid = (grid - torch.tensor(shift)) / factors[:, None, None, None]
    grid[..., 0] = torch.where(flipped[:, None, None], -grid[..., 0], grid[..., 0])
    return Motion(grid, flipped, factors)


def test_moved_vectors_lead_from_moved_points_to_moved_points():
    """Each vector of an affine field: both its ends are looked up in the moved images, by the grid alone."""
    height, width = size = 20, 28
    y, x = np.mgrid[:height, :width].astype(np.float32)
    flow = np.stack([3 + 0.1 * x - 0.05 * y, -2 + 0.08 * x + 0.02 * y])[None].repeat(4, axis=0)
    task = task_for(flow_set(flow))
    motion = affine_motion((1.0, 1.3, 0.8, 1.25), (False, False, True, True), (0.11, -0.07), size)
    moved, known = task.moved(task.target(torch.from_numpy(flow)), motion)
    assert 0.4 < known.float().mean() < 1
    for image in range(4):
        for row, column in np.argwhere(known[image, 0].numpy())[::5]:
            # Where that pixel was, px, and where what it shows has gone.
            begin = ((motion.grid[image, row, column].numpy() + 1) * (width, height) - 1) / 2
            moves = 3 + 0.1 * begin[0] - 0.05 * begin[1], -2 + 0.08 * begin[0] + 0.02 * begin[1]
            end = begin + np.array(moves)
            # Where the moved images show that: the grid is straight, so two of its pixels on each axis say where.
            across, down = motion.grid[image, 0, :, 0].numpy(), motion.grid[image, :, 0, 1].numpy()
            goal = (2 * end + 1) / (width, height) - 1
            arrived = [
                (place - axis[0]) / (axis[1] - axis[0]) for place, axis in zip(goal, (across, down), strict=True)
            ]
            expected = np.array(arrived) - (column, row)
            np.testing.assert_allclose(moved[image, :, row, column], expected, atol=2e-3)


@pytest.mark.parametrize(
    "augment",
    [
        Augment(flip=True),
        Augment(scale=(0.7, 1.5)),
        Augment(shift=0.2, crop=(40, 48)),
        Augment(flip=True, scale=(0.8, 1.3), shift=0.1),
    ],
    ids=str,
)
def test_warping_by_moved_flow_undoes_the_motion_between_moved_images(augment):
    """A whole batch as it is trained on: the second image seen along its flow is the first one, but for resampling."""
    y, x = np.mgrid[:64, :72].astype(np.float64)

    def seen(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """A smooth texture, of which no part repeats."""
        shades = [np.sin(x / 5 + y / 9 + k) + np.cos(y / 6 - x / 11 + 2 * k) for k in range(3)]
        return np.rint(np.stack(shades) * 60 + 127).astype(np.uint8)

    forth = 1.05 * x + 0.04 * y - 4, 0.98 * y - 0.03 * x + 3
    (a, b), (c, d) = np.linalg.inv([[1.05, 0.04], [-0.03, 0.98]])
    back = a * (x + 4) + b * (y - 3), c * (x + 4) + d * (y - 3)
    images = np.concatenate([seen(x, y), seen(*back)])[None].repeat(6, axis=0)
    flow = np.stack([forth[0] - x, forth[1] - y])[None].repeat(6, axis=0)
    data = flow_set(flow, images)
    task = task_for(data)
    for step in range(3):
        pairs, (moved, known) = Batches(data.splits["train"], 6, 0, task, augment).at(step)
        first, second = pairs.chunk(2, dim=1)
        landed, reached = _warped(second, moved)
        visible = known & reached & (_warped(torch.ones_like(second), moved)[0][:, :1] > 0.999)
        visible[..., :1], visible[..., -1:], visible[..., :1, :], visible[..., -1:, :] = (False,) * 4
        # What came in from outside the second image is 0 in all its channels.
        visible &= _warped((second != 0).any(dim=1, keepdim=True).float(), moved)[0] > 0.999
        assert visible.float().mean() > 0.3
        off, still = ((other - first).abs().mean(dim=1, keepdim=True)[visible].mean() for other in (landed, second))
        assert off < 0.06
        assert still > 5 * off


def _warped(image: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """An image read where the flow of each pixel leads, and where that is inside it."""
    height, width = flow.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    at = torch.stack([(2 * (x + flow[:, 0]) + 1) / width - 1, (2 * (y + flow[:, 1]) + 1) / height - 1], dim=-1)
    inside = (at.abs() < 1).all(dim=-1)[:, None]
    return F.grid_sample(image, at, "bilinear", "zeros", align_corners=False), inside


def test_motions_that_meet_are_not_mixed():
    flow = np.zeros((1, 2, 12, 16), np.float32)
    flow[:, 0, :, 8:] = 6.0
    task = task_for(flow_set(flow))
    half = affine_motion((1.0,), (False,), (1 / 16, 1 / 12), (12, 16))  # by half a pixel
    moved, known = task.moved(task.target(torch.from_numpy(flow)), half)
    assert set(moved[:, :1][known].tolist()) == {0.0, 6.0}


def test_what_comes_in_from_outside_or_beside_the_unknown_is_unknown():
    flow = np.ones((1, 2, 12, 16), np.float32)
    flow[:, :, 5, 5] = np.nan
    task = task_for(flow_set(flow))
    moved, known = task.moved(
        task.target(torch.from_numpy(flow)), affine_motion((1.0,), (False,), (0.25, 0.0), (12, 16))
    )
    assert not known[..., :2].any()
    assert known[..., 2:].sum() == 12 * 14 - 1
    assert not known[0, 0, 5, 7]
    assert (moved[~known.expand_as(moved)] == 0).all()


def test_data_without_flow_or_without_pairs_is_refused():
    with pytest.raises(
        DataError, match="flow needs a displacement for each pixel, 3 x 2 x 48 x 48 floats. Got 3 x 48 x 48 uint8"
    ):
        task_for(rendered_faces(3, 2, 0, (48, 48)))
    with pytest.raises(DataError, match="two images, stacked: 6 channels of RGB. Got 3"):
        task_for(flow_set(np.zeros((1, 2, 8, 8)), np.zeros((1, 3, 8, 8), np.uint8)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"metric": "mean-iou"}, "'aepe' or 'fl-all'"),
        ({"loss": "l1"}, "'epe' or 'multi-scale'"),
        ({"scale_weights": []}, "the first above 0"),
        ({"scale_weights": [0, 1]}, "the first above 0"),
        ({"class_weights": "sqrt"}, "no key of the task flow"),
    ],
    ids=str,
)
def test_keys_that_are_none_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        TaskSpec(name="flow", **wrong)


def test_displacements_are_held_against_the_field_that_sees_them():
    flow = np.zeros((3, 2, 8, 8), np.float32)
    flow[0, 0], flow[1, 1], flow[2, 0, 0] = 4.0, -20.0, np.nan
    data = flow_set(flow)
    sizes = task_for(data).object_sizes(data.splits["train"])
    assert {name: np.unique(px).tolist() for name, px in sizes.px.items()} == {
        "up to 10 px": [1, 9],
        "10 to 40 px": [41],
        "40 px and more": [],
    }
    assert sum(map(len, sizes.px.values())) == 3 * 64 - 8
    assert "The median displacement is larger than a field of 9 px for 10 to 40 px" in str(sizes.compare(9))


def test_pictures_have_the_colours_of_their_directions():
    flow = np.zeros((5, 2, 6, 6), np.float32)
    for image, (right, down) in enumerate([(7, 0), (0, 7), (-7, 0), (0, -7), (0, 0)]):
        flow[image, 0], flow[image, 1] = right, down
    flow[4, :, 0] = np.nan
    data = flow_set(flow)
    found = np.nan_to_num(flow)
    found[0, 0] = 70.0  # ten times as far in the same direction
    found[1, 1] = 3.5  # half as far
    pictures = task_for(data).pictures(Fixed(torch.from_numpy(found)), data.splits["val"], CPU)
    for image, name in enumerate(["to the right", "down", "to the left", "up"]):
        colour = np.array(pictures.legend[name])
        assert np.abs(pictures.truths[image].astype(int) - colour).max() <= 1
        expected = (colour + 255) / 2 if name == "down" else colour  # half as saturated
        assert np.abs(pictures.predictions[image].astype(int) - expected).max() <= 2
    assert len(set(pictures.legend.values())) == 5
    assert (pictures.truths[4, 0] == pictures.legend["unknown"]).all()
    assert (pictures.truths[4, 1:] == 255).all()
    assert pictures.captions == ("63.00 px", "3.50 px", "0.00 px", "0.00 px", "0.00 px")
