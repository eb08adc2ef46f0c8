import pickle
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from rfsearch.data import ImageSet, Split
from rfsearch.data.faults import Faults, require_folder
from rfsearch.data.fitting import choose_size
from rfsearch.data.labels import open_byte_map
from rfsearch.data.loading import Item, load_splits
from rfsearch.data.picture_files import decode, read_headers
from rfsearch.errors import DataError


def a_split(n=3, size=(4, 5), seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 3, *size), np.uint8)
    return Split(images, rng.integers(0, 3, (n, *size), np.uint8), tuple(f"i{k}" for k in range(n)))


def a_set(**changes):
    fields = {"name": "toy", "classes": ("a", "b", "c"), "ignore_index": None}
    return ImageSet(**fields | {"splits": {"train": a_split(), "val": a_split(2, seed=1)}} | changes)


def items_of(folder, n, prefix):
    """n images of 6 x 7 px, the label being the red channel."""
    items = []
    for k in range(n):
        path = folder / f"{prefix}{k}.png"
        Image.fromarray(np.random.default_rng(k).integers(0, 9, (6, 7, 3), np.uint8)).save(path)
        items.append(Item(f"{prefix}{k}", (path,)))
    return items


def read(item):
    image = np.asarray(decode(item.files[0])[0])
    return image, image[..., 0]


def test_size_classes_and_summary():
    s = a_set(ignore_index=255)
    assert (s.image_size, s.num_classes) == ((4, 5), 3)
    assert s.summary() == "toy: 3 classes, id 255 ignored, 5 x 4 px (W x H), train 3, val 2; read from files"


def test_fingerprint_sees_all_that_training_sees_and_no_more():
    base = a_set().fingerprint()
    assert base == a_set(name="other", notice="said", rendered=True).fingerprint()
    pixel, label = a_split(), a_split()
    pixel.images[2, 1, 3, 4] ^= 1
    label.targets[0, 0, 0] ^= 1
    renamed = replace(a_split(), names=("i0", "i1", "x"))
    val = a_split(2, seed=1)
    changed = [
        a_set(splits={"train": pixel, "val": val}),
        a_set(splits={"train": label, "val": val}),
        a_set(splits={"train": renamed, "val": val}),
        a_set(splits={"train": val, "val": a_split()}),
        a_set(splits={"train": a_split(), "val": val, "test": val}),
        a_set(classes=("a", "b", "d")),
        a_set(ignore_index=2),
    ]
    assert len({base, *(s.fingerprint() for s in changed)}) == 1 + len(changed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"splits": {"train": a_split()}}, "Empty: val"),
        ({"splits": {"train": a_split(), "val": a_split(2, (4, 6))}}, "one size"),
        ({"flip_pairs": ((1, 3),)}, r"0\.\.2\. Got \[\(1, 3\)\]"),
    ],
)
def test_an_inconsistent_set_is_refused(changes, message):
    with pytest.raises(DataError, match=message):
        a_set(**changes)


@pytest.mark.parametrize(
    ("images", "labels", "names"),
    [
        (np.zeros((2, 4, 5), np.uint8), np.zeros((2, 4, 5), np.uint8), ("a", "b")),
        (np.zeros((2, 3, 4, 5), np.uint8), np.zeros((3, 4, 5), np.uint8), ("a", "b")),
        (np.zeros((2, 3, 4, 5), np.uint8), np.zeros((), np.uint8), ("a", "b")),
        (np.zeros((2, 3, 4, 5), np.uint8), np.zeros((2, 4, 5), np.uint8), ("a",)),
        (np.zeros((2, 3, 4, 5), np.float32), np.zeros((2, 4, 5), np.uint8), ("a", "b")),
    ],
)
def test_a_split_of_wrong_arrays_is_refused(images, labels, names):
    with pytest.raises(ValueError, match="Got"):
        Split(images, labels, names)


def test_above_the_limit_the_pixels_are_mapped_and_the_same(tmp_path):
    items = {"train": items_of(tmp_path, 5, "t"), "val": items_of(tmp_path, 2, "v")}
    total = 7 * 6 * 7 * 4

    def load(limit):
        return load_splits(items, read, (6, 7), Faults("toy"), None, limit, tmp_path / "cache")

    small, large = load(total), load(total - 1)
    for title in items:
        assert not isinstance(small[title].images, np.memmap)
        assert isinstance(large[title].images, np.memmap)
        assert not large[title].images.flags.writeable
        np.testing.assert_array_equal(small[title].images, large[title].images)
        np.testing.assert_array_equal(small[title].targets, large[title].targets)
        assert small[title].names == large[title].names


def test_a_mapped_set_is_written_once_and_again_when_a_file_changes(tmp_path):
    items = {"train": items_of(tmp_path, 3, "t")}
    reads = []

    def counted(item):
        reads.append(item.name)
        return read(item)

    def load(settings=None):
        load_splits(items, counted, (6, 7), Faults("toy"), settings, 0, tmp_path / "cache")
        return len(reads)

    assert [load(), load()] == [3, 3]
    assert load("other settings") == 6
    Image.fromarray(np.full((6, 7, 3), 99, np.uint8)).save(tmp_path / "t1.png")
    assert load() == 9
    assert not list((tmp_path / "cache").glob("draft-*"))


