from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from segany import DataError, InstancesError
from segany.core.instance import Category
from segany.core.instances import Instances
from segany.data import LabelMeFolder, open_dataset
from segany.data.formats.labelme import from_labelme, shapes_without_area, to_labelme

CATEGORIES = (Category(1, "cat"), Category(2, "dög"))


@given(
    masks=st.tuples(st.integers(1, 4), st.integers(1, 10), st.integers(1, 10)).flatmap(lambda s: arrays(np.bool_, s))
)
@settings(max_examples=150, deadline=None)
def test_masks_survive_exactly(masks: np.ndarray) -> None:
    kept = masks[masks.any(axis=(1, 2))]
    instances = Instances.from_masks(kept, category_ids=np.arange(len(kept)) % 2 + 1, categories=CATEGORIES)
    read = from_labelme(json.loads(json.dumps(to_labelme(instances, "a.png"))))
    assert np.array_equal(read.masks(), kept)
    assert [one.category.name for one in read] == [one.category.name for one in instances]


def test_shapes_are_those_that_labelme_draws() -> None:
    """A polygon where one will do, several with one group_id for parts, and a mask for what has holes."""
    masks = np.zeros((3, 12, 12), dtype=np.bool_)
    masks[0, 2:5, 3:7] = True
    masks[1, 2:5, 3:7] = masks[1, 7:9, 1:2] = True
    masks[2, 2:9, 3:9] = True
    masks[2, 4, 5] = False
    record = to_labelme(Instances.from_masks(masks), "photos/a.png")
    shapes = record["shapes"]
    assert [shape["shape_type"] for shape in shapes] == ["polygon", "polygon", "polygon", "mask"]
    assert [shape["group_id"] for shape in shapes] == [None, 1, 1, None]
    assert {shape["label"] for shape in shapes} == {"object"}
    assert sorted(shapes[0]["points"]) == [[3, 2], [3, 5], [7, 2], [7, 5]]
    assert shapes[3]["points"] == [[3, 2], [8, 8]]
    assert (record["imagePath"], record["imageHeight"], record["imageWidth"]) == ("photos/a.png", 12, 12)
    assert shapes_without_area(record) == {}


def test_facts_of_instances_survive() -> None:
    masks = np.zeros((2, 9, 9), dtype=np.bool_)
    masks[0, 0:4, 0:4] = masks[1, 5:8, 5:8] = masks[1, 0:2, 6:8] = True
    columns = {"annotation_id": [7, 3], "iscrowd": [False, True]}
    read = from_labelme(to_labelme(Instances.from_masks(masks, columns=columns), attributes=[{"a": 1}, {}]))
    assert read.annotation_id.tolist() == [7, 3]
    assert read.iscrowd.tolist() == [False, True]
    assert read.shape.tolist() == [0, 1]


def test_size_may_come_from_the_image() -> None:
    record = {"shapes": [{"label": "a", "points": [[0, 0], [4, 0], [4, 4], [0, 4]]}]}
    assert from_labelme(record, (6, 6)).areas.tolist() == [16]
    with pytest.raises(InstancesError, match="imageHeight"):
        from_labelme(record)


def test_folder_is_recognized(tmp_path: Path) -> None:
    mask = np.zeros((6, 8), dtype=np.bool_)
    mask[1:4, 2:5] = True
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    (tmp_path / "a.json").write_text(json.dumps(to_labelme(Instances.from_masks(mask), "a.png")))
    dataset = open_dataset(tmp_path)
    assert isinstance(dataset, LabelMeFolder)
    assert np.array_equal(dataset.read(0).instances[0].mask, mask)
    (tmp_path / "a.json").write_text('{"shapes": [{"label": "a"}], "imageHeight": 6, "imageWidth": 8}')
    with pytest.raises(DataError, match=r"a\.json: This is no file of LabelMe"):
        open_dataset(tmp_path).read(0)
