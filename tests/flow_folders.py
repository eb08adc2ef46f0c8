"""Small folders in the layouts of FlyingChairs, MPI Sintel and KITTI, with pairs that are drawn."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from rfsearch.data.flo import write_flo
from rfsearch.data.rendered_motions import DrawnPair, draw_pair

SIZE = (40, 56)


def drawn(seed: int, size: tuple[int, int] = SIZE) -> DrawnPair:
    return draw_pair(np.random.default_rng(seed), size)


def write_chairs(root: Path, labels: str = "112111") -> Path:
    """Write as many pairs as there are labels: 1 is trained on, 2 is not."""
    (root / "data").mkdir(parents=True)
    for number, _ in enumerate(labels, start=1):
        pair, stem = drawn(number), str(root / "data" / f"{number:05d}")
        Image.fromarray(pair.first).save(f"{stem}_img1.ppm")
        Image.fromarray(pair.second).save(f"{stem}_img2.ppm")
        write_flo(Path(f"{stem}_flow.flo"), pair.flow)
    (root / "FlyingChairs_train_val.txt").write_text("\n".join(labels) + "\n")
    return root


def write_sintel(root: Path, scenes: tuple[str, ...] = ("alley_1", "bamboo_2", "cave_3"), frames: int = 3) -> Path:
    for number, scene in enumerate(scenes):
        for part in ("clean", "final", "flow", "invalid"):
            (root / "training" / part / scene).mkdir(parents=True)
        for frame in range(1, frames + 1):
            pair, name = drawn(10 * number + frame), f"frame_{frame:04d}"
            for rendering, shade in (("clean", 0), ("final", 20)):
                shaded = (pair.first // 2 + shade).astype(np.uint8)
                Image.fromarray(shaded).save(root / "training" / rendering / scene / f"{name}.png")
            if frame < frames:
                write_flo(root / "training" / "flow" / scene / f"{name}.flo", pair.flow)
                invalid = (~pair.visible * 255).astype(np.uint8)
                Image.fromarray(invalid).save(root / "training" / "invalid" / scene / f"{name}.png")
    return root


def write_kitti(root: Path, count: int = 6, images: str = "image_2") -> Path:
    for part in (images, "flow_occ", "flow_noc"):
        (root / "training" / part).mkdir(parents=True)
    for number in range(count):
        pair, name = drawn(100 + number), f"{number:06d}"
        Image.fromarray(pair.first).save(root / "training" / images / f"{name}_10.png")
        Image.fromarray(pair.second).save(root / "training" / images / f"{name}_11.png")
        for part, known in (("flow_occ", np.ones(SIZE, bool)), ("flow_noc", pair.visible)):
            write_kitti_flow(root / "training" / part / f"{name}_10.png", pair.flow, known)
    return root


def write_kitti_flow(path: Path, flow: np.ndarray, known: np.ndarray) -> None:
    """Write a PNG of 3 x 16 bits by hand: Pillow writes no such."""
    levels = np.rint(flow * 64 + 2**15).clip(0, 2**16 - 1)
    values = np.concatenate([levels, known[..., None]], axis=2) * known[..., None]
    height, width = known.shape
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)  # filter 0 in front of each
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = b"".join(map(_chunk, (b"IHDR", b"IDAT", b"IEND"), (header, zlib.compress(lines), b"")))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
