"""Names, arguments and defaults of the official packages, which `make_golden.py` recorded."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest
import torch
from tests.compat.make_golden import GOLDEN, arguments_of

from segany.models.registry import MODELS
from segany.nn.init_empty import init_empty_weights

OFFICIAL: dict[str, list[str]] = json.loads((GOLDEN / "signatures.json").read_text())

LEFT_OUT = {
    # Options that the official code swallows, and those of its Hydra configs.
    "sam2.build_sam:build_sam2",
    "sam2.build_sam:build_sam2_video_predictor",
    "sam2.build_sam:build_sam2_hf",
    "sam2.build_sam:build_sam2_video_predictor_hf",
    "sam2.sam2_image_predictor:SAM2ImagePredictor",
    "sam2.sam2_image_predictor:SAM2ImagePredictor.from_pretrained",
    "sam2.automatic_mask_generator:SAM2AutomaticMaskGenerator",
    "sam2.automatic_mask_generator:SAM2AutomaticMaskGenerator.from_pretrained",
    "sam2.sam2_video_predictor:SAM2VideoPredictor",
    "sam2.sam2_video_predictor:SAM2VideoPredictor.from_pretrained",
    "sam2.sam2_video_predictor:SAM2VideoPredictorVOS",
    # Parts that only the official code itself calls.
    "sam2.sam2_video_predictor:SAM2VideoPredictorVOS.forward_image",
    "sam2.automatic_mask_generator:SAM2AutomaticMaskGenerator.refine_with_m2m",
    "sam2.automatic_mask_generator:SAM2AutomaticMaskGenerator.postprocess_small_regions",
    "segment_anything.automatic_mask_generator:SamAutomaticMaskGenerator.postprocess_small_regions",
    "segment_anything.modeling.image_encoder:Attention",
    "segment_anything.modeling.image_encoder:Attention.forward",
    "segment_anything.modeling.image_encoder:Block",
    "segment_anything.modeling.image_encoder:Block.forward",
    "segment_anything.modeling.image_encoder:PatchEmbed",
    "segment_anything.modeling.image_encoder:PatchEmbed.forward",
    "segment_anything.modeling.image_encoder:add_decomposed_rel_pos",
    "segment_anything.modeling.image_encoder:get_rel_pos",
    "segment_anything.modeling.image_encoder:window_partition",
    "segment_anything.modeling.image_encoder:window_unpartition",
}


def ours(name: str) -> Any:
    module, _, path = name.partition(":")
    item: Any = importlib.import_module(f"segany.compat.{module}")
    for part in path.split("."):
        item = getattr(item, part)
    return item


def named(arguments: list[str]) -> dict[str, str]:
    """Arguments without annotations of how they are swallowed, by name."""
    return {one.partition("=")[0]: one.partition("=")[2] for one in arguments}


def test_the_golden_file_is_not_empty() -> None:
    assert len(OFFICIAL) > 100


@pytest.mark.parametrize("name", sorted(OFFICIAL.keys() - LEFT_OUT))
def test_arguments_are_the_official_ones(name: str) -> None:
    official, found = OFFICIAL[name], arguments_of(ours(name))
    assert [one.partition("=")[0] for one in found[: len(official)]] == [one.partition("=")[0] for one in official]
    for argument, default in named(official).items():
        if "<class" not in default and "<function" not in default:
            assert named(found)[argument].strip("()[]") == default.strip("()[]"), argument
    extra = found[len(official) :]
    assert all("=" in one for one in extra)  # whatever ours takes beyond has a default


@pytest.mark.parametrize("name", [name for name in sorted(LEFT_OUT) if "build_sam" in name or "SAM2" in name])
def test_arguments_with_options_are_named(name: str) -> None:
    """The same arguments, but none that swallows anything."""
    if not name.endswith(("refine_with_m2m", "postprocess_small_regions", "VOS.forward_image", "Predictor", "VOS")):
        official = [one for one in OFFICIAL[name] if not one.startswith("**")]
        found = arguments_of(ours(name))
        names = [one.partition("=")[0] for one in found]
        assert names[: len(official)] == [one.partition("=")[0] for one in official]
        assert not any(one.startswith("**") for one in found) or name.endswith("Generator.from_pretrained")


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_state_of_sam_has_the_official_keys(name: str) -> None:
    from segany.compat.segment_anything import sam_model_registry

    with init_empty_weights():
        state = sam_model_registry[name]().state_dict()
    assert shapes_of(state) == shapes_of(MODELS[f"sam_{name}"].build_empty().state_dict())


def test_state_of_mobile_sam_has_the_official_keys() -> None:
    from segany.compat.mobile_sam import sam_model_registry

    with init_empty_weights():
        state = sam_model_registry["vit_t"]().state_dict()
    assert shapes_of(state) == json.loads((GOLDEN / "vit_t_shapes.json").read_text())


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("sam2")])
def test_state_of_sam2_has_the_official_keys(name: str) -> None:
    from segany.compat.sam2 import build_sam

    (config, _) = next(pair for pair in build_sam.HF_MODEL_ID_TO_FILENAMES.values() if pair[1] == f"{name}.pt")
    with init_empty_weights():
        state = build_sam.build_sam2(config, device="meta").state_dict()
    assert shapes_of(state) == shapes_of(MODELS[name].build_empty().state_dict())


def shapes_of(state: dict[str, torch.Tensor]) -> dict[str, list[int]]:
    return {key: list(value.shape) for key, value in state.items()}
