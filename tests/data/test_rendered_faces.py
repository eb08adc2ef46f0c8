import numpy as np
import pytest

from rfsearch.data import rendered_faces
from rfsearch.errors import DataError

BACKGROUND, SKIN, LEFT_BROW, RIGHT_BROW, LEFT_EYE, RIGHT_EYE, NOSE, UPPER, INNER, LOWER, HAIR = range(11)


@pytest.fixture(scope="module")
def faces():
    return rendered_faces(train=120, val=3, test=3)


def centre(label, part):
    return np.argwhere(label == part).mean(axis=0)


def test_what_it_says_it_is(faces):
    assert faces.rendered
    assert "no photographs" in faces.notice
    assert (faces.num_classes, faces.image_size, faces.flip_pairs) == (11, (96, 96), ((2, 3), (4, 5)))
    assert faces.classes[4] == "left eye"
    assert {title: len(split) for title, split in faces.splits.items()} == {"train": 120, "val": 3, "test": 3}


def test_the_same_seed_draws_the_same_and_another_does_not():
    a, b, c = (rendered_faces(4, 2, 2, seed=seed) for seed in (3, 3, 4))
    assert a.fingerprint() == b.fingerprint() != c.fingerprint()


def test_an_image_does_not_depend_on_how_many_there_are(faces):
    few = rendered_faces(2, 1, 0)
    np.testing.assert_array_equal(few.splits["train"].images, faces.splits["train"].images[:2])
    np.testing.assert_array_equal(few.splits["val"].targets, faces.splits["val"].targets[:1])
    assert "test" not in few.splits


def test_no_image_is_in_two_splits(faces):
    pictures = [image.tobytes() for split in faces.splits.values() for image in split.images]
    assert len(set(pictures)) == len(pictures)


def test_every_class_occurs_and_the_inner_mouth_not_in_every_face(faces):
    present = np.array([np.bincount(label.ravel(), minlength=11) > 0 for label in faces.splits["train"].targets])
    assert present[:, [BACKGROUND, SKIN, NOSE, LOWER]].all()
    assert 0.3 < present[:, INNER].mean() < 0.7
    assert present[:, [LEFT_BROW, RIGHT_BROW, LEFT_EYE, RIGHT_EYE, UPPER]].mean() > 0.9
    assert present[:, HAIR].mean() < 1


def test_eyes_are_small(faces):
    widths = []
    for label in faces.splits["train"].targets:
        for part in (LEFT_EYE, RIGHT_EYE):
            columns = np.flatnonzero((label == part).any(axis=0))
            widths.append(columns[-1] - columns[0] + 1 if len(columns) else 0)
    assert np.percentile(widths, 3) >= 6
    assert np.percentile(widths, 97) <= 18


def test_left_is_the_viewers_left_and_the_face_stands_upright(faces):
    for label in faces.splits["train"].targets:
        assert centre(label, LEFT_EYE)[1] < centre(label, RIGHT_EYE)[1]
        eyes = (centre(label, LEFT_EYE)[0] + centre(label, RIGHT_EYE)[0]) / 2
        assert eyes < centre(label, LOWER)[0]


def test_the_left_eye_lies_in_either_half_of_the_image(faces):
    columns = [centre(label, LEFT_EYE)[1] for label in faces.splits["train"].targets]
    assert min(columns) < 25
    assert max(columns) > 55


def test_a_left_eye_looks_like_a_right_one(faces):
    """Each eye's mean picture is close to the other's, and no closer to the other's mirror image."""
    patches = {LEFT_EYE: [], RIGHT_EYE: []}
    split = faces.splits["train"]
    for image, label in zip(split.images.astype(float), split.targets, strict=True):
        for part, found in patches.items():
            y, x = np.round(centre(label, part)).astype(int)
            if 3 <= y < 92 and 4 <= x < 91:
                found.append(image[:, y - 3 : y + 4, x - 4 : x + 5].mean(axis=0))
    left, right = (np.mean(found, axis=0) for found in patches.values())
    assert np.abs(left - right).mean() < 10
    assert np.abs(left - right[:, ::-1]).mean() < 10
    assert left.std() > 15


def test_the_image_shows_its_label(faces):
    """Skin and hair differ from what surrounds them: neighbours across a label's edge differ more than others."""
    split = faces.splits["train"]
    step = np.abs(np.diff(split.images.astype(float), axis=3)).mean(axis=1)
    edge = np.diff(split.targets.astype(int), axis=2) != 0
    assert step[edge].mean() > 2 * step[~edge].mean()


def test_other_sizes():
    faces = rendered_faces(3, 1, 0, size=(60, 100), seed=1)
    assert faces.image_size == (60, 100)
    assert (faces.splits["train"].targets == SKIN).any(axis=(1, 2)).all()


@pytest.mark.parametrize("wrong", [{"train": 0}, {"val": 0}, {"test": -1}, {"size": (96, 20)}])
def test_wrong_requests(wrong):
    with pytest.raises(DataError, match="Got"):
        rendered_faces(**{"train": 1, "val": 1, "test": 1} | wrong)
