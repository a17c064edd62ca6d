"""Tar shards."""

from __future__ import annotations

import json
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from tests.data_for_tests import block, encoded, picture, sa1b_record, save_tar

from segany.core.errors import DataError
from segany.data.shards import TarShards, expand_braces, find_shards

SIZE_HW = 6, 8
LABELS = np.zeros(SIZE_HW, dtype=np.uint8)
LABELS[0:2, 0:3] = 1
LABELS[3:6, 4:8] = 5
TWO = [LABELS == 1, LABELS == 5]
IMAGE = encoded(picture(SIZE_HW), "PNG")
JPEG = encoded(picture(SIZE_HW), "JPEG")
RECORD = json.dumps(sa1b_record(TWO, SIZE_HW)).encode()
MAP = encoded(LABELS, "PNG")


@pytest.mark.parametrize(
    "members",
    [
        {"a.json": RECORD, "a.jpg": JPEG},
        {"a.png": IMAGE, "a.json": RECORD},
        {"a.jpg": JPEG, "a.png": MAP, "a.cls": b"3"},
        {"a.JPG": JPEG, "a.mask.png": MAP},
        {
            "a.png": IMAGE,
            "a.0.png": encoded(TWO[0].astype(np.uint8), "PNG"),
            "a.1.png": encoded(TWO[1].astype(np.uint8), "PNG"),
        },
    ],
)
def test_forms_of_samples(tmp_path: Path, members: dict[str, bytes]) -> None:
    dataset = TarShards(save_tar(tmp_path / "s.tar", members))
    assert dataset.names == ("s/a",)
    read = dataset.read(0)
    np.testing.assert_array_equal([read.instances.mask(index) for index in range(len(read.instances))], TWO)
    if "a.png" in members and "a.jpg" not in members:
        np.testing.assert_array_equal(read.image, picture(SIZE_HW))


def test_masks_of_several_kinds_together(tmp_path: Path) -> None:
    read = TarShards(save_tar(tmp_path / "s.tar", {"a.jpg": JPEG, "a.json": RECORD, "a.png": MAP})).read(0)
    np.testing.assert_array_equal(read.instances.masks(), [*TWO, *TWO])


