"""What imports make of files of other programs, and of files that are damaged or malicious."""

from __future__ import annotations

import io
import json
import random
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.exchange_for_tests import SIZE_HW, add_pictures, content, counts_of, make_zip, mask, masks_only, picture

from segany import DataError
from segany.jobs.exchange import Limits, SourceFile, import_annotations
from segany.store import Store

HEIGHT, WIDTH = SIZE_HW
SQUARE = mask((slice(2, 8), slice(3, 9)))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "project") as opened:
        add_pictures(opened)
        yield opened


def _coco(name: str = "a.png", **annotation: Any) -> str:
    return json.dumps(
        {
            "images": [{"id": 1, "file_name": name, "width": WIDTH, "height": HEIGHT}],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[3, 2, 9, 2, 9, 8, 3, 8]], **annotation}
            ],
            "categories": [{"id": 1, "name": "thing"}],
        }
    )


def _png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format="PNG")
    return buffer.getvalue()


# Hostile archives.


def _with_member(path: Path, name: str, data: bytes = b"{}", **facts: Any) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good.json", _coco())
        info = zipfile.ZipInfo(name)
        for key, value in facts.items():
            setattr(info, key, value)
        archive.writestr(info, data)
    return path


@pytest.mark.parametrize(
    "name", ["../a.json", "a/../../b.json", "/etc/a.json", "C:\\a.json", "..\\a.json", "\\\\h\\a.json"]
)
def test_names_that_lead_out_are_refused(store: Store, tmp_path: Path, name: str) -> None:
    _refused(store, _with_member(tmp_path / "a.zip", name), "leads out of the archive")


def test_links_are_refused(store: Store, tmp_path: Path) -> None:
    link = (stat.S_IFLNK | 0o777) << 16
    _refused(store, _with_member(tmp_path / "a.zip", "link.json", b"/etc/passwd", external_attr=link), "is a link")


def test_bombs_are_refused(store: Store, tmp_path: Path) -> None:
    bomb = make_zip(tmp_path / "a.zip", {"good.json": _coco(), "a.json": bytes(30 << 20)})
    _refused(store, bomb, "would become 31,457,280 bytes")
    many = make_zip(tmp_path / "b.zip", {"good.json": _coco(), **{f"{n}.json": bytes(1 << 20) for n in range(90)}})
    _refused(store, many, "would become more than")


def test_lying_sizes_are_refused(store: Store, tmp_path: Path) -> None:
    """A member that is larger than its header says is not read further than that."""
    path = make_zip(tmp_path / "a.zip", {"a.json": _coco()})
    data = bytearray(path.read_bytes())
    place = data.rfind(b"PK\x01\x02") + 24
    data[place : place + 4] = (5).to_bytes(4, "little")
    path.write_bytes(data)
    report = import_annotations(store, path, "coco")
    assert report.objects == 0
    assert "damaged" in report.skipped[0].message


def test_counts_and_sizes_are_limited(store: Store, tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {f"{number}.json": _coco() for number in range(4)})
    _refused(store, path, "more than 3 files", Limits(files=3))
    _refused(store, path, "It is not read", Limits(file_bytes=10))
    _refused(store, path, "more than 100 bytes", Limits(total_bytes=100))
    plain = tmp_path / "a.json"
    plain.write_text(_coco())
    _refused(store, plain, "larger than 10 bytes", Limits(file_bytes=10))


