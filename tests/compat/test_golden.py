"""The same programs with the drop-in modules and with the official packages, which `make_golden.py` ran."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from tests.compat import programs
from tests.compat.make_golden import AUTOMATIC, GOLDEN, thinned
from tests.models_for_tests import SMALL_SAM2_CONFIGS, seed_weights
from tests.parity.test_golden import PHOTOGRAPHS

import segany.compat.segment_anything.modeling
import segany.compat.segment_anything.utils.amg
import segany.compat.segment_anything.utils.onnx
from segany.compat import mobile_sam, segment_anything
from segany.compat.sam2.overrides import Sam2Settings
from segany.compat.sam2.sam2_image_predictor import SAM2ImagePredictor
from segany.compat.sam2.sam2_video_predictor import SAM2VideoPredictor

OFFICIAL_VIDEO = Sam2Settings(dynamic_multimask_via_stability=True, binarize_mask_from_pts_for_mem_enc=True)
"""What the official builder of the video predictor sets, but for the filling of holes."""


def assert_same(outputs: dict[str, np.ndarray], name: str) -> None:
    """Floats agree up to the float16 of the golden file; of masks, all but a few pixels at edges."""
    expected = np.load(GOLDEN / f"{name}.npz")
    assert sorted(outputs) == sorted(expected.files)
    for key, value in outputs.items():
        ours, theirs = thinned(value), expected[key]
        assert ours.shape == theirs.shape, key
        if key.endswith("masks") and set(np.unique(theirs)) <= {0, 1}:
            assert ours.dtype == theirs.dtype, key
            assert (ours != theirs).mean() <= 1e-3, key
        elif theirs.dtype.kind == "f":
            theirs = theirs.astype(np.float64)
            tolerance = 2e-3 * max(1.0, np.abs(theirs[np.isfinite(theirs)]).max(initial=0))
            np.testing.assert_allclose(ours.astype(np.float64), theirs, atol=tolerance, rtol=2e-3, err_msg=key)
        else:
            np.testing.assert_array_equal(ours, theirs, err_msg=key)


@pytest.fixture(scope="module")
def sam() -> Any:
    model = programs.build_small_sam(segment_anything.modeling)
    seed_weights(model)
    return model


def small_sam2(version: str) -> SAM2VideoPredictor:
    model = SAM2VideoPredictor(SMALL_SAM2_CONFIGS[version], "small", OFFICIAL_VIDEO)
    seed_weights(model)
    return model


def test_predictor(sam: Any) -> None:
    assert_same(programs.use_sam_predictor(segment_anything, sam), "sam_predictor")


def test_calls_of_the_model_and_gradients(sam: Any) -> None:
    with torch.no_grad():
        assert_same(programs.call_sam(segment_anything, sam), "sam_calls")


def test_functions_of_the_mask_generator() -> None:
    assert_same(programs.use_amg_functions(segany.compat.segment_anything.utils.amg), "amg")


def test_sam2_image_predictor() -> None:
    assert_same(programs.use_sam2_image_predictor(SAM2ImagePredictor(small_sam2("sam2.1"))), "sam2_image")


def test_calls_of_the_sam2_model_and_gradients() -> None:
    with torch.no_grad():
        assert_same(programs.call_sam2_decoder(SAM2ImagePredictor(small_sam2("sam2.1"))), "sam2_calls")


@pytest.mark.parametrize("version", ["sam2", "sam2.1"])
def test_sam2_video_predictor(version: str) -> None:
    assert_same(programs.use_sam2_video_predictor(small_sam2(version)), f"{version}_video")


@pytest.mark.weights
def test_automatic_masks_have_the_official_order_and_values(mobile_sam_path: Path) -> None:
    model = mobile_sam.sam_model_registry["vit_t"](checkpoint=str(mobile_sam_path))
    image = np.array(Image.open(PHOTOGRAPHS / "coffee.png").convert("RGB"))
    records = mobile_sam.SamAutomaticMaskGenerator(model, **AUTOMATIC).generate(image)
    expected = json.loads((GOLDEN / "automatic.json").read_text())
    assert len(records) == len(expected) > 5
    for ours, theirs in zip(records, expected, strict=True):
        assert list(ours) == list(theirs)
        assert coco_mask.iou([ours["segmentation"]], [theirs["segmentation"]], [0])[0, 0] > 0.995
        assert ours["crop_box"] == theirs["crop_box"]
        for name, tolerance in (
            ("bbox", 1),
            ("predicted_iou", 1e-4),
            ("stability_score", 2e-3),
            ("point_coords", 1e-3),
        ):
            np.testing.assert_allclose(ours[name], theirs[name], atol=tolerance)
        assert ours["area"] == pytest.approx(theirs["area"], rel=5e-3)
