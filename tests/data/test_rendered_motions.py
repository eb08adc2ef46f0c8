"""Scenes in motion: what they are, and that their flow is the truth."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rfsearch.data.rendered_motions import RenderedMotions, draw_pair, rendered_motions
from rfsearch.errors import DataError


@pytest.fixture(scope="module")
def motions():
    return rendered_motions(train=24, val=3, test=3)


@pytest.fixture(scope="module")
def pairs():
    return [draw_pair(np.random.default_rng(seed), (96, 128)) for seed in range(12)]


def warped(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Read an image, H x W x 3, where the flow of each pixel leads, bilinearly."""
    height, width = flow.shape[:2]
    y, x = np.mgrid[:height, :width]
    places = np.stack([2 * (x + flow[..., 0]) / (width - 1) - 1, 2 * (y + flow[..., 1]) / (height - 1) - 1], axis=2)
    source = torch.from_numpy(image.astype(np.float64).transpose(2, 0, 1))[None]
    read = F.grid_sample(source, torch.from_numpy(places)[None], "bilinear", "zeros", align_corners=True)
    return read[0].permute(1, 2, 0).numpy()


def difference(pair, flow: np.ndarray) -> np.ndarray:
    """Between the first image and the second as it is seen along the flow: H x W, levels of 255."""
    return np.abs(warped(pair.second, flow) - pair.first).mean(axis=2)


def test_what_it_says_it_is(motions):
    assert motions.rendered
    assert "no real scenes" not in motions.notice
    assert "nothing about real scenes" in motions.notice
    assert (motions.in_channels, motions.image_size, motions.classes) == (6, (96, 96), ())
    assert {title: len(split) for title, split in motions.splits.items()} == {"train": 24, "val": 3, "test": 3}
    assert motions.splits["train"].targets.shape == (24, 2, 96, 96)
    assert motions.splits["train"].targets.dtype == np.float32
    held = RenderedMotions(rendered=(24, 3, 3)).held_bytes(None)
    assert held == sum(split.images.nbytes + split.targets.nbytes for split in motions.splits.values())


def test_the_same_seed_draws_the_same_and_another_does_not():
    a, b, c = (rendered_motions(3, 2, 2, seed=seed) for seed in (3, 3, 4))
    assert a.fingerprint() == b.fingerprint() != c.fingerprint()


def test_a_pair_does_not_depend_on_how_many_there_are(motions):
    few = rendered_motions(2, 1, 0)
    np.testing.assert_array_equal(few.splits["train"].images, motions.splits["train"].images[:2])
    np.testing.assert_array_equal(few.splits["val"].targets, motions.splits["val"].targets[:1])
    assert "test" not in few.splits


def test_warping_the_second_image_by_the_flow_gives_the_first_where_it_is_not_hidden(pairs):
    """But for the resampling of textures, and for outlines, which are a pixel soft."""
    for pair in pairs:
        off = difference(pair, pair.flow)[pair.visible]
        still = difference(pair, np.zeros_like(pair.flow))[pair.visible]
        back = difference(pair, -pair.flow)[pair.visible]
        assert np.mean(off < 8) > 0.93
        assert off.mean() < 4
        assert min(still.mean(), back.mean()) > 3 * off.mean()


def test_what_is_hidden_or_left_is_not_to_be_seen_along_the_flow(pairs):
    hidden = [difference(pair, pair.flow)[~pair.visible] for pair in pairs]
    assert np.concatenate(hidden).mean() > 30
    assert 0.03 < np.mean([~pair.visible for pair in pairs]) < 0.4
    for pair in pairs:
        y, x = np.mgrid[: pair.flow.shape[0], : pair.flow.shape[1]]
        to_x, to_y = x + pair.flow[..., 0], y + pair.flow[..., 1]
        outside = (to_x < -0.1) | (to_x > 127.1) | (to_y < -0.1) | (to_y > 95.1)
        assert not pair.visible[outside].any()
    assert any((~pair.visible).sum() > 100 for pair in pairs)


def test_each_layer_moves_by_an_affine_motion(pairs):
    """Its second differences vanish, but where one layer ends."""
    for pair in pairs:
        bent = np.abs(np.diff(pair.flow, 2, axis=0)).max(axis=2)
        assert np.mean(bent < 1e-3) > 0.7


def test_displacements_are_small_and_large(motions):
    lengths = np.hypot(*motions.splits["train"].targets.transpose(1, 0, 2, 3).reshape(2, -1))
    assert np.mean(lengths < 2) > 0.1
    assert np.mean(lengths > 10) > 0.1
    assert lengths.max() > 30


def test_directions_are_all_alike(motions):
    mean = motions.splits["train"].targets.mean(axis=(0, 2, 3))
    assert np.abs(mean).max() < 3


@pytest.mark.parametrize(
    ("arguments", "message"), [((0, 1, 1), "at least 1 pair"), ((1, 1, 1, (31, 64)), "below 32 px")]
)
def test_what_cannot_be_drawn_is_refused(arguments, message):
    with pytest.raises(DataError, match=message):
        rendered_motions(*arguments)
