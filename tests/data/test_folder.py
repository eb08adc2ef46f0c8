import numpy as np
import pytest
from PIL import Image

from rfsearch.data import read_folder
from rfsearch.errors import DataError


def write(root, split, name, size=(6, 8), top=3, suffix=".jpg", seed=0):
    """One pair; the label holds ids 0..top."""
    rng = np.random.default_rng([seed, *name.encode()])
    for kind in ("images", "labels"):
        (root / split / kind).mkdir(parents=True, exist_ok=True)
    label = rng.integers(0, top + 1, size, np.uint8)
    label.flat[: top + 1] = np.arange(top + 1)
    Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(root / split / "images" / f"{name}{suffix}")
    Image.fromarray(label).save(root / split / "labels" / f"{name}.png")
    return label


def put(root, split, name, label):
    Image.fromarray(np.asarray(label, np.uint8)).save(root / split / "labels" / f"{name}.png")


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "street"
    for split, n in (("train", 6), ("val", 2), ("test", 2)):
        for k in range(n):
            write(root, split, f"{split}{k}")
    return root


def test_reads_pairs_in_the_order_of_their_names(root):
    label = write(root, "train", "aaa", suffix=".PNG")
    s = read_folder(root, classes=("a", "b", "c", "d"), flip_pairs=((1, 2),))
    assert (s.name, s.rendered, s.image_size, s.notice) == ("street", False, (6, 8), "")
    assert s.splits["train"].names == ("aaa", *(f"train{k}" for k in range(6)))
    assert s.flip_pairs == ((1, 2),)
    np.testing.assert_array_equal(s.splits["train"].targets[0], label)
    pixels = np.asarray(Image.open(root / "train" / "images" / "aaa.PNG"))
    np.testing.assert_array_equal(s.splits["train"].images[0], pixels.transpose(2, 0, 1))


def test_classes_from_a_file(root):
    (root / "classes.txt").write_text("sky\nroad\n\ncar\ntree\n")
    s = read_folder(root)
    assert (s.classes, s.ignore_index, s.notice) == (("sky", "road", "car", "tree"), None, "")


def test_classes_inferred_from_the_training_labels(root):
    s = read_folder(root)
    assert s.classes == ("class 0", "class 1", "class 2", "class 3")
    assert s.ignore_index is None
    assert "inferred" in s.notice


def test_255_is_taken_as_ignored_only_where_nothing_else_was_said(root):
    put(root, "train", "train0", [[255] * 8] * 6)
    s = read_folder(root)
    assert (s.num_classes, s.ignore_index) == (4, 255)
    assert "255 taken as the ignore index" in s.notice
    with pytest.raises(DataError, match=r"train0\.png: class id 255 is outside 0\.\.3, and no ignore index"):
        read_folder(root, classes="abcd")


def test_a_given_ignore_index_is_no_class(root):
    s = read_folder(root, ignore_index=3)
    assert (s.num_classes, s.ignore_index) == (3, 3)


def test_a_class_id_out_of_range_names_file_id_range_and_ignore_index(root):
    put(root, "val", "val1", np.full((6, 8), 9))
    with pytest.raises(DataError, match=r"val1\.png: class id 9 is outside 0\.\.3, and the ignore index is 200"):
        read_folder(root, ignore_index=200)


def test_a_training_label_that_cannot_be_read_does_not_make_others_wrong(root):
    for k in range(6):
        put(root, "train", f"train{k}", np.full((6, 8), 3 if k == 3 else 1))
    break_label_png(root)
    with pytest.raises(DataError, match="1 fault: .*train3"):
        read_folder(root)


def test_a_mask_of_0_and_255_is_not_taken_for_one_class(root):
    for k in range(6):
        put(root, "train", f"train{k}", np.where(np.arange(48).reshape(6, 8) % 2, 255, 0))
    with pytest.raises(DataError, match="hold only id 0 and 255"):
        read_folder(root)


def test_without_val_every_fifth_is_held_out_by_a_hash(tmp_path):
    for k in range(11):
        write(tmp_path / "a", "train", f"t{k}")
    s, again, other = (read_folder(tmp_path / "a", hold_out_seed=seed) for seed in (0, 0, 1))
    train, val = (set(s.splits[title].names) for title in ("train", "val"))
    assert (len(train), len(val), train & val) == (8, 3, set())
    assert again.splits["val"].names == s.splits["val"].names != other.splits["val"].names
    assert "every 5th training image (3 of 11)" in s.notice
    assert "no test split" in s.notice
    assert s.splits["val"].names != ("t0", "t1", "t2")


def test_a_single_image_cannot_be_divided(tmp_path):
    write(tmp_path, "train", "t0")
    with pytest.raises(DataError, match="cannot be divided"):
        read_folder(tmp_path)


def test_unlabelled_test_images_and_spare_labels_are_left_out_and_reported(root):
    (root / "test" / "labels").rename(root / "test" / "spare")
    put(root, "train", "zzz", np.zeros((6, 8)))
    s = read_folder(root)
    assert "test" not in s.splits
    assert "The folder test has no labels" in s.notice
    assert "Labels without an image in train, left out: 1." in s.notice


