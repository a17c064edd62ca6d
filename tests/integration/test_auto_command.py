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

from segany import from_coco, from_sa1b
from segany.data.formats.npz import from_npz
from segany.data.formats.table import AUTOMATIC_FORMATS

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
    report = auto(*arguments, "--format", ",".join(AUTOMATIC_FORMATS))
    assert report["status"] == "done"
    assert report["size_hw"] == [400, 600]
    assert set(report["files"]) == set(AUTOMATIC_FORMATS)

    instances = from_sa1b(json.loads((tmp_path / "coffee_auto_sa1b.json").read_text()))
    assert len(instances) == report["masks"] >= 5
    assert all(instance.predicted_iou > 0.88 and instance.stability_score >= 0.95 for instance in instances)
    coco = json.loads((tmp_path / "coffee_auto_coco.json").read_text())
    assert from_coco(coco).rle_counts == instances.rle_counts
    masks = instances.masks()
    for annotation, mask in zip(coco["annotations"], masks, strict=True):
        assert annotation["area"] == mask.sum()
        assert annotation["bbox"] == coco_mask.toBbox(annotation["segmentation"]).tolist()
    assert from_npz(tmp_path / "coffee_auto.npz").rle_counts == instances.rle_counts
    rows = list(csv.DictReader((tmp_path / "coffee_auto_masks" / "metadata.csv").read_text().splitlines()))
    assert [int(row["area"]) for row in rows] == [instance.area for instance in instances]
    with Image.open(tmp_path / "coffee_auto_masks" / "0.png") as picture:
        np.testing.assert_array_equal(np.array(picture) > 0, masks[0])
    with Image.open(tmp_path / "coffee_auto_labels.png") as picture:
        np.testing.assert_array_equal(np.array(picture) > 0, masks.any(axis=0))
    with Image.open(tmp_path / "coffee_auto_overlay.png") as picture:
        assert picture.size == (600, 400)

    assert auto(*arguments, "--format", "sa1b")["status"] == "skipped"
    assert auto(*arguments, "--format", "sa1b", "--overwrite")["masks"] == len(instances)  # from the saved embedding
    assert len(list((tmp_path / "embeddings").iterdir())) == 1
    assert from_sa1b(json.loads((tmp_path / "coffee_auto_sa1b.json").read_text())) == instances
