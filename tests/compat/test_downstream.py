"""Unmodified programs in an environment of their own, with the official packages and with the drop-in modules.

They need SEGANY_PEER_PYTHON, an interpreter with the official packages, segany's dependencies, opencv-python and ONNX
Runtime; and for the programs of others supervision, segment-geospatial 1.4.2 and samexporter. The official scripts need
SEGANY_OFFICIAL_SCRIPTS, the folder `scripts` of a checkout of MobileSAM. What is missing is skipped.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from tests.parity.seeded import seeded_state
from tests.parity.test_golden import PHOTOGRAPHS, mask_iou

from segany.models.registry import MODELS

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "src"
COFFEE = PHOTOGRAPHS / "coffee.png"
SIDES = ("official", "segany")

pytestmark = [pytest.mark.slow, pytest.mark.weights]


@pytest.fixture(scope="module")
def python() -> str:
    found = os.environ.get("SEGANY_PEER_PYTHON")
    if not found:
        pytest.skip("needs SEGANY_PEER_PYTHON, an interpreter with the official packages")
    return found


@pytest.fixture(scope="module")
def scripts() -> Path:
    found = os.environ.get("SEGANY_OFFICIAL_SCRIPTS")
    if not found:
        pytest.skip("needs SEGANY_OFFICIAL_SCRIPTS, the folder with the official scripts")
    return Path(found)


def need(python: str, module: str) -> None:
    if subprocess.run([python, "-c", f"import {module}"], check=False, capture_output=True).returncode:
        pytest.skip(f"{python} has no {module}")


def launch(python: str, side: str, folder: Path, *program: str | Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE) if side == "segany" else ""}
    command = [python, "-W", "ignore", str(HERE / "launch.py"), side, *map(str, program)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, f"{side}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def arrays_of(python: str, folder: Path, program: str, *arguments: str | Path) -> list[Any]:
    """What a program saves, on both sides."""
    found = []
    for side in SIDES:
        launch(python, side, folder, HERE / "downstream" / f"{program}.py", *arguments, f"{side}.npz")
        found.append(np.load(folder / f"{side}.npz"))
    return found


def assert_same_mask(ours: Any, theirs: Any) -> None:
    ours, theirs = np.asarray(ours, dtype=np.bool_), np.asarray(theirs, dtype=np.bool_)
    assert mask_iou(ours, theirs) >= 0.999 or (ours != theirs).sum() <= 2


def test_predictor_notebook(python: str, mobile_sam_path: Path, tmp_path: Path) -> None:
    theirs, ours = arrays_of(python, tmp_path, "notebook_predictor", mobile_sam_path, COFFEE)
    np.testing.assert_allclose(ours["scores"], theirs["scores"], atol=1e-4)
    for name in set(theirs.files) - {"scores", "seconds"}:
        assert ours[name].dtype == theirs[name].dtype == np.bool_
        size = theirs[name].shape[-2:]
        for one, other in zip(ours[name].reshape(-1, *size), theirs[name].reshape(-1, *size), strict=True):
            assert_same_mask(one, other)


def test_automatic_notebook(python: str, mobile_sam_path: Path, tmp_path: Path) -> None:
    found = []
    for side in SIDES:
        program = HERE / "downstream" / "notebook_automatic.py"
        launch(python, side, tmp_path, program, mobile_sam_path, COFFEE, "10", f"{side}.json")
        found.append(json.loads((tmp_path / f"{side}.json").read_text())["masks"])
    theirs, ours = found
    assert len(ours) == len(theirs) > 3
    for one, other in zip(ours, theirs, strict=True):
        assert coco_mask.iou([one["segmentation"]], [other["segmentation"]], [0])[0, 0] >= 0.995
        for name in ("bbox", "crop_box", "point_coords"):
            np.testing.assert_allclose(one[name], other[name], atol=1)


@pytest.fixture(scope="module")
def sam2_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of SAM 2.1 tiny with seeded weights."""
    shapes = {key: tuple(value.shape) for key, value in MODELS["sam2.1_hiera_tiny"].build_empty().state_dict().items()}
    path = tmp_path_factory.mktemp("weights") / "seeded.pt"
    torch.save({"model": {key: torch.from_numpy(value) for key, value in seeded_state(shapes).items()}}, path)
    return path


