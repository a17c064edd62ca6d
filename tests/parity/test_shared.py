"""Ours against the golden files kept beside the checkout, which hold more and larger cases.

`../shared/golden` is not part of the repository (its photographs are under another license); without it
these tests are skipped and say so. `test_golden.py` covers the same code with what the repository carries.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from tests.models_for_tests import loaded
from tests.parity.test_golden import SCORE_TOLERANCE, mask_iou

import segany
from segany.kernels import optimize
from segany.models.promptable import PromptableModel
from segany.models.registry import MODELS
from segany.models.sam2.config import Sam2Config
from segany.models.sam2.model import Sam2

SHARED = Path(__file__).parents[3] / "shared"
REAL_LOGIT_TOLERANCE = 5e-2
SEEDED_LOGIT_TOLERANCE = 2e-2

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not (SHARED / "golden").is_dir(), reason=f"needs the golden files in {SHARED / 'golden'}"),
]


@pytest.fixture(scope="module")
def mobile_sam(mobile_sam_path: Path) -> segany.ImagePredictor:
    return segany.ImagePredictor(segany.load(mobile_sam_path))


def to_prompt(fields: dict[str, Any], mask_input: np.ndarray) -> segany.Prompt:
    return segany.Prompt(
        points_xy=fields.get("point_coords"),
        labels=fields.get("point_labels"),
        box_xyxy=fields.get("box"),
        mask_logits=mask_input if "mask_input" in fields else None,
    )


@pytest.mark.weights
@pytest.mark.parametrize("image", ["truck.jpg", "groceries.jpg", "coffee.png", "astronaut.png", "chelsea.png"])
def test_real_mobile_sam(mobile_sam: segany.ImagePredictor, image: str) -> None:
    stem = Path(image).stem
    cases = json.loads(gzip.decompress((SHARED / f"golden/mobile_sam/{stem}.json.gz").read_bytes()))["cases"]
    arrays = np.load(SHARED / f"golden/mobile_sam/{stem}.npz")
    mask_input = arrays["mask_input"].reshape(256, 256).astype(np.float32)
    embedding = mobile_sam.embed(SHARED / "images" / image)
    if arrays["embedding"].size:
        np.testing.assert_allclose(embedding.features[0], arrays["embedding"].reshape(256, 64, 64), atol=2e-3)
    for multi in (True, False):
        chosen = [index for index, case in enumerate(cases) if case["multimask"] == multi]
        prompts = [to_prompt(cases[index]["prompt"], mask_input) for index in chosen]
        together = mobile_sam.predict(embedding, prompts, masks="multi" if multi else "single")
        for index, prediction in zip(chosen, together, strict=True):
            expected = arrays[f"low_{index}"].reshape(prediction.low_res_logits[0].shape)
            np.testing.assert_allclose(prediction.low_res_logits[0], expected, atol=REAL_LOGIT_TOLERANCE)
            np.testing.assert_allclose(prediction.scores[0], cases[index]["iou"], atol=SCORE_TOLERANCE)
            for mask, rle in zip(prediction.masks[0], cases[index]["masks"], strict=True):
                assert mask_iou(mask, coco_mask.decode(rle).astype(bool)) >= 0.999


def seeded_checkpoint(name: str) -> dict[str, torch.Tensor]:
    """The official checkpoint's names and shapes, with the values that the golden files were made with."""
    source = importlib.util.spec_from_file_location("seeded", SHARED / "golden/seeded/seeded.py")
    assert source is not None
    assert source.loader is not None
    seeded = importlib.util.module_from_spec(source)
    source.loader.exec_module(seeded)
    shapes = json.loads((SHARED / f"golden/seeded/{name}.shapes.json").read_text())
    return {key: torch.from_numpy(value) for key, value in seeded.state_dict(shapes).items()}


@pytest.mark.parametrize("name", ["sam_vit_b", pytest.param("sam_vit_l", marks=pytest.mark.slow)])
def test_seeded_vit_outputs_are_the_official_ones(name: str, tmp_path: Path) -> None:
    path = tmp_path / "official.pth"
    torch.save(seeded_checkpoint(name), path)
    model = segany.load(path)
    assert model.name == name
    check_truck(model.module)


SAM2_NAMES = [name for name, spec in MODELS.items() if isinstance(spec.config, Sam2Config)]


@pytest.mark.parametrize("name", SAM2_NAMES)
def test_sam2_has_the_official_names_and_shapes(name: str) -> None:
    shapes = json.loads((SHARED / f"golden/seeded/{name}.shapes.json").read_text())
    assert {key: list(value.shape) for key, value in MODELS[name].build_empty().state_dict().items()} == shapes


def seeded_sam2(name: str) -> Sam2:
    """As the golden files were made: without what the official builders switch on as post-processing."""
    spec = MODELS[name]
    assert isinstance(spec.config, Sam2Config)
    decoder = replace(spec.config.decoder, stability_thresh=None)
    model = replace(spec, config=replace(spec.config, decoder=decoder)).build_empty()
    assert isinstance(model, Sam2)
    model.load_state_dict(seeded_checkpoint(name), assign=True)
    return model.eval()


@pytest.mark.parametrize(
    "name",
    [
        "sam2.1_hiera_tiny",
        pytest.param("sam2.1_hiera_small", marks=pytest.mark.slow),
        pytest.param("sam2.1_hiera_base_plus", marks=pytest.mark.slow),
        pytest.param("sam2.1_hiera_large", marks=pytest.mark.slow),
    ],
)
def test_seeded_sam2_outputs_are_the_official_ones(name: str) -> None:
    check_truck(seeded_sam2(name))


def check_truck(model: PromptableModel) -> None:
    predictor = segany.ImagePredictor(loaded(optimize(model)))
    expected = np.load(SHARED / f"golden/seeded/{model.name}.npz")
    embedding = predictor.embed(SHARED / "images/truck.jpg")
    every8 = expected["embedding_every8"].reshape(32, 64, 64)
    np.testing.assert_allclose(embedding.features[0][::8], every8, atol=SEEDED_LOGIT_TOLERANCE)
    for level, feature in enumerate(embedding.features[1:]):
        np.testing.assert_allclose(
            feature[::8, ::4, ::4], expected[f"high_res{level}_every8"], atol=SEEDED_LOGIT_TOLERANCE
        )
    prompts = [
        segany.Prompt(points_xy=[[500, 375]]),
        segany.Prompt(box_xyxy=[425, 600, 700, 875]),
        segany.Prompt(points_xy=[[575, 750], [900, 300]], labels=[0, 1], box_xyxy=[425, 600, 700, 875]),
    ]
    for index, prediction in enumerate(predictor.predict(embedding, prompts)):
        low_res = expected[f"low_{index}"].reshape(prediction.low_res_logits[0].shape)
        np.testing.assert_allclose(prediction.low_res_logits[0], low_res, atol=SEEDED_LOGIT_TOLERANCE)
        np.testing.assert_allclose(prediction.scores[0], expected[f"iou_{index}"].ravel(), atol=SCORE_TOLERANCE)
