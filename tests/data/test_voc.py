import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rfsearch.data import eval_batches, read_voc
from rfsearch.data.pictures import PictureRule
from rfsearch.data.voc import VOC_CLASSES
from rfsearch.errors import DataError
from rfsearch.space import read_space
from rfsearch.tasks.class_maps import IGNORE
from rfsearch.tasks.segmentation import Segmentation

SIZE = (12, 16)
TRAIN = [f"2007_{k:06d}" for k in range(4)]
VAL = [f"2008_{k:06d}" for k in range(3)]
MORE = [f"2009_{k:06d}" for k in range(40)]  # annotated by SBD alone
PALETTE = [(37 * k + 11) % 256 for k in range(768)]  # no grey, and no entry k is the grey level k


def ids_of(name, annotator="voc"):
    """Ids 0..20 and 255 in an order of the name's own."""
    rng = np.random.default_rng([*name.encode(), *annotator.encode()])
    return rng.permutation(np.resize([*range(21), 255], SIZE[0] * SIZE[1])).reshape(SIZE).astype(np.uint8)


def photograph(path, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([*path.stem.encode()])
    Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(path)


def palette_map(path, ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(ids, np.uint8)).copy()
    image.putpalette(PALETTE)
    assert image.mode == "P"
    image.save(path)


def grey_map(path, ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(ids, np.uint8)).save(path)


def listing(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def write_voc(voc):
    """VOC 2012 as published: photographs of all images, maps of train and val."""
    for name in TRAIN + VAL + MORE:
        photograph(voc / f"JPEGImages/{name}.jpg")
    for name in TRAIN + VAL:
        palette_map(voc / f"SegmentationClass/{name}.png", ids_of(name))
    listing(voc / "ImageSets/Segmentation/train.txt", TRAIN)
    listing(voc / "ImageSets/Segmentation/val.txt", VAL)
    listing(voc / "ImageSets/Segmentation/trainval.txt", TRAIN + VAL)


def write_augmented(voc, names=(*TRAIN, *VAL, *MORE)):
    for name in names:
        grey_map(voc / f"SegmentationClassAug/{name}.png", ids_of(name, "sbd"))


def write_mat(path, ids, field="Segmentation"):
    """A MATLAB structure GTcls, as SBD has it."""
    savemat = pytest.importorskip("scipy.io").savemat
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"GTcls": {field: ids, "CategoriesPresent": np.unique(ids)}}, do_compression=True)


def write_sbd(sbd, mat=write_mat):
    """SBD's train and val overlap with both of VOC's; train_noval names what the others do too."""
    names = [*TRAIN[:2], *VAL, *MORE]
    for name in names:
        mat(sbd / f"cls/{name}.mat", ids_of(name, "sbd"))
        photograph(sbd / f"img/{name}.jpg")
    listing(sbd / "train.txt", names[::2])
    listing(sbd / "val.txt", names[1::2])
    listing(sbd / "train_noval.txt", MORE[:5])


@pytest.fixture
def root(tmp_path):
    write_voc(tmp_path / "data/VOCdevkit/VOC2012")
    return tmp_path / "data"


@pytest.fixture
def voc(root):
    return root / "VOCdevkit/VOC2012"


def names(data, *splits):
    return {name for split in splits for name in data.splits[split].names}


def label_of(data, name):
    split = next(split for split in data.splits.values() if name in split.names)
    return split.targets[split.names.index(name)]


@pytest.fixture(params=["voc alone", "augmented list", "augmented maps", "sbd"])
def layout(request, root, voc):
    """(folder, what of it is to train on)."""
    if request.param == "augmented list":
        write_augmented(voc)
        listing(voc / "ImageSets/Segmentation/trainaug.txt", [*MORE[:30], *TRAIN, VAL[0]])
        return root, {*TRAIN, *MORE[:30]}
    if request.param == "augmented maps":
        write_augmented(voc)
        return root, {*TRAIN, *MORE}
    if request.param == "sbd":
        write_sbd(root / "sbd")
        return root, {*TRAIN, *MORE}
    return root, set(TRAIN)


