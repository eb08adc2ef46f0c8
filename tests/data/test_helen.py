import numpy as np
import pytest
from PIL import Image

from rfsearch.data import read_helen, rendered_faces
from rfsearch.data.pictures import PictureRule
from rfsearch.errors import DataError

FILES = {"train": "exemplars.txt", "val": "tuning.txt", "test": "testing.txt"}


def published_layout(root, faces):
    """Write an image set as Helen was published; the soft maps are 250 for the class and 0..5 elsewhere."""
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for title, split in faces.splits.items():
        lines = []
        for k, (image, label, name) in enumerate(zip(split.images, split.targets, split.names, strict=True)):
            Image.fromarray(image.transpose(1, 2, 0)).save(root / "images" / f"{name}.jpg", quality=95)
            (root / "labels" / name).mkdir(parents=True)
            for c in range(11):
                soft = np.where(label == c, 250, rng.integers(0, 6, label.shape)).astype(np.uint8)
                Image.fromarray(soft).save(root / "labels" / name / f"{name}_lbl{c:02d}.png")
            lines.append(f"{k + 1} , {name}\n")
        (root / FILES[title]).write_text("".join(lines))


@pytest.fixture(scope="module")
def faces():
    return rendered_faces(3, 2, 1, size=(48, 40))


@pytest.fixture
def root(tmp_path, faces):
    published_layout(tmp_path / "helen", faces)
    return tmp_path / "helen"


def test_reads_back_what_was_drawn(root, faces):
    s = read_helen(root)
    assert (s.classes, s.flip_pairs, s.image_size, s.ignore_index) == (
        faces.classes,
        faces.flip_pairs,
        (48, 40),
        None,
    )
    assert (s.rendered, s.notice) == (False, "")
    for title, split in faces.splits.items():
        assert s.splits[title].names == split.names
        np.testing.assert_array_equal(s.splits[title].targets, split.targets)
        assert np.abs(s.splits[title].images.astype(int) - split.images).mean() < 12


def test_soft_maps_are_resized_before_the_arg_max(root, faces):
    """A 2 x 2 block of which three quarters are hair is hair, even where the nearest pixel is not."""
    name = faces.splits["train"].names[0]
    for c in range(11):
        soft = np.full((48, 40), 250 if c == 0 else 0, np.uint8)
        if c == 0:
            soft[::2, ::2], soft[::2, 1::2], soft[1::2, ::2] = 0, 0, 0
        if c == 10:
            soft[::2, ::2], soft[::2, 1::2], soft[1::2, ::2] = 200, 200, 200
        Image.fromarray(soft).save(root / "labels" / name / f"{name}_lbl{c:02d}.png")
    s = read_helen(root, size=(24, 20))
    assert s.image_size == (24, 20)
    assert (s.splits["train"].targets[0] == 10).all()


def test_without_testing_there_is_no_test_split(root):
    (root / "testing.txt").unlink()
    s = read_helen(root)
    assert set(s.splits) == {"train", "val"}
    assert "testing.txt" in s.notice


def test_mapped_is_the_same(root, tmp_path):
    mapped = read_helen(root, memory_limit_bytes=0, cache=tmp_path / "cache")
    assert isinstance(mapped.splits["val"].images, np.memmap)
    assert mapped.fingerprint() == read_helen(root).fingerprint()


def test_images_of_several_sizes(root, faces):
    name = faces.splits["val"].names[0]
    for path in [root / "images" / f"{name}.jpg", *(root / "labels" / name).iterdir()]:
        Image.open(path).resize((80, 96)).save(path)
    s = read_helen(root)
    assert s.image_size == (48, 40)
    assert "2 sizes" in s.notice


def break_map(root, name):
    (root / "labels" / name / f"{name}_lbl07.png").unlink()


def break_map_size(root, name):
    Image.new("L", (9, 9)).save(root / "labels" / name / f"{name}_lbl07.png")


def break_map_kind(root, name):
    Image.new("RGB", (40, 48)).save(root / "labels" / name / f"{name}_lbl07.png")


def break_map_palette(root, name):
    Image.new("P", (40, 48)).save(root / "labels" / name / f"{name}_lbl07.png")


def break_jpeg(root, name):
    path = root / "images" / f"{name}.jpg"
    path.write_bytes(path.read_bytes()[:-300])


def break_image(root, name):
    (root / "images" / f"{name}.jpg").unlink()