def test_video_notebook(python: str, sam2_path: Path, tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    for number in range(3):
        image = Image.open(COFFEE).convert("RGB").resize((640, 426)).transform(
            (640, 426), Image.Transform.AFFINE, (1, 0, 12 * number, 0, 1, 5 * number)
        )  # fmt: skip
        image.save(tmp_path / "frames" / f"{number:05d}.jpg", quality=95)
    theirs, ours = arrays_of(python, tmp_path, "notebook_video", sam2_path, "frames")
    assert sorted(ours.files) == sorted(theirs.files)
    for name in theirs.files:
        np.testing.assert_allclose(ours[name], theirs[name], atol=2e-3 * max(1, np.abs(theirs[name]).max()))


def test_official_amg_script(python: str, scripts: Path, mobile_sam_path: Path, tmp_path: Path) -> None:
    need(python, "cv2")
    options = ["--model-type", "vit_t", "--device", "cpu", "--points-per-side", "8", "--crop-n-layers", "1"]
    for side in SIDES:
        inputs = ["--input", COFFEE, "--output", side, "--checkpoint", mobile_sam_path]
        launch(python, side, tmp_path, scripts / "amg.py", *inputs, *options, "--min-mask-region-area", "50")
    official, ours = (tmp_path / side / "coffee" for side in SIDES)
    names = sorted(path.name for path in official.iterdir())
    assert sorted(path.name for path in ours.iterdir()) == names
    assert len(names) > 4
    for name in names:
        if name.endswith(".png"):
            assert_same_mask(*(np.asarray(Image.open(folder / name)) > 0 for folder in (ours, official)))
    rows = [list(csv.reader((folder / "metadata.csv").read_text().splitlines())) for folder in (ours, official)]
    assert rows[0][0] == rows[1][0]
    numbers = [np.array(table[1:], dtype=np.float64) for table in rows]
    np.testing.assert_allclose(numbers[0], numbers[1], rtol=5e-3, atol=1)


def test_official_onnx_export_script(python: str, scripts: Path, mobile_sam_path: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    random = np.random.default_rng(0)
    for options in (
        ["--return-single-mask"],
        ["--gelu-approximate", "--use-stability-score", "--return-extra-metrics"],
    ):
        outputs = []
        for side in SIDES:
            given = ["--checkpoint", mobile_sam_path, "--output", f"{side}.onnx", "--model-type", "vit_t"]
            launch(python, side, tmp_path, scripts / "export_onnx_model.py", *given, *options)
            session = onnxruntime.InferenceSession(tmp_path / f"{side}.onnx", providers=["CPUExecutionProvider"])
            random = np.random.default_rng(0)
            inputs = {
                "image_embeddings": random.standard_normal((1, 256, 64, 64), dtype=np.float32) / 3,
                "point_coords": np.array([[[300, 200], [0, 0]]], dtype=np.float32),
                "point_labels": np.array([[1, -1]], dtype=np.float32),
                "mask_input": np.zeros((1, 1, 256, 256), dtype=np.float32),
                "has_mask_input": np.zeros(1, dtype=np.float32),
                "orig_im_size": np.array([400, 600], dtype=np.float32),
            }
            assert [one.name for one in session.get_inputs()] == list(inputs)
            outputs.append(session.run(None, inputs))
        for one, other in zip(outputs[1], outputs[0], strict=True):
            np.testing.assert_allclose(one, other, atol=2e-3 * max(1, np.abs(other).max()))


def test_samexporter(python: str, mobile_sam_path: Path, tmp_path: Path) -> None:
    need(python, "samexporter.export_encoder")
    onnxruntime = pytest.importorskip("onnxruntime")
    outputs = []
    for side in SIDES:
        for part, options in (("encoder", []), ("decoder", ["--return-single-mask"])):
            given = ["--checkpoint", mobile_sam_path, "--output", f"{side}_{part}.onnx", "--model-type", "mobile"]
            launch(python, side, tmp_path, "-m", f"samexporter.export_{part}", *given, *options)
        encoder, decoder = (
            onnxruntime.InferenceSession(tmp_path / f"{side}_{part}.onnx", providers=["CPUExecutionProvider"])
            for part in ("encoder", "decoder")
        )
        (pixels,) = encoder.get_inputs()
        shape = [side if isinstance(side, int) else 3 for side in pixels.shape]
        image = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        (embedding,) = encoder.run(None, {pixels.name: image})
        found = decoder.run(
            None,
            {
                "image_embeddings": embedding,
                "point_coords": np.array([[[300, 200], [0, 0]]], dtype=np.float32),
                "point_labels": np.array([[1, -1]], dtype=np.float32),
                "mask_input": np.zeros((1, 1, 256, 256), dtype=np.float32),
                "has_mask_input": np.zeros(1, dtype=np.float32),
                "orig_im_size": np.array([400, 600], dtype=np.float32),
            },
        )
        outputs.append([embedding, *found])
    # It exports in training mode, and a random image changes the statistics of batch norm before: so much differs
    # between two runs of either side.
    for one, other in zip(outputs[1], outputs[0], strict=True):
        np.testing.assert_allclose(one, other, atol=2e-2 * max(1, np.abs(other).max()))


def test_samexporter_of_sam2(python: str, sam2_path: Path, tmp_path: Path) -> None:
    need(python, "samexporter.export_encoder")
    onnxruntime = pytest.importorskip("onnxruntime")
    image = np.random.default_rng(0).standard_normal((1, 3, 1024, 1024), dtype=np.float32)
    outputs = []
    for side in SIDES:
        files = ["--output_encoder", f"{side}_encoder.onnx", "--output_decoder", f"{side}_decoder.onnx"]
        given = ["--checkpoint", sam2_path, "--model_type", "sam2.1_hiera_tiny", *files]
        launch(python, side, tmp_path, "-m", "samexporter.export_sam2", *given)
        encoder, decoder = (
            onnxruntime.InferenceSession(tmp_path / f"{side}_{part}.onnx", providers=["CPUExecutionProvider"])
            for part in ("encoder", "decoder")
        )
        stride4, stride8, embedding = encoder.run(None, {"image": image})
        inputs = {
            "image_embed": embedding,
            "high_res_feats_0": stride4,
            "high_res_feats_1": stride8,
            "point_coords": np.array([[[500, 400], [30, 900]]], dtype=np.float32),
            "point_labels": np.array([[1, 0]], dtype=np.float32),
            "mask_input": np.zeros((1, 1, 256, 256), dtype=np.float32),
            "has_mask_input": np.zeros(1, dtype=np.float32),
        }
        outputs.append([stride4, stride8, embedding, *decoder.run(None, inputs)])
    for one, other in zip(outputs[1], outputs[0], strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3 * max(1, np.abs(other).max()))


def test_supervision(python: str, mobile_sam_path: Path, tmp_path: Path) -> None:
    need(python, "supervision")
    theirs, ours = arrays_of(python, tmp_path, "supervision_detections", mobile_sam_path, COFFEE)
    assert ours["xyxy"].dtype == theirs["xyxy"].dtype
    np.testing.assert_allclose(ours["xyxy"], theirs["xyxy"], atol=1)
    for one, other in zip(ours["mask"], theirs["mask"], strict=True):
        assert_same_mask(one, other)
    assert (ours["annotated"] != theirs["annotated"]).mean() < 1e-3


def test_segment_geospatial(python: str, mobile_sam_path: Path, tmp_path: Path) -> None:
    need(python, "samgeo.samgeo")
    for side in SIDES:
        launch(python, side, tmp_path, HERE / "downstream" / "geospatial.py", mobile_sam_path, COFFEE, side)
    for name in ("mask.tif", "point.tif"):
        theirs, ours = (np.asarray(Image.open(tmp_path / side / name)) for side in SIDES)
        assert len(np.unique(theirs)) > 1
        assert (ours != theirs).mean() < 1e-3, name
    reading = (
        "import geopandas, sys; frames = [geopandas.read_file(path) for path in sys.argv[1:]];"
        "assert frames[0].crs == frames[1].crs and len(frames[0]) == len(frames[1]) > 3;"
        "areas = [sorted(frame.area) for frame in frames];"
        "assert all(abs(a - b) <= 0.01 * b + 1 for a, b in zip(*areas))"
    )
    files = [str(tmp_path / side / "mask.gpkg") for side in SIDES]
    subprocess.run([python, "-W", "ignore", "-c", reading, *files], check=True)