def test_a_faulty_set_leaves_no_cache(tmp_path):
    items = {"train": [*items_of(tmp_path, 2, "t"), Item("gone", (tmp_path / "gone.png",))]}
    with pytest.raises(DataError, match=r"gone\.png: no such file"):
        load_splits(items, read, (6, 7), Faults("toy"), None, 0, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_unwritable_cache_is_reported(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match="cannot be written"):
        load_splits({"train": items_of(tmp_path, 1, "t")}, read, (6, 7), Faults("toy"), None, 0, tmp_path / "cache")


def test_a_mapped_split_is_pickled_by_path_a_plain_one_by_content(tmp_path):
    items = {"train": items_of(tmp_path, 60, "t")}
    mapped = load_splits(items, read, (6, 7), Faults("toy"), None, 0, tmp_path / "cache")["train"]
    plain = Split(np.array(mapped.images), np.array(mapped.targets), mapped.names)
    part = Split(mapped.images[10:], mapped.targets[10:], mapped.names[10:])
    sizes = [len(pickle.dumps(split)) for split in (mapped, plain)]
    assert sizes[0] < mapped.images.nbytes / 4 < mapped.images.nbytes < sizes[1]
    for split in (mapped, plain, part):
        again = pickle.loads(pickle.dumps(split))
        np.testing.assert_array_equal(again.images, split.images)
        np.testing.assert_array_equal(again.targets, split.targets)
        assert again.names == split.names
    assert isinstance(pickle.loads(pickle.dumps(mapped)).images, np.memmap)
    assert not isinstance(pickle.loads(pickle.dumps(part)).images, np.memmap)


def test_a_mapped_split_without_its_file_says_so(tmp_path):
    mapped = load_splits(
        {"train": items_of(tmp_path, 2, "t")}, read, (6, 7), Faults("toy"), None, 0, tmp_path / "cache"
    )
    data = pickle.dumps(mapped["train"])
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="not on this machine"):
        pickle.loads(data)


@pytest.mark.parametrize(("n", "lines", "more"), [(1, 1, False), (5, 6, False), (8, 7, True)])
def test_faults_are_reported_at_once_and_the_rest_counted(n, lines, more):
    faults = Faults("here")
    faults.check()
    for k in range(n):
        faults.add(f"fault {k}")
    with pytest.raises(DataError) as caught:
        faults.check()
    text = str(caught.value)
    assert text.startswith(f"here: {n} fault")
    assert len(text.splitlines()) == lines
    assert ("... and 3 more" in text) == more
    assert all((f"fault {k}" in text) == (k < min(n, 5)) for k in range(8))


def test_a_missing_folder_names_the_nearest(tmp_path):
    for name in ("camvid-240x180", "nuclei"):
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=r"'camvd' is not in .* Did you mean 'camvid-240x180'\?"):
        require_folder(tmp_path / "camvd" / "deeper")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="this is a file"):
        require_folder(tmp_path / "file")


def test_a_truncated_or_foreign_file_is_named(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    assert decode(path)[0].size == (40, 40)
    for content in (whole[: len(whole) // 2], whole[:-200], b"no image at all", b""):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.jpg: cannot be decoded"):
            decode(path)


@pytest.mark.parametrize("mode", ["RGB", "1", "I;16", "LA"])
def test_a_label_that_is_not_8_bit_is_refused(tmp_path, mode):
    Image.new(mode, (4, 3)).save(tmp_path / "l.png")
    with pytest.raises(DataError, match=r"l\.png: a label must be a PNG of a single channel of 8 bits; this is PNG"):
        open_byte_map(tmp_path / "l.png")


def test_a_label_of_4_bits_is_refused_since_its_ids_are_stretched(tmp_path):
    path = tmp_path / "l.png"
    write_grey_png(path, np.array([[0, 1], [2, 15]]), bits=4)
    assert np.asarray(decode(path)[0]).tolist() == [[0, 17], [34, 255]]
    with pytest.raises(DataError, match="4 bit"):
        open_byte_map(path)


def test_a_jpeg_that_calls_itself_png_is_no_label(tmp_path):
    Image.new("L", (4, 3)).save(tmp_path / "l.png", format="JPEG")
    with pytest.raises(DataError, match="this is JPEG L"):
        open_byte_map(tmp_path / "l.png")


def test_a_palette_label_gives_its_indices(tmp_path):
    ids = np.array([[0, 3], [7, 255]], np.uint8)
    image = Image.fromarray(ids).convert("L")
    image = image.copy()
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    image.save(tmp_path / "l.png")
    label = open_byte_map(tmp_path / "l.png")
    assert label.mode == "P"
    np.testing.assert_array_equal(np.asarray(label), ids)


def test_the_most_common_size_wins_and_is_reported(tmp_path):
    paths = []
    for k, wh in enumerate([(5, 4), (6, 4), (6, 4)]):
        paths.append(tmp_path / f"{k}.png")
        Image.new("RGB", wh).save(paths[-1])
    size, note = choose_size(read_headers(paths), None, "stretch")
    assert size == (4, 6)
    assert "2 sizes" in note
    assert "6 x 4" in note
    assert choose_size(read_headers(paths[1:]), None, "stretch") == ((4, 6), "")
    assert choose_size(read_headers([tmp_path / "none.png"]), None, "stretch") == (None, "")


def write_grey_png(path, ids, bits):
    """A greyscale PNG of fewer than 8 bits a pixel, which PIL cannot write."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b""
    for row in ids:
        text = "".join(f"{v:0{bits}b}" for v in row)
        rows += b"\0" + int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")
    header = struct.pack(">IIBBBBB", ids.shape[1], ids.shape[0], bits, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