def test_sizes_differ(root):
    write(root, "val", "odd", size=(12, 16))
    s = read_folder(root)
    assert s.image_size == (6, 8)
    assert "2 sizes" in s.notice
    odd = s.splits["val"].names.index("odd")
    raw = np.asarray(Image.open(root / "val" / "labels" / "odd.png"))
    np.testing.assert_array_equal(
        s.splits["val"].targets[odd], raw[1::2, 1::2]
    )  # nearest: a pixel's own id, no mixture


def test_a_size_asked_for(root):
    s = read_folder(root, size=(3, 4))
    assert s.image_size == (3, 4)
    assert "sizes" not in s.notice


def test_images_are_averaged_and_labels_are_not_when_made_smaller(root):
    """A fine checkerboard turns grey; its label keeps to the ids there are."""
    board = np.indices((6, 8)).sum(axis=0) % 2
    Image.fromarray(np.repeat(board[..., None] * 200, 3, axis=2).astype(np.uint8)).save(root / "train/images/x.png")
    put(root, "train", "x", board * 3)
    s = read_folder(root, size=(3, 4))
    x = s.splits["train"].names.index("x")
    assert np.abs(s.splits["train"].images[x].astype(int) - 100).max() < 30
    assert set(np.unique(s.splits["train"].targets[x])) <= {0, 3}


def test_mapped_and_in_memory_are_one(root, tmp_path):
    mapped = read_folder(root, memory_limit_bytes=0, cache=tmp_path / "cache")
    assert isinstance(mapped.splits["train"].targets, np.memmap)
    assert mapped.fingerprint() == read_folder(root).fingerprint()
    assert mapped.fingerprint() == read_folder(root, memory_limit_bytes=0, cache=tmp_path / "cache").fingerprint()


def test_a_range_fault_is_found_again_behind_a_cache(root, tmp_path):
    put(root, "val", "val1", np.full((6, 8), 9))
    for _ in range(2):
        with pytest.raises(DataError, match="class id 9"):
            read_folder(root, classes="abcd", memory_limit_bytes=0, cache=tmp_path / "cache")


def break_folder(root):
    (root / "train").rename(root / "trian")


def break_split_name(root):
    (root / "val").rename(root / "validation")


def break_images_folder(root):
    (root / "val" / "images").rename(root / "val" / "image")


def break_emptied(root):
    for file in (root / "val" / "images").iterdir():
        file.unlink()


def break_label_missing(root):
    (root / "train" / "labels" / "train3.png").unlink()


def break_label_size(root):
    put(root, "train", "train3", np.zeros((8, 6)))


def break_jpeg(root):
    path = root / "test" / "images" / "test1.jpg"
    path.write_bytes(path.read_bytes()[:-60])


def break_label_png(root):
    Image.new("RGB", (8, 6)).save(root / "train" / "labels" / "train3.png")


def break_twin(root):
    write(root, "train", "train3", suffix=".png")


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (break_folder, r"no folder 'train'\. .* Did you mean 'trian'\? Rename it to 'train'\."),
        (break_split_name, r"validation: the val split must be in a folder 'val'"),
        (break_images_folder, r"val/images: no such folder.* Did you mean 'image'\?"),
        (break_emptied, r"val/images: no image in it"),
        (break_label_missing, r"train3\.jpg: has no label .*train3\.png"),
        (break_label_size, r"train3\.png: is 6 x 8 px \(W x H\), its image train3\.jpg is 8 x 6 px"),
        (break_jpeg, r"test1\.jpg: cannot be decoded"),
        (
            break_label_png,
            r"train3\.png: a label must have a single channel of ids; this is PNG RGB, 8 bit; .* \[data\] colours",
        ),
        (break_twin, r"train3\.png: has the name of train3\.jpg"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("classes", [None, "abcd"])
def test_one_fault_is_one_clear_message(root, breakage, message, classes):
    breakage(root)
    with pytest.raises(DataError, match=message) as caught:
        read_folder(root, classes=classes)
    assert "\n" not in str(caught.value)


def test_many_faults_are_reported_together(root):
    for breakage in (break_label_missing, break_jpeg):
        breakage(root)
    for k in (0, 1, 2, 4):
        put(root, "train", f"train{k}", np.full((6, 8), 50 + k))
    put(root, "val", "val0", np.full((6, 8), 77))
    with pytest.raises(DataError) as caught:
        read_folder(root, classes="abcd")
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("7 faults:")
    assert len(lines) == 7
    assert lines[-1].strip() == "... and 2 more"


def test_missing_root(tmp_path):
    (tmp_path / "camvid").mkdir()
    with pytest.raises(DataError, match=r"Did you mean 'camvid'\?"):
        read_folder(tmp_path / "canvid")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["a"]}, "2 to 256"),
        ({"classes": ["a", "a"]}, "Given twice: a"),
        ({"ignore_index": 300}, "0..255"),
    ],
)
def test_wrong_options(root, options, message):
    with pytest.raises(DataError, match=message):
        read_folder(root, **options)


def test_class_names_in_another_encoding_are_reported(root):
    (root / "classes.txt").write_bytes("straße\nb\nc\nd\n".encode("latin-1"))
    with pytest.raises(DataError, match="classes.txt: class names are read as UTF-8"):
        read_folder(root)
