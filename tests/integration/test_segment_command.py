"""The installed `segany` with the real MobileSAM weights on the photographs of the examples."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from segany.data.formats.table import PROMPT_FORMATS

pytestmark = pytest.mark.weights

IMAGES = Path(__file__).parents[2] / "examples" / "images"
COMMAND = [sys.executable, "-c", "from segany.cli import main; main()", "segment"]


def segment(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments), "--device", "cpu"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def report(*arguments: str | Path) -> dict:
    result = segment(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    (line,) = result.stdout.splitlines()
    return json.loads(line)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_every_format_agrees(mobile_sam_path: Path, tmp_path: Path) -> None:
    facts = report(
        IMAGES / "coffee.png", "--point", "168,124", "--point", "330,248,0", "--model", mobile_sam_path,
        "--format", ",".join(PROMPT_FORMATS), "--out", tmp_path,
    )  # fmt: skip
    assert facts["size_hw"] == [400, 600]
    assert facts["model"] == "mobile_sam"
    (found,) = facts["objects"]
    assert found["score"] > 0.9
    assert set(facts["files"]) == set(PROMPT_FORMATS)
    with Image.open(tmp_path / "coffee_mask_1.png") as picture:
        mask = np.array(picture) > 0
    assert mask.sum() == found["area"]
    (annotation,) = json.loads((tmp_path / "coffee_coco.json").read_text())["annotations"]
    np.testing.assert_array_equal(coco_mask.decode(annotation["segmentation"]) > 0, mask)
    with np.load(tmp_path / "coffee_prediction.npz") as arrays:
        np.testing.assert_array_equal(arrays["masks"][0, 0], mask)
        assert arrays["low_res_logits"].shape == (1, 1, 256, 256)
    with Image.open(tmp_path / "coffee_cutout_1.png") as picture:
        assert (np.array(picture)[..., 3] > 0).sum() == mask.sum()


def test_boxes_prompts_file_and_candidates(mobile_sam_path: Path, tmp_path: Path) -> None:
    prompts = {
        "chelsea.png": [{"points_xy": [[126, 93]]}, {"box_xyxy": [90, 75, 316, 240]}],
        "coffee.png": [{"points_xy": [[480, 180]], "labels": [1]}],
    }
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    result = segment(
        IMAGES / "chelsea.png", IMAGES / "coffee.png", "--prompts", tmp_path / "prompts.json", "--all-candidates",
        "--out", tmp_path / "out", "--format", "coco", "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    cat, coffee = (json.loads(line) for line in result.stdout.splitlines())
    assert [(item["object"], item["candidate"]) for item in cat["objects"]] == [(1, 1), (1, 2), (1, 3), (2, 1)]
    assert len(coffee["objects"]) == 3


def test_mask_prompts_lead_back_to_the_mask(mobile_sam_path: Path, tmp_path: Path) -> None:
    first = ("--out", tmp_path / "first", "--format", "png,npz")
    assert report(IMAGES / "coffee.png", "--point", "480,180", *first)["objects"][0]["area"] > 1000

    def mask_of(folder: str) -> np.ndarray:
        with Image.open(tmp_path / folder / "coffee_mask_1.png") as picture:
            return np.array(picture) > 0

    for name in ("coffee_mask_1.png", "coffee_prediction.npz"):
        again = ("--out", tmp_path / "again", "--format", "png", "--point", "480,180")
        report(IMAGES / "coffee.png", "--mask", tmp_path / "first" / name, *again)
        assert iou(mask_of("first"), mask_of("again")) > 0.9


def test_summary_for_people(mobile_sam_path: Path, tmp_path: Path) -> None:
    result = segment(IMAGES / "chelsea.png", "--point", "126,93", "--out", tmp_path, "--format", "overlay")
    assert result.returncode == 0
    assert "chelsea.png" in result.stdout
    assert "score 0.99" in result.stdout
    assert str(tmp_path / "chelsea_overlay.png") in result.stdout
    assert result.stderr == ""


def test_unknown_model_gives_the_nearest_names(tmp_path: Path) -> None:
    arguments = ("--point", "9,9", "--out", tmp_path / "out")
    result = segment(IMAGES / "coffee.png", *arguments, "--model", "mobil_sam")
    assert result.returncode == 2
    assert result.stderr == "error: There is no model 'mobil_sam'. Did you mean mobile_sam?\n"
    result = segment(IMAGES / "coffee.png", *arguments, "--model", "sam_vit_x")
    assert "sam_vit_b" in result.stderr
    assert not (tmp_path / "out").exists()


def test_truncated_checkpoint(mobile_sam_path: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pt"
    broken.write_bytes(mobile_sam_path.read_bytes()[:1_000_000])
    result = segment(IMAGES / "coffee.png", "--point", "9,9", "--out", tmp_path / "out", "--model", broken)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert "broken.pt" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_unknown_device(mobile_sam_path: Path, tmp_path: Path) -> None:
    command = [*COMMAND, str(IMAGES / "coffee.png"), "--point", "9,9", "--out", str(tmp_path / "out")]
    result = subprocess.run([*command, "--device", "gpu9"], capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 2
    assert "gpu9" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a POSIX shell to limit the size of files")
def test_real_write_failure_leaves_nothing(mobile_sam_path: Path, tmp_path: Path) -> None:
    arguments = [*COMMAND, str(IMAGES / "coffee.png"), "--point", "168,124", "--out", str(tmp_path / "out")]
    limited = ["sh", "-c", 'ulimit -f 64; exec "$@"', "sh", *arguments, "--device", "cpu"]  # 32 or 64 KiB a file
    result = subprocess.run(limited, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 2, result.stderr
    assert "coffee_overlay.png could not be written: File too large" in result.stderr
    assert list((tmp_path / "out").iterdir()) == []