def break_split_file(root, name):
    (root / "tuning.txt").rename(root / "tunning.txt")


def break_line(root, name):
    with (root / "tuning.txt").open("a") as file:
        file.write("\n17 no comma\n")


def break_leak(root, name):
    with (root / "testing.txt").open("a") as file:
        file.write(f"2 , {name}\n")


def break_emptied(root, name):
    (root / "exemplars.txt").write_text("\n")


def break_folder(root, name):
    (root / "labels").rename(root / "label")


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (break_map, r"NAME_lbl07\.png: no such file"),
        (break_map_size, r"NAME_lbl07\.png: is 9 x 9 px \(W x H\), its image NAME\.jpg is 40 x 48 px"),
        (break_map_kind, r"NAME_lbl07\.png: a label must be a PNG of a single channel of 8 bits"),
        (break_map_palette, r"NAME_lbl07\.png: a soft map must be greyscale"),
        (break_jpeg, r"NAME\.jpg: cannot be decoded"),
        (break_image, r"tuning\.txt, line 2: there is no .*NAME\.jpg"),
        (break_split_file, r"tuning\.txt: no such file; it lists the val images\. Did you mean 'tunning\.txt'"),
        (break_line, r"tuning\.txt, line 4: expected `number , name`, got '17 no comma'"),
        (break_leak, r"testing\.txt, line 2: image 'NAME' is already listed in .*tuning\.txt, line 2"),
        (break_emptied, r"exemplars\.txt: lists no image"),
        (break_folder, r"labels: no such folder.* Did you mean 'label'\?"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_one_fault_is_one_clear_message(root, faces, breakage, message):
    name = faces.splits["val"].names[1]
    breakage(root, name)
    with pytest.raises(DataError, match=message.replace("NAME", name)) as caught:
        read_helen(root)
    assert "\n" not in str(caught.value)


def test_photographs_are_turned_upright_and_maps_of_the_stored_ones_with_them(root):
    plain = read_helen(root).splits["val"]
    name = plain.names[0]
    for path in [root / "images" / f"{name}.jpg", *(root / "labels" / name).iterdir()]:
        Image.fromarray(np.rot90(np.asarray(Image.open(path)))).save(path, format="PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph = root / "images" / f"{name}.jpg"
    Image.open(photograph).save(photograph, format="PNG", exif=exif)
    data = read_helen(root)
    np.testing.assert_array_equal(data.splits["val"].targets[0], plain.targets[0])
    np.testing.assert_array_equal(data.splits["val"].images[0], plain.images[0])
    assert "match only the stored image, turned upright with it: 1" in data.notice


def test_padding_is_ignored_and_crop_keeps_the_centre(root):
    plain = read_helen(root)
    padded, cropped = (read_helen(root, size=(48, 48), resize=resize) for resize in ("pad", "crop"))
    assert (plain.ignore_index, padded.ignore_index, cropped.ignore_index) == (None, 255, None)
    label = padded.splits["val"].targets[0]
    np.testing.assert_array_equal(label[:, 4:44], plain.splits["val"].targets[0])
    assert (label[:, :4] == 255).all()
    assert (label[:, 44:] == 255).all()
    assert "squashed" in read_helen(root, size=(48, 48)).notice
    narrow = read_helen(root, size=(40, 40), resize="crop")
    np.testing.assert_array_equal(narrow.splits["val"].targets[0], plain.splits["val"].targets[0][4:44])


@pytest.mark.parametrize("memory_limit_bytes", [None, 0])
def test_the_offered_limit_of_pixels_serves_all_maps_of_all_photographs(root, faces, tmp_path, memory_limit_bytes):
    limits = {"memory_limit_bytes": memory_limit_bytes, "cache": tmp_path / "cache"}
    for split, part, side in (("train", 3, 60), ("val", 10, 80)):
        name = faces.splits[split].names[0]
        Image.new("L", (side, side)).save(root / "labels" / name / f"{name}_lbl{part:02d}.png")
    with pytest.raises(DataError, match=r"_lbl10\.png: has 80 x 80 px.* the largest of 2 such .* max_pixels = 6400$"):
        read_helen(root, pictures=PictureRule(max_pixels=2_000), **limits)
    with pytest.raises(DataError, match=r"(?s)_lbl03\.png: is 60 x 60 px.*_lbl10\.png: is 80 x 80 px"):
        read_helen(root, pictures=PictureRule(max_pixels=6_400), **limits)
