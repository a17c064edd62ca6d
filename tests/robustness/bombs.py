"""The worst known inputs of each reader: small files that claim, or unpack to, far more than they hold.

Run as a program, it reads one of them and prints the seconds and the bytes of memory that this took.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import struct
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tests.data_for_tests import picture, save, save_json
from tests.robustness.readers import READERS, SIZE_HW

from segany.core.errors import SeganyError

ZEROS = b"\0" * (1 << 20)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _deflated_zeros(count: int) -> bytes:
    packer = zlib.compressobj(9)
    parts = [packer.compress(ZEROS) for _ in range(count >> 20)]
    return b"".join([*parts, packer.flush()])


def _png(side: int, depth: int = 1) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, depth, 0, 0, 0, 0)
    data = _deflated_zeros(side * (side * depth // 8 + 1))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _gif(frames: int) -> bytes:
    frame = b"\x2c" + struct.pack("<4H", 0, 0, 1, 1) + b"\0\x02\x02\x44\x01\0"
    return b"GIF89a" + struct.pack("<2H", 30_000, 30_000) + b"\x80\0\0\0\0\0\xff\xff\xff" + frame * frames + b"\x3b"


def _npy(shape: tuple[int, ...], descr: str) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _zip_of_zeros(path: Path, members: dict[str, tuple[bytes, int]]) -> Path:
    """Write a zip of members that each begin with some bytes and go on with megabytes of zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, (beginning, megabytes) in members.items():
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(beginning)
                for _ in range(megabytes):
                    file.write(ZEROS)
    return path


def _written(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _coco(folder: Path, size_hw: tuple[int, int], segmentation: Any, count: int = 1) -> Path:
    save(folder / "a.png", picture(SIZE_HW))
    height, width = size_hw
    annotation = {"image_id": 1, "category_id": 1, "segmentation": segmentation}
    record = {
        "images": [{"id": 1, "file_name": "a.png", "height": height, "width": width}],
        "annotations": [{"id": number, **annotation} for number in range(count)],
        "categories": [{"id": 1, "name": "cat"}],
    }
    return save_json(folder / "coco.json", record)


def _yaml(folder: Path) -> Path:
    """Nine lists of nine times the one before: a billion laughs."""
    path = READERS["yolo_names"][0](folder)
    lines = ["a0: &a0 [lol]"]
    lines += [f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 9)}]" for number in range(1, 10)]
    return _written(path, "\n".join([*lines, "names: *a9", ""]).encode())


def _tensors(path: Path, shape: list[int], size: int) -> Path:
    header = {"features.0": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}
    text = json.dumps({"__metadata__": {"segany_embedding": '{"format_version": 2}'}, **header}).encode()
    return _written(path, len(text).to_bytes(8, "little") + text)


def _tar(folder: Path) -> Path:
    header = bytearray(512)
    header[:5] = b"a.jpg"
    header[100:108], header[124:136], header[156:157] = b"0000644\0", b"\x80" + (2**62).to_bytes(11, "big"), b"0"
    header[257:265], header[148:156] = b"ustar\x0000", b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return _written(folder / "shard.tar", bytes(header) + bytes(1024))


def _masks(folder: Path) -> Path:
    path = READERS["label_map"][0](folder)
    return _written(path, _png(50_000))


BOMBS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "png of 2.5 billion pixels": ("png", lambda folder: _written(folder / "a.png", _png(50_000))),
    "png of 16-bit pixels": ("png", lambda folder: _written(folder / "a.png", _png(30_000, 16))),
    "gif of 100,000 frames": ("gif", lambda folder: _written(folder / "a.gif", _gif(100_000))),
    "label map of 2.5 billion pixels": ("label_map", _masks),
    "coco of a huge image": ("coco", lambda folder: _coco(folder, (10**9, 10**9), [[0, 0, 10**9, 0, 10**9, 10**9]])),
    "coco of a long image": ("coco", lambda folder: _coco(folder, (1, 10**9), [[0, 0, 10**9, 0, 10**9, 1]])),
    "coco of polygons far outside": ("coco", lambda folder: _coco(folder, (10, 10), [[0, 0, 1e9, 0, 1e9, 1e9]])),
    "coco of zigzags": ("coco", lambda folder: _coco(folder, (20_000, 20_000), [[0, 0, 20_000, 20_000] * 50_000])),
    "coco of huge runs": ("coco", lambda folder: _coco(folder, SIZE_HW, {"size": [6, 8], "counts": [2**62] * 4})),
    "sa1b of a huge mask": (
        "sa1b_dictionary",
        lambda folder: save_json(
            folder / "a.json",
            {
                "image": {"image_id": 1, "height": 60_000, "width": 60_000, "file_name": "a.jpg"},
                "annotations": [{"id": 1, "segmentation": {"size": [60_000] * 2, "counts": [60_000**2]}}],
            },
        ),
    ),
    "json nested a million times": ("prompts", lambda folder: _written(folder / "p.json", b"[" * 10**6)),
    "yaml of a billion names": ("yolo_names", _yaml),
    "tar of 2^62 bytes": ("shards", _tar),
    "npz of zeros": (
        "mask_array",
        lambda folder: _zip_of_zeros(folder / "m.npz", {"low_res.npy": (_npy((50_000, 50_000), "<f4"), 2500)}),
    ),
    "npz of a prediction": (
        "mask_array",
        lambda folder: _zip_of_zeros(
            folder / "m.npz",
            {
                "low_res_logits.npy": (_npy((1, 3, 30_000, 30_000), "<f4"), 2500),
                "scores.npy": (_npy((1, 3), "<f4") + bytes(12), 0),
            },
        ),
    ),
    "npz of instances": (
        "instance_archive",
        lambda folder: _zip_of_zeros(
            folder / "a.npz",
            {
                "categories.npy": (_npy((0, 3), "<U1"), 0),
                "scores.npy": (_npy((10**9,), "<f4"), 100),
                "masks.npy": (_npy((1, 60_000, 60_000), "|b1"), 100),
            },
        ),
    ),
    "checkpoint of zeros": (
        "checkpoint",
        lambda folder: _zip_of_zeros(folder / "m.pt", {"m/data.pkl": (b"\x80\x02", 2500), "m/version": (b"3\n", 0)}),
    ),
    "embedding of 2^60 values": ("embedding", lambda folder: _tensors(folder / "a.safetensors", [2**30] * 2, 2**62)),
    "embedding of a huge header": (
        "embedding",
        lambda folder: _written(folder / "a.safetensors", (2**62).to_bytes(8, "little") + b"{}"),
    ),
    "model of 2^60 values": ("model", lambda folder: _tensors(folder / "m.safetensors", [2**30] * 2, 2**62)),
}
"""The reader of each, and how it is made."""


def measure(name: str) -> dict[str, Any]:
    """Read one of the files. Memory is counted beside what reading a good file takes, such as the libraries."""
    reader, make = BOMBS[name]
    make_good, read = READERS[reader]
    with tempfile.TemporaryDirectory() as good, tempfile.TemporaryDirectory() as folder:
        with contextlib.suppress(SeganyError):  # some good files are not whole
            read(make_good(Path(good)))
        path = make(Path(folder))
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        try:
            read(path)
            problem = None
        except SeganyError as error:
            problem = str(error)
        seconds = time.perf_counter() - start
        taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return {"seconds": seconds, "bytes": taken, "message": problem}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