def test_val_of_voc_is_the_test_split_and_trains_and_validates_nothing(layout):
    root, training = layout
    data = read_voc(root)
    assert set(data.splits) == {"train", "val", "test"}
    assert data.splits["test"].names == tuple(VAL)
    assert names(data, "train", "val") == training
    assert names(data, "train") & names(data, "val") == set()
    assert len(data.splits["val"]) == max(len(training) // 20, 1)
    assert f"test is VOC val (3 images), and val is {len(data.splits['val'])} of the training images" in data.notice


def test_ids_are_the_annotators_own_and_vocs_wins(layout):
    root, training = layout
    data = read_voc(root)
    for name in training | set(VAL):
        annotator = "sbd" if name in MORE else "voc"
        np.testing.assert_array_equal(label_of(data, name), ids_of(name, annotator))
    assert data.splits["train"].names == tuple(sorted(data.splits["train"].names))
    assert (data.classes, data.num_classes, data.ignore_index) == (VOC_CLASSES, 21, 255)
    assert (data.rendered, data.flip_pairs, data.image_size) == (False, (), SIZE)


def test_vocs_own_map_wins_where_no_list_of_voc_names_it(root, voc):
    write_augmented(voc)
    palette_map(voc / f"SegmentationClass/{MORE[6]}.png", ids_of(MORE[6], "voc"))
    np.testing.assert_array_equal(label_of(read_voc(root), MORE[6]), ids_of(MORE[6], "voc"))


def test_photographs_are_read_unchanged(root, voc):
    data = read_voc(root)
    pixels = np.asarray(Image.open(voc / f"JPEGImages/{VAL[1]}.jpg"))
    np.testing.assert_array_equal(data.splits["test"].images[1], pixels.transpose(2, 0, 1))


def test_void_is_ignored(root):
    data = read_voc(root)
    _, labels = next(eval_batches(data.splits["test"], 3, Segmentation(Segmentation.Keys(), data)))
    np.testing.assert_array_equal(labels.numpy() == IGNORE, np.stack([ids_of(name) == 255 for name in VAL]))
    assert labels.max() == 20


def test_classes_are_those_of_the_development_kit():
    assert (VOC_CLASSES[0], VOC_CLASSES[1], VOC_CLASSES[15], VOC_CLASSES[20]) == (
        "background",
        "aeroplane",
        "person",
        "tvmonitor",
    )
    assert list(VOC_CLASSES[1:]) == sorted(VOC_CLASSES[1:])
    assert len(set(VOC_CLASSES)) == 21


@pytest.mark.parametrize("place", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_voc_is_found_in_the_folder_its_parent_and_its_grand_parent(root, place):
    assert read_voc(root / place).fingerprint() == read_voc(root).fingerprint()


@pytest.mark.parametrize("place", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
@pytest.mark.parametrize(
    "sbd", ["sbd", "SBD", "benchmark_RELEASE/dataset", "VOCdevkit/SBD", "VOCdevkit/VOCaug/dataset"]
)
def test_sbd_is_found_beside_voc_from_wherever_it_is_asked_for(root, place, sbd):
    write_sbd(root / sbd)
    assert names(read_voc(root / place), "train", "val") == {*TRAIN, *MORE}


def test_a_folder_given_relative_to_the_present_one(root, voc, monkeypatch):
    write_sbd(root / "sbd")
    monkeypatch.chdir(voc)
    assert names(read_voc("."), "train", "val") == {*TRAIN, *MORE}


@pytest.mark.parametrize(
    "place",
    [
        "ImageSets/Segmentation/trainaug.txt",
        "ImageSets/Segmentation/train_aug.txt",
        "ImageSets/Segmentation/aug.txt",
        "ImageSets/SegmentationAug/train_aug.txt",
        "SegmentationAug/train_aug.txt",
        "list/train_aug.txt",
        "train_aug.txt",
    ],
)
@pytest.mark.parametrize("line", ["{0}", "/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png", "JPEGImages/{0}.jpg"])
def test_the_lists_of_the_merged_annotation(root, voc, place, line):
    write_augmented(voc)
    listing(voc / place, [line.format(name) for name in MORE[3:9]])
    data = read_voc(root)
    assert names(data, "train", "val") == {*TRAIN, *MORE[3:9]}
    assert place in data.notice


def test_the_merged_annotation_goes_before_sbd(root, voc):
    write_augmented(voc, MORE[:7])
    write_sbd(root / "sbd", mat=lambda path, ids: listing(path, []))
    assert names(read_voc(root), "train", "val") == {*TRAIN, *MORE[:7]}


def test_photographs_that_voc_lacks_are_sbds(root, voc):
    write_sbd(root / "sbd")
    (voc / f"JPEGImages/{MORE[4]}.jpg").unlink()
    data = read_voc(root)
    assert MORE[4] in names(data, "train", "val")


def test_voc_alone_is_reported(root):
    notice = read_voc(root).notice
    assert "neither SegmentationClassAug nor SBD" in notice
    assert "VOC train alone, 4; the papers train on 10,582" in notice


def test_what_the_merged_annotation_adds_is_reported(root, voc):
    write_augmented(voc)
    assert "no list of it was found: all its maps" in read_voc(root).notice
    listing(voc / "ImageSets/Segmentation/trainaug.txt", [*MORE[:30], *TRAIN, VAL[0]])
    notice = read_voc(root).notice
    assert "4 of VOC train and 30 that are added by SegmentationClassAug (ImageSets/Segmentation/trainaug" in notice
    assert "1 more of it are in VOC val and were left out. These are 34; the papers train on 10,582." in notice


def test_what_sbd_adds_is_reported(root):
    write_sbd(root / "sbd")
    notice = read_voc(root).notice
    assert f"4 of VOC train and 40 that are added by SBD ({root / 'sbd'}); 3 more of it are in VOC val" in notice


def test_the_papers_number_is_not_remarked_on(root, voc, monkeypatch):
    write_augmented(voc)
    monkeypatch.setattr("rfsearch.data.voc_lists._PAPERS_TRAIN_ON", 44)
    assert "papers" not in read_voc(root).notice


def test_the_hold_out_is_a_hash_of_the_names(root, voc, monkeypatch):
    write_augmented(voc)
    first, again, other = (read_voc(root, hold_out_seed=seed) for seed in (0, 0, 1))
    assert first.fingerprint() == again.fingerprint()
    assert len(first.splits["val"]) == 2
    assert first.splits["val"].names != other.splits["val"].names
    assert first.splits["val"].names != tuple(sorted({*TRAIN, *MORE}))[:2]
    assert "with seed 1" in other.notice
    monkeypatch.setattr("rfsearch.data.voc_lists._HELD_MOST", 1)
    (most,) = read_voc(root).splits["val"].names
    assert most in first.splits["val"].names


def test_a_size_asked_for(root, voc):
    """A fine checkerboard turns grey; its label keeps to the ids there are."""
    board = np.indices(SIZE).sum(axis=0) % 2
    Image.fromarray(np.repeat(board[..., None] * 200, 3, axis=2).astype(np.uint8)).save(
        voc / f"JPEGImages/{VAL[0]}.jpg", quality=100
    )
    palette_map(voc / f"SegmentationClass/{VAL[0]}.png", np.where(board, 255, 8))
    data = read_voc(root, size=(6, 8))
    assert data.image_size == (6, 8)
    assert "sizes" not in data.notice
    assert np.abs(data.splits["test"].images[0].astype(int) - 100).max() < 30
    assert set(np.unique(data.splits["test"].targets[0])) <= {8, 255}
    np.testing.assert_array_equal(data.splits["test"].targets[1], ids_of(VAL[1])[1::2, 1::2])


def test_images_of_several_sizes(root, voc):
    photograph(voc / f"JPEGImages/{VAL[0]}.jpg", size=(24, 32))
    palette_map(voc / f"SegmentationClass/{VAL[0]}.png", np.kron(ids_of(VAL[0]), np.ones((2, 2), np.uint8)))
    data = read_voc(root)
    assert data.image_size == SIZE
    assert "2 sizes" in data.notice
    np.testing.assert_array_equal(label_of(data, VAL[0]), ids_of(VAL[0]))


def test_mapped_and_in_memory_are_one(root, voc, tmp_path):
    write_augmented(voc)
    mapped = read_voc(root, memory_limit_bytes=0, cache=tmp_path / "cache")
    assert isinstance(mapped.splits["train"].targets, np.memmap)
    assert mapped.fingerprint() == read_voc(root).fingerprint()
    palette_map(voc / f"SegmentationClass/{VAL[0]}.png", np.full(SIZE, 20))
    changed = read_voc(root, memory_limit_bytes=0, cache=tmp_path / "cache")
    assert (changed.splits["test"].targets[0] == 20).all()


def break_everything(root, voc):
    for folder in (voc / "SegmentationClass", voc / "ImageSets", voc / "JPEGImages"):
        folder.rename(root / f"{folder.name}.old")


def break_voc(root, voc):
    (voc / "SegmentationClass").rename(voc / "Segmentation")


def break_label(root, voc):
    (voc / f"SegmentationClass/{TRAIN[1]}.png").unlink()


def break_listed_label(root, voc):
    (voc / f"SegmentationClassAug/{MORE[1]}.png").unlink()


def break_image(root, voc):
    (voc / f"JPEGImages/{MORE[1]}.jpg").unlink()


def break_jpeg(root, voc):
    path = voc / f"JPEGImages/{VAL[0]}.jpg"
    path.write_bytes(path.read_bytes()[:-80])


def break_ids(root, voc):
    palette_map(voc / f"SegmentationClass/{VAL[0]}.png", np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) % 24)


def break_kind(root, voc):
    Image.new("RGB", SIZE[::-1]).save(voc / f"SegmentationClass/{VAL[0]}.png")


def break_size(root, voc):
    palette_map(voc / f"SegmentationClass/{VAL[0]}.png", np.zeros((16, 12)))


def break_line(root, voc):
    listing(voc / "ImageSets/Segmentation/train.txt", [*TRAIN, f"{MORE[2]} 1"])


def break_pair(root, voc):
    listing(voc / "ImageSets/Segmentation/trainaug.txt", [f"a/{MORE[0]}.jpg b/{MORE[1]}.png"])


def break_twice(root, voc):
    listing(voc / "ImageSets/Segmentation/val.txt", [*VAL, "", VAL[1]])


def break_leak(root, voc):
    listing(voc / "ImageSets/Segmentation/train.txt", [*TRAIN, VAL[1]])


def break_emptied(root, voc):
    listing(voc / "ImageSets/Segmentation/val.txt", [])


def break_maps_emptied(root, voc):
    (voc / "ImageSets/Segmentation/trainaug.txt").unlink()
    for path in (voc / "SegmentationClassAug").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (break_everything, r"data: no PASCAL VOC 2012 here\. DIR is read in two layouts: \(a\) .*\(b\) .*beside"),
        (break_voc, r"no PASCAL VOC 2012 here; .*VOCdevkit/VOC2012 lacks SegmentationClass\. DIR is .*\(a\).*\(b\)"),
        (break_label, r"train\.txt, line 2: image '2007_000001' has no label .*SegmentationClass/2007_000001\.png"),
        (break_listed_label, r"trainaug\.txt, line 2: image '2009_000001' has no label .*Aug/2009_000001\.png"),
        (break_image, r"trainaug\.txt, line 2: there is no .*JPEGImages/2009_000001\.jpg"),
        (break_jpeg, r"2008_000000\.jpg: cannot be decoded"),
        (break_ids, r"2008_000000\.png: class id 21, 22, 23 is outside 0\.\.20, and the ignore index is 255"),
        (break_kind, r"2008_000000\.png: a label must be a PNG of a single channel of 8 bits; this is PNG RGB"),
        (break_size, r"00\.png: is 12 x 16 px \(W x H\), its image 2008_000000\.jpg is 16 x 12 px"),
        (break_line, r"train\.txt, line 5: expected a name, or the paths of .*, got '2009_000002 1'"),
        (break_pair, r"trainaug\.txt, line 1: expected a name, or the paths of an image and its map, got"),
        (break_twice, r"val\.txt, line 5: image '2008_000001' is already listed in .*val\.txt, line 2"),
        (break_leak, r"train\.txt, line 5: image '2008_000001' is already listed in .*val\.txt, line 2"),
        (break_emptied, r"val\.txt: lists no image"),
        (break_maps_emptied, r"SegmentationClassAug: holds no PNG"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_one_fault_is_one_clear_message(root, voc, breakage, message):
    write_augmented(voc)
    listing(voc / "ImageSets/Segmentation/trainaug.txt", MORE)
    breakage(root, voc)
    with pytest.raises(DataError, match=message) as caught:
        read_voc(root)
    assert "\n" not in str(caught.value)


def break_sbd_list(sbd):
    (sbd / "val.txt").unlink()


def break_mat_torn(sbd):
    path = sbd / f"cls/{MORE[1]}.mat"
    path.write_bytes(path.read_bytes()[:-40])


def break_mat_field(sbd):
    write_mat(sbd / f"cls/{MORE[1]}.mat", ids_of(MORE[1]), field="Boundaries")


def break_mat_shape(sbd):
    write_mat(sbd / f"cls/{MORE[1]}.mat", np.zeros((2, *SIZE), np.uint8))


def break_mat_ids(sbd):
    write_mat(sbd / f"cls/{MORE[1]}.mat", np.full(SIZE, 300, np.int16))


def break_mat_missing(sbd):
    (sbd / f"cls/{MORE[1]}.mat").unlink()


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (break_sbd_list, r"sbd: SBD is read from cls/, train\.txt and val\.txt\. Missing: val\.txt"),
        (break_mat_torn, r"2009_000001\.mat: cannot be read as SBD's GTcls\.Segmentation \(\w+"),
        (break_mat_field, r"2009_000001\.mat: cannot be read as SBD's GTcls\.Segmentation \(ValueError"),
        (break_mat_shape, r"2009_000001\.mat: GTcls\.Segmentation must be H x W integers\. Got .*\(2, 12, 16\)"),
        (break_mat_ids, r"2009_000001\.mat: class id 300 is outside 0\.\.20"),
        (break_mat_missing, r"sbd/train\.txt, line 4: image '2009_000001' has no label .*cls/2009_000001\.mat"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_one_fault_of_sbd_is_one_clear_message(root, breakage, message):
    write_sbd(root / "sbd")
    breakage(root / "sbd")
    with pytest.raises(DataError, match=message) as caught:
        read_voc(root)
    assert "\n" not in str(caught.value)


def test_many_faults_are_reported_together(root, voc):
    write_augmented(voc)
    listing(voc / "ImageSets/Segmentation/trainaug.txt", MORE)
    for breakage in (break_label, break_listed_label, break_image, break_jpeg, break_leak):
        breakage(root, voc)
    palette_map(voc / f"SegmentationClass/{VAL[2]}.png", np.full(SIZE, 21))
    with pytest.raises(DataError) as caught:
        read_voc(root)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("6 faults:")
    assert lines[-1].strip() == "... and 1 more"


def test_a_single_training_image_cannot_be_divided(root, voc):
    listing(voc / "ImageSets/Segmentation/train.txt", TRAIN[:1])
    with pytest.raises(DataError, match="at least two training images"):
        read_voc(root)


@pytest.mark.parametrize("preset", ["mini", "paper"])
def test_the_shipped_space_names_the_classes_that_are_read(preset):
    space = read_space(Path(__file__).parents[2] / "search_spaces/voc.toml", preset)
    assert (space.name, space.data.layout, space.task.metric) == ("voc", "voc", "mean-iou")
    assert (space.data.classes, space.data.ignore_index) == (VOC_CLASSES, 255)


def test_photographs_are_turned_upright_and_maps_of_the_stored_ones_with_them(root, voc):
    pixels = np.random.default_rng(3).integers(0, 256, (*SIZE[::-1], 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, ids in ((VAL[0], ids_of(VAL[0])), (VAL[1], np.rot90(ids_of(VAL[1])))):
        Image.fromarray(pixels).save(voc / f"JPEGImages/{name}.jpg", format="PNG", exif=exif)
        palette_map(voc / f"SegmentationClass/{name}.png", ids)
    data = read_voc(root)
    for name in VAL[:2]:
        np.testing.assert_array_equal(label_of(data, name), ids_of(name))
    np.testing.assert_array_equal(data.splits["test"].images[0], np.rot90(pixels, -1).transpose(2, 0, 1))
    assert "Images with an EXIF orientation, turned upright: 2 (first: 2008_000000.jpg)." in data.notice
    assert "match only the stored image, turned upright with it: 1 (first: 2008_000001.png)." in data.notice


def test_padding_is_void(root):
    data = read_voc(root, size=(16, 16), resize="pad")
    label = label_of(data, VAL[0])
    np.testing.assert_array_equal(label[2:14], ids_of(VAL[0]))
    assert (label[[0, 1, 14, 15]] == 255).all()
    assert "are padded to 16 x 16 px" in data.notice


def test_lists_may_begin_with_a_byte_order_mark(root, voc):
    path = voc / "ImageSets/Segmentation/train.txt"
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert names(read_voc(root), "train", "val") == set(TRAIN)


def test_names_in_two_unicode_forms_are_one_name(root, voc):
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    photograph(voc / f"JPEGImages/{apart}.jpg")
    palette_map(voc / f"SegmentationClass/{composed}.png", ids_of(apart))
    listing(voc / "ImageSets/Segmentation/val.txt", [*VAL, apart])
    np.testing.assert_array_equal(label_of(read_voc(root), composed), ids_of(apart))


def test_a_limit_of_pixels_is_a_setting(root):
    with pytest.raises(DataError, match=r"max_pixels = 192"):
        read_voc(root, pictures=PictureRule(max_pixels=100))
    assert len(read_voc(root, pictures=PictureRule(max_pixels=192)).splits["test"]) == 3