def test_names_of_label_maps_beside_the_shards(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("background\ncat\n")
    read = TarShards(save_tar(tmp_path / "s.tar", {"a.jpg": JPEG, "a.png": MAP})).read(0)
    assert read.file_name == "a.jpg"
    assert [None if one.category is None else one.category.name for one in read.instances] == ["cat", None]


def test_several_shards_at_any_place(tmp_path: Path) -> None:
    for number in (8, 9, 10):
        members = {}
        for name in ("x/b", "x/a"):
            members[f"{name}.png"] = encoded(picture(SIZE_HW, seed=number), "PNG")
            members[f"{name}.json"] = RECORD
        save_tar(tmp_path / f"s-{number:03d}.tar", members)
    dataset = TarShards(f"{tmp_path}/s-{{008..010}}.tar")
    assert dataset.names[:3] == ("s-008/x/a", "s-008/x/b", "s-009/x/a")
    copy = pickle.loads(pickle.dumps(dataset))
    for index in (5, 0, 2):
        np.testing.assert_array_equal(copy.read(index).image, picture(SIZE_HW, seed=8 + index // 2))
    assert TarShards(tmp_path).names == TarShards(f"{tmp_path}/*.tar").names == dataset.names
    assert len(TarShards([tmp_path / "s-008.tar", f"{tmp_path}/s-00?.tar"])) == 4


def test_equal_names_of_shards(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        save_tar(tmp_path / folder / "s.tar", {"a.png": IMAGE, "a.json": RECORD})
    assert len(set(TarShards(f"{tmp_path}/{{one,two}}/s.tar").names)) == 2


def test_what_is_left_out(tmp_path: Path) -> None:
    members = {"a.png": IMAGE, "a.json": RECORD, "b.png": IMAGE, "c.json": RECORD, "d.txt": b"", "._a.png": b"x"}
    dataset = TarShards(save_tar(tmp_path / "s.tar", members))
    assert dataset.names == ("s/a",)
    assert dataset.left_out == ("s/b",)


def test_cut_off_shard(tmp_path: Path) -> None:
    path = save_tar(tmp_path / "s.tar", {"a.png": IMAGE, "a.json": RECORD, "b.json": RECORD, "b.png": IMAGE})
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(IMAGE) + 100])
    dataset = TarShards(path)
    assert len(dataset.warnings) == 1
    assert dataset.names == ("s/a", "s/b")
    assert len(dataset.read(0).instances) == 2
    with pytest.raises(DataError, match=r"s/b\.png is cut off"):
        dataset.read(1)


def test_damaged_members(tmp_path: Path) -> None:
    members = {"a.png": b"no image", "a.json": RECORD, "b.png": IMAGE, "b.json": b"{", "c.jpg": JPEG}
    members["c.png"] = encoded(LABELS[:5], "PNG")
    dataset = TarShards(save_tar(tmp_path / "s.tar", members))
    for index, message in enumerate(["s/a.png is not an image", "s/b.json cannot be read", "s/c is 8 wide and 6 high"]):
        with pytest.raises(DataError, match=message):
            dataset.read(index)


def test_what_is_no_shard(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no tar file" * 100)
    with pytest.raises(DataError, match="no tar file"):
        TarShards(tmp_path / "a.tar")
    with tarfile.open(tmp_path / "b.tar", "w:gz") as archive:
        archive.add(tmp_path / "a.tar")
    with pytest.raises(DataError, match="Unpack compressed ones first"):
        TarShards(tmp_path / "b.tar")
    with pytest.raises(DataError, match="There is no file"):
        find_shards(f"{tmp_path}/{{0..1}}.tar")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no tar files"):
        find_shards(tmp_path / "empty")
    with pytest.raises(DataError, match="no images with masks"):
        TarShards(save_tar(tmp_path / "c.tar", {"a.txt": b""}))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.tar", ["a.tar"]),
        ("{08..10}", ["08", "09", "10"]),
        ("{a,b}-{0..1}", ["a-0", "a-1", "b-0", "b-1"]),
        ("{2..1}", []),
        ("{x}", ["{x}"]),
    ],
)
def test_braces(pattern: str, expected: list[str]) -> None:
    assert expand_braces(pattern) == expected


def test_slips_of_the_pen() -> None:
    with pytest.raises(DataError, match="stands for"):
        expand_braces("{0..99999999999}")
    with pytest.raises(DataError, match="stands for"):
        expand_braces("{0..9999}{0..9999}")


def test_one_mask_over_the_whole_image(tmp_path: Path) -> None:
    whole = encoded(block(SIZE_HW, 0, 0, 6, 8).astype(np.uint8), "PNG")
    assert TarShards(save_tar(tmp_path / "s.tar", {"a.jpg": JPEG, "a.png": whole})).read(0).instances.mask(0).all()


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("size", [40 * 10**9, 2**62, 2**70])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE])
def test_sizes_that_members_claim_are_not_believed(tmp_path: Path, size: int, kind: bytes) -> None:
    path = save_tar(tmp_path / "s.tar", {"a.png": IMAGE, "a.json": RECORD})
    good = path.read_bytes().rstrip(b"\0")
    good += b"\0" * (-len(good) % 512)
    path.write_bytes(good + header("b.json", size, kind) + b"x" * 2048)
    dataset = TarShards(path)
    assert len(dataset.read(0).instances) == 2
    path.write_bytes(good + header("b.png", len(IMAGE)) + IMAGE.ljust(-(-len(IMAGE) // 512) * 512, b"\0")
                     + header("b.json", size) + b"x" * 2048)  # fmt: skip
    dataset = TarShards(path)
    for index, name in enumerate(dataset.names):
        if name == "s/b":
            with pytest.raises(DataError, match=r"s/b\.json is cut off"):
                dataset.read(index)


@pytest.mark.parametrize("records", [b"9 size=-1\n", b"x size=1\n", b"30 GNU.sparse.map=1,a\n", b"\xff\xfe"])
def test_bad_extended_headers_end_the_shard(tmp_path: Path, records: bytes) -> None:
    path = save_tar(tmp_path / "s.tar", {"a.png": IMAGE, "a.json": RECORD})
    good = path.read_bytes().rstrip(b"\0")
    good += b"\0" * (-len(good) % 512)
    extended = header("pax", len(records), tarfile.XHDTYPE) + records.ljust(512, b"\0")
    path.write_bytes(good + extended + header("b.json", 3) + b"{}\n".ljust(512, b"\0") + bytes(1024))
    dataset = TarShards(path)
    assert dataset.names == ("s/a",)
    assert len(dataset.read(0).instances) == 2


def test_names_do_not_lead_out_of_the_shard(tmp_path: Path) -> None:
    members = {"../a.png": IMAGE, "../a.json": RECORD, "/b.png": IMAGE, "/b.json": RECORD}
    assert TarShards(save_tar(tmp_path / "s.tar", members)).names == ("s/a", "s/b")


def test_pipes_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "s.tar")
    with pytest.raises(DataError, match="not a file but a pipe"):
        TarShards(tmp_path / "s.tar")


def test_links_that_lead_back_do_not_keep_patterns_busy(tmp_path: Path) -> None:
    save_tar(tmp_path / "s.tar", {"a.png": IMAGE})
    for number in range(3):
        (tmp_path / f"back{number}").symlink_to(tmp_path)
    assert find_shards(f"{tmp_path}/**/*.tar") == (tmp_path / "s.tar",)
