import warnings

import numpy as np
import pytest
import torch
from torch import nn

from rfsearch.data import Augment, Batches, Split, eval_batches
from rfsearch.data.batches import MEAN, STD
from rfsearch.tasks.class_maps import IGNORE, ClassMaps


def a_split(n=5, size=(8, 10), top=4, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 3, *size), np.uint8)
    return Split(images, rng.integers(0, top, (n, *size), np.uint8), tuple(map(str, range(n))))


def which(split, images):
    """The place in the split of each unchanged image."""
    table = torch.stack([normalised(image) for image in split.images])
    return [int((table - image).abs().flatten(1).amax(1).argmin()) for image in images]


def normalised(image):
    mean, std = (torch.tensor(x).reshape(3, 1, 1) for x in (MEAN, STD))
    return (torch.from_numpy(image.astype(np.float32)) / 255 - mean) / std


def test_types_shapes_and_values():
    split = a_split()
    images, labels = Batches(split, 3, 0, ClassMaps()).at(0)
    assert (images.dtype, images.shape) == (torch.float32, (3, 3, 8, 10))
    assert (labels.dtype, labels.shape) == (torch.int64, (3, 8, 10))
    for image, label, k in zip(images, labels, which(split, images), strict=True):
        torch.testing.assert_close(image, normalised(split.images[k]), atol=1e-5, rtol=1e-5)
        np.testing.assert_array_equal(label.numpy(), split.targets[k])


