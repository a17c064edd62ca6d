"""Automatic masks against the official generator's records, with the real weights."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from tests.parity.test_golden import GOLDEN, PHOTOGRAPHS
from tests.parity.test_shared import SHARED

import segany

pytestmark = pytest.mark.weights


def assert_same_masks(mobile_sam_path: Path, official: dict[str, Any], image: Path) -> None:
    """Equally many, each of the official ones matched at IoU >= 0.99 by one of its own, with the same numbers."""
    config = segany.AutomaticConfig(**official["settings"])
    instances = segany.AutomaticMaskGenerator(segany.load(mobile_sam_path), config).generate(image)
    # Of a mask whose islands are all below the limit, the official code keeps the largest; ours keeps nothing.
    limit = config.min_mask_region_area
    expected = [record for record in official["annotations"] if record["area"] >= limit]
    assert len(instances) == len(expected)
    ours = segany.to_sa1b(instances)["annotations"]
    iou = coco_mask.iou(instances.rles, [e["segmentation"] for e in expected], [0] * len(expected))
    match = iou.argmax(axis=0)
    assert len(set(match.tolist())) == len(expected)
    assert iou.max(axis=0).min() >= 0.99
    for index, record in zip(match, expected, strict=True):
        assert ours[index]["predicted_iou"] == pytest.approx(record["predicted_iou"], abs=1e-3)
        assert ours[index]["stability_score"] == pytest.approx(record["stability_score"], abs=1e-3)
        np.testing.assert_allclose(ours[index]["bbox"], record["bbox"], atol=1)
        np.testing.assert_allclose(ours[index]["point_coords"], record["point_coords"], atol=1e-3)
        assert ours[index]["crop_box"] == record["crop_box"]


def test_a_photograph(mobile_sam_path: Path) -> None:
    official = json.loads((GOLDEN / "automatic_coffee.json").read_text())
    assert_same_masks(mobile_sam_path, official, PHOTOGRAPHS / "coffee.png")


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "golden").is_dir(), reason=f"needs the golden files in {SHARED / 'golden'}")
@pytest.mark.parametrize(
    "name",
    [
        "groceries_crops1",
        pytest.param("groceries_default", marks=pytest.mark.slow),
        pytest.param("truck_default", marks=pytest.mark.slow),
    ],
)
def test_shared_golden_files(mobile_sam_path: Path, name: str) -> None:
    official = json.loads(gzip.decompress((SHARED / f"golden/automatic/{name}.json.gz").read_bytes()))
    assert_same_masks(mobile_sam_path, official, SHARED / "images" / official["image"])
