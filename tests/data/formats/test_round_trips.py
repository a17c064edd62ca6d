"""What is read from one format comes out of every other that has a place for it."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays
from tests.data_for_tests import picture, rle, save, save_json

from segany import Category, Instances, InstancesError, from_coco, from_sa1b, to_coco, to_sa1b
from segany.core.instance import NO_ID
from segany.data import CocoDataset, MaskFolder, YoloFolder, write_yolo
from segany.data.formats.label_map import encode_label_map
from segany.data.formats.npz import from_npz, to_npz
from segany.data.formats.polygons import from_geojson, to_geojson
from segany.data.formats.writing import FormatOptions
from segany.data.formats.yolo import from_yolo, to_yolo
from segany.data.item import AnnotatedImage

SIZE_HW = (24, 32)
CATEGORIES = (Category(1, "person", "human"), Category(18, "dog", "animal"), Category(44, "bottle"))


def masks() -> np.ndarray:
    """A ring, two parts, and a whole; none covers another."""
    stack = np.zeros((3, *SIZE_HW), dtype=np.bool_)
    stack[0, 2:12, 3:13] = True
    stack[0, 5:9, 6:10] = False
    stack[1, 1:4, 20:24] = stack[1, 8:12, 26:30] = True
    stack[2, 15:20, 5:25] = True
    return stack


def coco_file(root: Path, *, lvis: bool) -> Path:
    annotations = [
        {
            "id": 900 + number, "image_id": 139, "category_id": category_id, "segmentation": rle(mask),
            "bbox": [1.25, 2.5, 3.13, 4.7], "area": 12.375 + number, **({} if lvis else {"iscrowd": int(number == 2)}),
        }
        for number, (mask, category_id) in enumerate(zip(masks(), (18, 1, 18), strict=True))
    ]  # fmt: skip
    categories = [{"id": one.id, "name": one.name, "supercategory": one.supercategory} for one in CATEGORIES]
    if lvis:
        categories = [{"id": one.id, "name": one.name, "synset": f"{one.name}.n.01"} for one in CATEGORIES]
    images = [{"id": 139, "file_name": "a.png", "height": SIZE_HW[0], "width": SIZE_HW[1]}]
    record = {"images": images, "categories": categories, "annotations": annotations}
    return save_json(root / "annotations" / ("lvis_v1_val.json" if lvis else "instances_val.json"), record)


def read_coco(root: Path) -> AnnotatedImage:
    save(root / "images" / "a.png", picture(SIZE_HW))
    return CocoDataset(coco_file(root, lvis=False)).read(0)


def read_lvis(root: Path) -> AnnotatedImage:
    save(root / "images" / "a.png", picture(SIZE_HW))
    return CocoDataset(coco_file(root, lvis=True)).read(0)


def read_label_map(root: Path) -> AnnotatedImage:
    save(root / "images" / "a.png", picture(SIZE_HW))
    labels = np.zeros(SIZE_HW, dtype=np.uint8)
    for value, mask in zip((18, 1, 44), masks(), strict=True):
        labels[mask] = value
    save(root / "masks" / "a.png", labels)
    save_json(root / "masks" / "labels.json", {str(one.id): one.name for one in CATEGORIES})
    return MaskFolder(root).read(0)


def read_yolo(root: Path) -> AnnotatedImage:
    instances = Instances.from_masks(masks(), category_ids=[2, 0, 2], categories=_yolo_classes())
    save(root / "images" / "a.png", picture(SIZE_HW))
    (root / "labels").mkdir()
    (root / "labels" / "a.txt").write_text(to_yolo(instances, _yolo_classes()))
    (root / "data.yaml").write_text("names: [person, dog, bottle]\n")
    return YoloFolder(root).read(0)


def _yolo_classes() -> list[Category]:
    return [Category(number, one.name) for number, one in enumerate(CATEGORIES)]


READERS = (read_coco, read_lvis, read_label_map, read_yolo)


def through_coco(annotated: AnnotatedImage) -> Instances:
    return from_coco(json.loads(json.dumps(to_coco(annotated.instances, annotated.file_name, 5))), 5)


def through_sa1b(annotated: AnnotatedImage) -> Instances:
    return from_sa1b(json.loads(json.dumps(to_sa1b(annotated.instances))))


def through_geojson(annotated: AnnotatedImage) -> Instances:
    return from_geojson(json.loads(json.dumps(to_geojson(annotated.instances))))


def through_npz(annotated: AnnotatedImage) -> Instances:
    return from_npz(io.BytesIO(to_npz(annotated.instances)))


def through_yolo(annotated: AnnotatedImage) -> Instances:
    classes = [Category(number, one.name) for number, one in enumerate(annotated.instances.categories)]
    return from_yolo(to_yolo(annotated.instances, classes), SIZE_HW, classes)


def through_label_map(annotated: AnnotatedImage, root: Path) -> Instances:
    save(root / "images" / "a.png", annotated.image)
    (root / "masks").mkdir()
    for suffix, data in encode_label_map(annotated, FormatOptions()):
        (root / "masks" / f"a{suffix}").write_bytes(data)
    return MaskFolder(root).read(0).instances


def names(instances: Instances) -> list[str | None]:
    return [None if one.category is None else one.category.name for one in instances]


@pytest.mark.parametrize("read", READERS)
def test_readers_keep_masks_and_names(tmp_path: Path, read: Callable[[Path], AnnotatedImage]) -> None:
    instances = read(tmp_path).instances
    assert sorted(instances.areas.tolist()) == sorted(masks().sum(axis=(1, 2)).tolist())
    assert {one.name for one in instances.categories} == {one.name for one in CATEGORIES}
    expected = {"dog", "person"} if read in (read_coco, read_lvis) else {"person", "bottle", "dog"}
    assert set(names(instances)) <= expected
    assert set(instances.sources.tolist()) == {"import"}


@pytest.mark.parametrize("read", READERS)
def test_npz_carries_everything(tmp_path: Path, read: Callable[[Path], AnnotatedImage]) -> None:
    annotated = read(tmp_path)
    assert through_npz(annotated) == annotated.instances


@pytest.mark.parametrize("read", READERS)
def test_coco_carries_everything_it_knows(tmp_path: Path, read: Callable[[Path], AnnotatedImage]) -> None:
    annotated = read(tmp_path)
    again = through_coco(annotated)
    if read in (read_coco, read_lvis):
        assert again == annotated.instances
    else:  # ids, areas and crowds are new
        again_without = Instances(**{**vars_of(again), "columns": annotated.instances.columns})
        assert again_without == annotated.instances
        assert again.annotation_id.tolist() == [1, 2, 3]


def vars_of(instances: Instances) -> dict[str, Any]:
    fields = ("rle_counts", "size_hw", "boxes_xyxy", "scores", "category_ids", "categories", "object_ids", "sources")
    return {name: getattr(instances, name) for name in fields}


@pytest.mark.parametrize("read", READERS)
def test_geojson_carries_all_but_unused_categories(tmp_path: Path, read: Callable[[Path], AnnotatedImage]) -> None:
    instances = read(tmp_path).instances
    used = [one for one in instances.categories if one.id in instances.category_ids]
    expected = instances.with_categories(instances.category_ids, used)
    assert through_geojson(AnnotatedImage("a", picture(SIZE_HW), expected)) == expected


@pytest.mark.parametrize("read", READERS)
def test_yolo_carries_masks_and_names(tmp_path: Path, read: Callable[[Path], AnnotatedImage]) -> None:
    annotated = read(tmp_path)
    again = through_yolo(annotated)
    assert again.rle_counts == annotated.instances.rle_counts  # with holes and parts
    assert names(again) == names(annotated.instances)


@pytest.mark.parametrize("read", READERS)
def test_label_maps_carry_masks_and_categories(tmp_path: Path, read: Callable[[Path], AnnotatedImage]) -> None:
    annotated = read(tmp_path / "one")
    again = through_label_map(annotated, tmp_path / "other")
    assert again.rle_counts == annotated.instances.rle_counts
    assert [one.category for one in again] == [one.category for one in annotated.instances]


@pytest.mark.parametrize("read", READERS)
def test_sa1b_carries_masks_and_ids(tmp_path: Path, read: Callable[[Path], AnnotatedImage]) -> None:
    annotated = read(tmp_path)
    again = through_sa1b(annotated)
    assert again.rle_counts == annotated.instances.rle_counts
    if read in (read_coco, read_lvis):
        assert again.annotation_id.tolist() == annotated.instances.annotation_id.tolist()


def test_object_ids_go_through() -> None:
    instances = Instances.from_masks(masks(), object_ids=[5, NO_ID, 0], scores=[0.5, np.nan, 0.25])
    annotated = AnnotatedImage("a", picture(SIZE_HW), instances)
    for through in (through_npz, through_geojson):
        assert through(annotated) == instances
    some = AnnotatedImage("a", picture(SIZE_HW), instances[[0, 2]])
    again = through_coco(some)
    assert (again.object_ids.tolist(), again.scores.tolist()) == ([5, 0], [0.5, 0.25])


def test_object_ids_go_through_label_maps(tmp_path: Path) -> None:
    annotated = AnnotatedImage("a", picture(SIZE_HW), Instances.from_masks(masks(), object_ids=[5, NO_ID, 0]))
    assert through_label_map(annotated, tmp_path).object_ids.tolist() == [5, NO_ID, 0]


@given(arrays(np.bool_, array_shapes(min_dims=3, max_dims=3, max_side=9)))
def test_polygons_of_any_mask_are_exact(stack: np.ndarray) -> None:
    size_hw = stack.shape[1:]
    instances = Instances.from_masks(stack)
    assert from_geojson(json.loads(json.dumps(to_geojson(instances)))) == instances
    kept = instances[instances.areas > 0]
    assert from_yolo(to_yolo(instances), size_hw).rle_counts == kept.rle_counts


def test_a_coco_dataset_becomes_one_of_yolo(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png", picture(SIZE_HW))
    dataset = CocoDataset(coco_file(tmp_path, lvis=False))
    report = write_yolo(dataset, tmp_path / "yolo")
    assert (report.images, report.instances, report.left_out) == (1, 2, 1)  # the crowd region is no object
    assert (report.bridged, report.without_class, report.skipped) == (2, 0, ())
    read = YoloFolder(tmp_path / "yolo").read(0)
    np.testing.assert_array_equal(read.image, picture(SIZE_HW))
    assert read.instances.rle_counts == dataset.read(0).objects.rle_counts
    assert names(read.instances) == ["dog", "person"]
    assert [one.name for one in read.instances.categories] == ["person", "dog", "bottle"]


@pytest.mark.parametrize("data", [{}, [], {"image": {"height": 3, "width": 4}, "features": [{}]}])
def test_other_geojson_is_refused(data: Any) -> None:
    with pytest.raises(InstancesError, match="no GeoJSON of segany"):
        from_geojson(data)


def test_other_archives_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", masks=np.zeros((1, 2, 3), bool))
    for file in (tmp_path / "a.npz", tmp_path / "missing.npz", io.BytesIO(b"no archive")):
        with pytest.raises(InstancesError, match="no readable archive of instances"):
            from_npz(file)


def test_archives_are_not_believed(tmp_path: Path) -> None:
    """A few kilobytes took as many gigabytes as they named."""
    path = tmp_path / "a.npz"
    path.write_bytes(to_npz(Instances.from_masks(np.ones((1, 4, 5), np.bool_))))
    assert from_npz(path).areas.tolist() == [20]
    for shape, dtype in [((1, 10**6, 10**6), "|b1"), ((10**9, 4, 5), "|b1"), ((1, 4), "|b1"), ((1, 4, 5), "<f8")]:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
        members["masks.npy"] = header.getvalue() + bytes(20)
        with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        with pytest.raises(InstancesError, match="no readable archive of instances"):
            from_npz(tmp_path / "b.npz")
