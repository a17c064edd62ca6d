"""Ours against the official code, on what the repository carries (made by make_golden.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib.npyio import NpzFile
from PIL import Image
from pycocotools import mask as coco_mask
from tests.models_for_tests import SMALL_TINY_VIT, SMALL_VIT, loaded, seed_weights, small_sam
from tests.parity.cases import SMALL_PROMPTS, small_masks, small_pixels
from tests.parity.seeded import seeded_state

import segany
from segany.kernels import optimize
from segany.models.mobile_sam.tiny_vit import ImageEncoderTinyVit
from segany.models.registry import MODELS
from segany.models.sam.model import Sam

GOLDEN = Path(__file__).parent / "golden"
PHOTOGRAPHS = Path(__file__).parents[2] / "examples" / "images"
LOGIT_TOLERANCE = 5e-2  # float16 storage alone costs up to 8e-3 where logits reach tens
SCORE_TOLERANCE = 1e-3


def golden(name: str) -> NpzFile:
    return np.load(GOLDEN / f"{name}.npz")


def mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


@pytest.fixture(params=["plain", "fast"])
def grad_mode(request: pytest.FixtureRequest) -> Any:
    """Both forms of the arithmetic: with gradients the plain one runs, without, the one for CPUs."""
    with torch.set_grad_enabled(request.param == "plain"):
        yield


@pytest.mark.usefixtures("grad_mode")
def test_small_vit_encoder() -> None:
    embedding = small_sam().encode_image(small_pixels())[0].detach().numpy()
    np.testing.assert_allclose(embedding, golden("small_vit")["embedding"], atol=2e-4)


@pytest.mark.usefixtures("grad_mode")
@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("index", range(len(SMALL_PROMPTS)))
def test_small_decoder(index: int, with_mask: bool) -> None:
    expected, prompt = golden("small_vit"), SMALL_PROMPTS[index]
    name = f"{index}{'_mask' if with_mask else ''}"
    low_res, iou = small_sam().decode(
        torch.from_numpy(expected["embedding"]),
        torch.tensor(prompt["points"]),
        torch.tensor(prompt["labels"]),
        small_masks()[0] if with_mask else None,
        multimask=prompt["multimask"],
    )
    np.testing.assert_allclose(low_res[0].detach().numpy(), expected[f"low_{name}"], atol=1e-4)
    np.testing.assert_allclose(iou[0].detach().numpy(), expected[f"iou_{name}"], atol=1e-5)


@pytest.mark.usefixtures("grad_mode")
def test_small_tiny_vit_encoder() -> None:
    encoder = optimize(ImageEncoderTinyVit(SMALL_TINY_VIT.encoder))
    seed_weights(encoder)
    embedding = encoder(small_pixels())[0].detach().numpy()
    np.testing.assert_allclose(embedding, golden("small_tiny_vit")["embedding"], atol=2e-4)


def test_transformers_checkpoint_gives_what_transformers_gives() -> None:
    shapes = json.loads((GOLDEN / "small_transformers.json").read_text())
    state = seeded_state({key: tuple(shape) for key, shape in shapes.items()})
    model = Sam(SMALL_VIT, name="small")
    model.load_state_dict(model.config.rename_keys({key: torch.from_numpy(value) for key, value in state.items()}))
    expected = golden("small_transformers")
    with torch.inference_mode():
        embedding = model.eval().encode_image(small_pixels())[0]
        points, labels = torch.tensor([[[60.0, 80.0], [0.0, 0.0]]]), torch.tensor([[1, -1]])
        low_res, iou = model.decode(embedding, points, labels, multimask=True)
    np.testing.assert_allclose(embedding, expected["embedding"], atol=2e-4)
    np.testing.assert_allclose(low_res[0], expected["low"], atol=1e-3)
    np.testing.assert_allclose(iou[0], expected["iou"], atol=1e-4)


@pytest.mark.parametrize("size", ["b", pytest.param("h", marks=pytest.mark.slow)])
def test_vit_at_full_size(size: str) -> None:
    model = MODELS[f"sam_vit_{size}"].build()
    seed_weights(model)
    expected = golden(f"vit_{size}")
    predictor = segany.ImagePredictor(loaded(optimize(model)))
    embedding = predictor.embed(PHOTOGRAPHS / "coffee.png")
    np.testing.assert_allclose(embedding.features[0][::16], expected["embedding_every16"], atol=2e-2)
    prediction = predictor.predict(embedding, segany.Prompt(points_xy=[[300, 200]]), masks="multi")
    np.testing.assert_allclose(prediction.low_res_logits[0, :, ::4, ::4], expected["low"], atol=2e-2)
    np.testing.assert_allclose(prediction.scores[0], expected["iou"], atol=SCORE_TOLERANCE)


@pytest.fixture(scope="module")
def mobile_sam(mobile_sam_path: Path) -> segany.ImagePredictor:
    return segany.ImagePredictor(segany.load(mobile_sam_path))


@pytest.mark.weights
@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
def test_mobile_sam_on_photographs(mobile_sam: segany.ImagePredictor, name: str) -> None:
    expected = golden(f"mobile_sam_{name}")
    cases: list[dict[str, Any]] = json.loads((GOLDEN / f"mobile_sam_{name}.json").read_text())
    image = np.array(Image.open(PHOTOGRAPHS / f"{name}.png").convert("RGB"))
    embedding = mobile_sam.embed(image)
    np.testing.assert_allclose(embedding.features[0][::16], expected["embedding_every16"], atol=2e-3)
    first = None
    for index, case in enumerate(cases):
        prompt = segany.Prompt(
            points_xy=case.get("points_xy"),
            labels=case.get("labels"),
            box_xyxy=case.get("box_xyxy"),
            mask_logits=first.low_res_logits[0, int(first.best_index[0])] if first and case["feeds_back"] else None,
        )
        prediction = mobile_sam.predict(embedding, prompt, masks="multi" if case["multimask"] else "single")
        first = first or prediction
        low_res = prediction.low_res_logits[0, :, ::4, ::4]
        np.testing.assert_allclose(low_res, expected[f"low_{index}"], atol=LOGIT_TOLERANCE, err_msg=str(case))
        np.testing.assert_allclose(prediction.scores[0], case["iou"], atol=SCORE_TOLERANCE, err_msg=str(case))
        for mask, counts in zip(prediction.masks[0], case["rle_counts"], strict=True):
            official = coco_mask.decode({"size": list(image.shape[:2]), "counts": counts.encode()}).astype(bool)
            assert mask_iou(mask, official) >= 0.999, case