def test_encrypted_and_doubled_members_are_refused(store: Store, tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a.json": _coco()})
    data = bytearray(path.read_bytes())
    for header, place in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        data[data.find(header) + place] |= 1
    path.write_bytes(data)
    _refused(store, path, "is encrypted")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.json", _coco())
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.json", _coco("left/0001.png"))
    _refused(store, path, "are called 'a.json'")


def test_random_damage_is_told(store: Store, tmp_path: Path) -> None:
    good = make_zip(tmp_path / "good.zip", {"a.json": _coco(), "images/b.png": picture(50)}).read_bytes()
    draw = random.Random(0)
    for number in range(60):
        data = bytearray(good)
        for _ in range(draw.randint(1, 8)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        path = tmp_path / f"{number}.zip"
        path.write_bytes(data[: draw.randint(1, len(data))] if number % 3 == 0 else data)
        try:
            report = import_annotations(store, path, "coco")
        except DataError:
            continue
        assert report.objects or report.skipped


def _refused(store: Store, path: Path, message: str, limits: Limits | None = None) -> None:
    before = content(store)
    with pytest.raises(DataError, match=message):
        import_annotations(store, path, "coco", limits=limits)
    assert content(store) == before
    assert len(before) == 5


# Several files, and files that are not what they should be.


def test_several_uploaded_files(store: Store, tmp_path: Path) -> None:
    """Names are those that people see; the files themselves are called anything."""
    names = ["one.json", "left/0001.png", "new.png", "images.zip"]
    data = [_coco("new.png").encode(), picture(1), picture(20), b""]
    paths = [tmp_path / str(number) for number in range(len(names))]
    for path, content_ in zip(paths, data, strict=True):
        path.write_bytes(content_)
    make_zip(paths[3], {"deep/images/more.png": picture(21), "deep/.DS_Store": b"x", "__MACOSX/deep/._a": b"y"})
    sources = [SourceFile(name, path) for name, path in zip(names, paths, strict=True)]
    report = import_annotations(store, sources, "coco")
    assert (report.items, report.objects, report.skipped) == (3, 1, ())
    assert [item.name for item in store.items.iterate()][5:] == ["deep/more.png", "new.png"]
    assert masks_only(content(store))["new.png"] == [counts_of(SQUARE)]


def test_what_is_no_use_is_listed(store: Store, tmp_path: Path) -> None:
    members = {
        "a.json": _coco(),
        "bad.json": "{",
        "list.json": "[1]",
        "notes.md": "hello",
        "broken.png": b"no image",
        "same.png": picture(0),
        "b.json": _coco("left/0001.png", segmentation={"size": [1, 1], "counts": "01"}),
        "box.json": _coco("right/0001.png", segmentation=None),
    }
    report = import_annotations(store, make_zip(tmp_path / "a.zip", members), "coco")
    assert (report.items, report.objects) == (3, 1)
    told = {one.name for one in report.skipped}
    assert told == {"bad.json", "list.json", "notes.md", "broken.png", "left/0001.png", "box.json"}
    assert len(list(store.items.iterate())) == 5  # the bytes of same.png are those of a.png
    with pytest.raises(DataError, match="nothing of the format coco"):
        import_annotations(store, make_zip(tmp_path / "b.zip", {"a.txt": "x"}), "coco")
    with pytest.raises(DataError, match="must be one of coco"):
        import_annotations(store, tmp_path / "a.zip", "voc")


def test_another_image_of_a_known_name_is_added_beside(store: Store, tmp_path: Path) -> None:
    """Masks must not come onto the wrong image because it has the same name."""
    path = make_zip(tmp_path / "a.zip", {"a.json": _coco(), "images/a.png": picture(99)})
    report = import_annotations(store, path, "coco")
    assert report.objects == 1
    assert [(item.name, item.objects) for item in store.items.iterate() if item.name == "a.png"] == [
        ("a.png", 0), ("a.png", 1),
    ]  # fmt: skip
    assert "another image of this name" in report.skipped[0].message


def test_folder_that_was_packed_as_a_whole(store: Store, tmp_path: Path) -> None:
    members = {
        "data/annotations/instances.json": _coco("right/0001.png"),
        "data/left/0001.png": picture(31),
        "data/right/0001.png": picture(32),
    }
    import_annotations(store, make_zip(tmp_path / "a.zip", members), "coco")
    assert {name: len(masks) for name, masks in content(store).items() if masks} == {"data/right/0001.png": 1}


def test_attributes_of_other_programs_become_text_and_numbers(store: Store, tmp_path: Path) -> None:
    values = {
        "occluded": False,
        "track": 3,
        "nothing": None,
        "list": [1, "ä"],
        "nul": "a\0b",
        "half": "\ud800",
        "inf": 1e400,
    }
    path = tmp_path / "a.json"
    path.write_text(_coco(attributes=values))
    import_annotations(store, path, "coco")
    assert content(store)["a.png"][0][2] == {
        "occluded": "false", "track": 3, "list": '[1, "ä"]', "nul": "ab", "half": "?", "inf": "Infinity",
        "annotation_id": 1,
    }  # fmt: skip


def test_run_lengths_in_another_form_are_the_same_mask(store: Store, tmp_path: Path) -> None:
    """Runs of nothing between others say the same, and must not make another object."""
    path = tmp_path / "a.json"
    plain = {"size": list(SIZE_HW), "counts": [2, 6, HEIGHT * WIDTH - 8]}
    odd = {"size": list(SIZE_HW), "counts": [1, 0, 1, 3, 0, 3, HEIGHT * WIDTH - 9, 0, 1, 0, 0]}
    for segmentation in (plain, odd):
        path.write_text(_coco(segmentation=segmentation))
        assert import_annotations(store, path, "coco").objects == 1
    assert len(content(store)["a.png"]) == 1


# LabelMe, YOLO, label maps and SA-1B as others write them.


def test_labelme_shapes(store: Store, tmp_path: Path) -> None:
    def shape(kind: str, points: list[list[float]], **facts: Any) -> dict[str, Any]:
        return {"label": "thing", "shape_type": kind, "points": points, "group_id": None, "flags": {}, **facts}

    record = {
        "version": "5.0.1", "flags": {}, "imagePath": "..\\photos\\a.png", "imageData": None,
        "imageHeight": HEIGHT, "imageWidth": WIDTH,
        "shapes": [
            shape("rectangle", [[9, 8], [3, 2]], flags={"hard": True, "easy": False}, description="left one"),
            shape("polygon", [[3, 2], [9, 2], [9, 8], [3, 8]], group_id=1),
            shape("polygon", [[20, 10], [22, 10], [22, 12], [20, 12]], group_id=1),
            shape("circle", [[16, 12], [16, 17]]),
            shape("point", [[1, 1]]),
            shape("linestrip", [[1, 1], [2, 2]]),
        ],
    }  # fmt: skip
    report = import_annotations(store, make_zip(tmp_path / "a.zip", {"json/a.json": json.dumps(record)}), "labelme")
    assert {(one.name, one.message) for one in report.skipped} == {
        ("json/a.png", "Left out, shapes point: 1."),
        ("json/a.png", "Left out, shapes linestrip: 1."),
    }
    both = SQUARE | mask((slice(10, 12), slice(20, 22)))
    held = content(store)["a.png"]
    assert [state[0] for state in held[:2]] == [counts_of(SQUARE), counts_of(both)]
    assert held[0][2] == {"hard": "true", "description": "left one"}
    areas = [state.area for state in store.annotations.objects(store.items.page().items[0].id)]
    assert areas[2] == pytest.approx(np.pi * 25, rel=0.05)


def test_damaged_labelme_files_are_told(store: Store, tmp_path: Path) -> None:
    shapes = [
        {"label": "a", "shape_type": "mask", "points": [[0, 0], [3, 3]], "mask": "no base64!"},
        {"label": "a", "shape_type": "polygon", "points": [[0, 0], [1e9, 3], [4, 4]]},
        {"label": "a", "shape_type": "circle", "points": [[0, 0]]},
        {"shape_type": "polygon", "points": [[0, 0], [3, 3], [0, 3]]},
        {"label": "a", "shape_type": "polygon", "points": "abc"},
        7,
    ]
    for number, shape in enumerate(shapes):
        record = {"imagePath": "a.png", "imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": [shape]}
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(record))
        report = import_annotations(store, path, "labelme")
        assert report.objects == 0, shape
        assert report.skipped, shape


def test_yolo_of_roboflow(store: Store, tmp_path: Path) -> None:
    """Splits first, then images and labels; equal names in both."""
    line = "1 " + " ".join(f"{x / WIDTH} {y / HEIGHT}" for x, y in [(3, 2), (9, 2), (9, 8), (3, 8)])
    members = {
        "data.yaml": "names: [cat, dog]\nnc: 2\n",
        "README.txt": "exported by somebody",
        "train/images/1.png": picture(41), "train/labels/1.txt": line,
        "valid/images/1.png": picture(42), "valid/labels/1.txt": f"{line}\n0 0.5 0.5 0.1 0.1\n",
        "valid/labels/2.txt": line,
    }  # fmt: skip
    report = import_annotations(store, make_zip(tmp_path / "a.zip", members), "yolo-seg")
    held = content(store, facts=False)
    assert held["train/1.png"] == held["valid/1.png"] == [(counts_of(SQUARE), "dog")]
    assert {(one.name, one.message) for one in report.skipped} == {
        ("README.txt", "It is no file of this format, and no image."),
        ("valid/1", "Left out, boxes without a mask: 1."),
        ("valid/2", "The project has no image of this name."),
    }


def test_label_maps_of_others(store: Store, tmp_path: Path) -> None:
    values = SQUARE.astype(np.uint8) * 2
    members = {
        "images/x.png": picture(51), "masks/x_mask.png": _png(values), "masks/labels.json": '{"2": "dog"}',
        "images/y.png": picture(52), "masks/y/1.png": _png(SQUARE.astype(np.uint8) * 255),
        "masks/y/2.png": _png(SQUARE.astype(np.uint8) * 255),
    }  # fmt: skip
    report = import_annotations(store, make_zip(tmp_path / "a.zip", members), "label-maps")
    assert report.skipped == ()
    held = content(store, facts=False)
    assert held["x.png"] == [(counts_of(SQUARE), "dog")]
    assert held["y.png"] == [(counts_of(SQUARE), None)] * 2
    report = import_annotations(store, make_zip(tmp_path / "b.zip", {"a.png": _png(values)}), "label-maps")
    assert (report.items, report.objects) == (1, 1)
    assert len(list(store.items.iterate())) == 7


def test_sa1b_file_beside_its_image(store: Store, tmp_path: Path) -> None:
    rle = {"size": list(SIZE_HW), "counts": counts_of(SQUARE)}
    record = {
        "image": {"image_id": 7, "width": WIDTH, "height": HEIGHT, "file_name": "sa_7.png"},
        "annotations": [{"id": 70, "segmentation": rle, "bbox": [3, 2, 5, 5], "area": 36}],
    }
    members = {"sa_000000/sa_7.png": picture(61), "sa_000000/sa_7.json": json.dumps(record)}
    import_annotations(store, make_zip(tmp_path / "a.zip", members), "sa-1b")
    assert content(store)["sa_000000/sa_7.png"] == [(counts_of(SQUARE), None, {"annotation_id": 70})]