def test_each_epoch_is_a_permutation_also_across_batches():
    split = a_split(5)
    batches = Batches(split, 3, 1, ClassMaps())
    row = [k for step in range(20) for k in which(split, batches.at(step)[0])]
    epochs = [tuple(row[k : k + 5]) for k in range(0, 60, 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len(set(epochs)) > 6
    assert which(split, Batches(split, 40, 2, ClassMaps()).at(0)[0]) != row[:40]
    assert batches.epochs(0) == 0
    assert batches.epochs(10) == 6


def test_a_batch_may_be_larger_than_the_split():
    split = a_split(3)
    row = which(split, Batches(split, 7, 0, ClassMaps()).at(0)[0])
    assert sorted(row[:3]) == sorted(row[3:6]) == [0, 1, 2]


FULL = Augment(flip=True, scale=(0.7, 1.4), shift=0.2, brightness=0.2, contrast=0.3)


def test_a_batch_is_a_function_of_seed_and_step_alone():
    split = a_split()
    straight = [Batches(split, 2, 5, ClassMaps(), FULL).at(step) for step in range(6)]
    jumping = Batches(split, 2, 5, ClassMaps(), FULL)
    for step in (4, 0, 5, 1, 4):
        for a, b in zip(straight[step], jumping.at(step), strict=True):
            assert torch.equal(a, b)
    other = Batches(split, 2, 6, ClassMaps(), FULL).at(4)[0]
    assert not torch.equal(straight[4][0], other)


def test_augmentation_does_not_change_which_images_come():
    split = a_split(50, top=2)
    split = Split(
        split.images, np.arange(50, dtype=np.uint8)[:, None, None] + np.zeros_like(split.targets), split.names
    )
    for step in range(3):
        plain, changed = (Batches(split, 8, 3, ClassMaps(), augment).at(step)[1] for augment in (None, FULL))
        assert plain[:, 4, 5].tolist() == changed[:, 4, 5].tolist()


def test_the_neutral_augmentation_changes_nothing():
    split = a_split()
    for a, b in zip(
        Batches(split, 4, 0, ClassMaps()).at(3), Batches(split, 4, 0, ClassMaps(), Augment()).at(3), strict=True
    ):
        assert torch.equal(a, b)


def test_sampling_at_the_identity_is_the_image():
    """A scale that is all but 1 goes through the sampling grid and must give the plain batch."""
    split = a_split()
    plain = Batches(split, 4, 0, ClassMaps(ignore_index=2)).at(3)
    sampled = Batches(split, 4, 0, ClassMaps(ignore_index=2), Augment(scale=(1.0, 1.0 + 1e-7))).at(3)
    torch.testing.assert_close(plain[0], sampled[0], atol=1e-3, rtol=1e-3)
    assert torch.equal(plain[1], sampled[1])


@pytest.mark.parametrize("flip", [False, True])
def test_a_window_is_a_part_of_its_image_and_of_its_label(flip):
    split = a_split(3, (12, 16), top=9)
    batches = Batches(split, 3, 0, ClassMaps(), Augment(flip=flip, crop=(5, 7)))
    places = set()
    for step in range(20):
        images, labels = batches.at(step)
        assert images.shape[2:] == labels.shape[1:] == (5, 7)
        order = batches._indices(step)
        for image, label, index in zip(images, labels, order, strict=True):
            whole, ids = normalised(split.images[index]), split.targets[index].astype(int)
            found = [
                (top, left, mirrored)
                for top in range(8)
                for left in range(10)
                for mirrored in (False, True)[: 1 + flip]
                if torch.allclose(image, _part(whole.flip(2) if mirrored else whole, top, left), atol=1e-2)
                and np.array_equal(label, _part(ids[:, ::-1] if mirrored else ids, top, left))
            ]
            assert len(found) == 1
            places.add(found[0])
    assert len(places) > 30
    assert {top for top, _, _ in places} == set(range(8))
    assert {left for _, left, _ in places} == set(range(10))


def _part(image, top: int, left: int):
    return image[..., top : top + 5, left : left + 7]


def test_a_mirrored_image_has_its_pairs_exchanged_and_no_other():
    split = a_split(1, top=5)
    batches = Batches(split, 1, 0, ClassMaps(((1, 2),), 4), Augment(flip=True))
    image, label = normalised(split.images[0]), split.targets[0].astype(int)
    straight = np.where(label == 4, IGNORE, label)
    swapped = np.select([label == 1, label == 2, label == 4], [2, 1, IGNORE], label)[:, ::-1]
    seen = []
    for step in range(20):
        pixels, ids = batches.at(step)
        mirrored = bool((pixels[0] - image).abs().max() > 0.1)
        torch.testing.assert_close(pixels[0], image.flip(2) if mirrored else image, atol=1e-3, rtol=1e-3)
        np.testing.assert_array_equal(ids[0].numpy(), swapped if mirrored else straight)
        seen.append(mirrored)
    assert 4 < sum(seen) < 16


def test_each_image_of_a_batch_is_changed_by_itself():
    split = a_split(1)
    images = Batches(split, 12, 0, ClassMaps(), FULL).at(0)[0]
    assert len({image.numpy().tobytes() for image in images}) == 12
    shrunk = Batches(a_split(1, (60, 80)), 12, 0, ClassMaps(), Augment(scale=(0.3, 1.0))).at(0)[1]
    assert len(set((shrunk == IGNORE).sum((1, 2)).tolist())) > 6


@pytest.mark.parametrize("augment", [Augment(scale=(0.5, 0.8)), Augment(shift=0.4), FULL])
def test_image_and_label_move_together_and_what_comes_from_outside_is_ignored(augment):
    """The image is its label's picture: bright where the id is 1. So it stays, up to the edges."""
    label = np.zeros((1, 40, 50), np.uint8)
    label[0, 8:20, 10:34] = 1
    split = Split(np.repeat(255 * label[:, None], 3, axis=1), label, ("a",))
    quiet = Augment(augment.flip, augment.scale, augment.shift)
    from_outside = []
    for step in range(12):
        images, ids = Batches(split, 1, 0, ClassMaps(), quiet).at(step)
        bright = images[0, 0] > (0.5 - MEAN[0]) / STD[0]
        outside = ids[0] == IGNORE
        from_outside.append(images[0][:, outside].flatten())
        assert (bright == (ids[0] == 1)).float().mean() > 0.97
    values = torch.cat(from_outside)
    assert len(values) > 300
    assert values.abs().median() < 1e-6  # the mean colour, but for a soft edge


def test_the_zoom_and_the_shift_keep_to_their_bounds():
    label = np.zeros((1, 100, 100), np.uint8)
    label[0, 40:60, 40:60] = 1
    split = Split(np.zeros((1, 3, 100, 100), np.uint8), label, ("a",))
    sides, centres = [], []
    for step in range(60):
        places = (
            (Batches(split, 1, 0, ClassMaps(), Augment(scale=(0.5, 2.0), shift=0.1)).at(step)[1][0] == 1)
            .nonzero()
            .float()
        )
        sides.append(float(len(places)) ** 0.5)
        centres.append(places.mean(0) - 49.5)
    assert 9 <= min(sides) < 13
    assert 33 < max(sides) <= 41
    furthest = torch.stack(centres).abs().amax()
    assert 8 < furthest <= 10.6


def test_brightness_and_contrast():
    split = Split(np.full((1, 3, 4, 4), 204, np.uint8), np.zeros((1, 4, 4), np.uint8), ("a",))
    std, mean = (torch.tensor(x).reshape(1, 3, 1, 1) for x in (STD, MEAN))

    def values(augment):
        images = torch.cat([Batches(split, 16, 0, ClassMaps(), augment).at(step)[0] for step in range(8)])
        return (images * std + mean)[:, :, 0, 0]  # back in 0..1; 204 is 0.8

    bright, hard = values(Augment(brightness=0.1)), values(Augment(contrast=0.5))
    for found, low, high in ((bright, 0.7, 0.9), (hard, 0.65, 0.95)):
        assert low - 1e-4 <= found.min() < low + 0.02
        assert high - 0.02 < found.max() <= high + 1e-4
        torch.testing.assert_close(found[:, 0], found[:, 2])  # the same change in every channel


def test_ignored_pixels_do_not_enter_a_loss():
    split = Split(np.zeros((2, 3, 4, 4), np.uint8), np.full((2, 4, 4), 255, np.uint8), ("a", "b"))
    split.targets[:, 0, 0] = 1
    _, labels = Batches(split, 2, 0, ClassMaps(ignore_index=255)).at(0)
    assert set(labels.unique().tolist()) == {IGNORE, 1}
    loss = nn.CrossEntropyLoss(reduction="sum")(torch.zeros(2, 2, 4, 4), labels)
    torch.testing.assert_close(loss, 2 * torch.tensor(2.0).log())


def test_ids_are_kept_where_nothing_is_ignored():
    split = a_split(2)
    split.targets[:] = 255
    assert (Batches(split, 2, 0, ClassMaps()).at(0)[1] == 255).all()


def test_eval_batches_go_through_the_split_once_in_order():
    split = a_split(5)
    batches = list(eval_batches(split, 2, ClassMaps(ignore_index=3)))
    assert [len(labels) for _, labels in batches] == [2, 2, 1]
    images, labels = (torch.cat(x) for x in zip(*batches, strict=True))
    torch.testing.assert_close(images, torch.stack([normalised(x) for x in split.images]), atol=1e-5, rtol=1e-5)
    np.testing.assert_array_equal(labels.numpy(), np.where(split.targets == 3, IGNORE, split.targets.astype(int)))


def test_a_mapped_split_is_read_and_never_written(tmp_path):
    split = a_split()
    for kind in ("images", "targets"):
        np.save(tmp_path / f"{kind}.npy", getattr(split, kind))
    mapped = Split(*(np.load(tmp_path / f"{k}.npy", mmap_mode="r") for k in ("images", "targets")), split.names)
    for a, b in zip(
        Batches(split, 3, 0, ClassMaps(), FULL).at(1), Batches(mapped, 3, 0, ClassMaps(), FULL).at(1), strict=True
    ):
        assert torch.equal(a, b)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of memory that must not be written
        next(eval_batches(mapped, 2, ClassMaps()))[0].zero_()
    np.testing.assert_array_equal(mapped.images, split.images)


@pytest.mark.parametrize(
    "fields", [{"scale": (0, 1)}, {"scale": (2, 1)}, {"shift": -1}, {"contrast": 1}, {"brightness": -0.1}]
)
def test_wrong_augmentations(fields):
    with pytest.raises(ValueError, match="Got"):
        Augment(**fields)


def test_wrong_batches():
    with pytest.raises(ValueError, match="batch_size=0"):
        Batches(a_split(), 0, 0, ClassMaps())
