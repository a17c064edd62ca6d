"""The installed `segany auto` with the real MobileSAM weights on a photograph of the examples."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from segany.data.formats.instances import RECORD_FORMATS
from segany.data.formats.records import MaskRecords

pytestmark = pytest.mark.weights

COFFEE = Path(__file__).parents[2] / "examples" / "images" / "coffee.png"
COMMAND = [sys.executable, "-c", "from segany.cli import main; main()", "auto"]


def auto(*arguments: str | Path) -> dict:
    command = [*COMMAND, *map(str, arguments), "--points-per-side", "8", "--device", "cpu", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    (line,) = result.stdout.splitlines()
    return json.loads(line)


def test_every_format_agrees(mobile_sam_path: Path, tmp_path: Path) -> None:
    arguments = (COFFEE, "--model", mobile_sam_path, "--out", tmp_path, "--embeddings", tmp_path / "embeddings")
    report = auto(*arguments, "--format", ",".join(RECORD_FORMATS))
    assert report["status"] == "done"
    assert report["size_hw"] == [400, 600]
    assert set(report["files"]) == set(RECORD_FORMATS)

    records = MaskRecords.from_sa1b(json.loads((tmp_path / "coffee_auto_sa1b.json").read_text()))
    assert len(records) == report["masks"] >= 5
    assert all(record.predicted_iou > 0.88 and record.stability_score >= 0.95 for record in records)
    coco = json.loads((tmp_path / "coffee_auto_coco.json").read_text())
    assert MaskRecords.from_coco(coco) == records
    masks = records.masks()
    for annotation, mask in zip(coco["annotations"], masks, strict=True):
        assert annotation["area"] == mask.sum()
        assert annotation["bbox"] == coco_mask.toBbox(annotation["segmentation"]).tolist()
    with np.load(tmp_path / "coffee_auto.npz") as arrays:
        np.testing.assert_array_equal(arrays["masks"], masks)
    rows = list(csv.DictReader((tmp_path / "coffee_auto_masks" / "metadata.csv").read_text().splitlines()))
    assert [int(row["area"]) for row in rows] == [record.area for record in records]
    with Image.open(tmp_path / "coffee_auto_masks" / "0.png") as picture:
        np.testing.assert_array_equal(np.array(picture) > 0, masks[0])
    with Image.open(tmp_path / "coffee_auto_labels.png") as picture:
        np.testing.assert_array_equal(np.array(picture) > 0, masks.any(axis=0))
    with Image.open(tmp_path / "coffee_auto_overlay.png") as picture:
        assert picture.size == (600, 400)

    assert auto(*arguments, "--format", "sa1b")["status"] == "skipped"
    assert auto(*arguments, "--format", "sa1b", "--overwrite")["masks"] == len(records)  # from the saved embedding
    assert len(list((tmp_path / "embeddings").iterdir())) == 1
    assert MaskRecords.from_sa1b(json.loads((tmp_path / "coffee_auto_sa1b.json").read_text())) == records
