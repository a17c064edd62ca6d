from __future__ import annotations

import pytest
from tests.models_for_tests import SMALL_TINY_VIT, SMALL_VIT, small_sam, small_sam2
from torch import nn

from segany.models.promptable import PromptableModel
from segany.train.parameters import freeze_parts, parameter_groups


def numbers(model: PromptableModel, **settings: float) -> dict[str, tuple[float, float]]:
    """`lr_scale` and `weight_decay` of each parameter by name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, tuple[float, float]] = {}
    for group in parameter_groups(model, **settings):
        assert isinstance(group["params"], list)
        for parameter in group["params"]:
            assert names[id(parameter)] not in found  # nowhere twice
            found[names[id(parameter)]] = (group["lr_scale"], group["weight_decay"])  # type: ignore[assignment]
    return found


def test_the_learning_rate_decays_block_by_block_towards_the_pixels() -> None:
    model = small_sam(SMALL_VIT)  # 3 blocks
    found = numbers(model, weight_decay=0.1, layer_decay=0.5)
    assert found.keys() == dict(model.named_parameters()).keys()
    assert found["image_encoder.patch_embed.proj.weight"] == (1 / 16, 0.1)
    assert found["image_encoder.pos_embed"] == (1 / 16, 0)
    assert [found[f"image_encoder.blocks.{i}.attn.qkv.weight"] for i in range(3)] == [
        (1 / 8, 0.1),
        (1 / 4, 0.1),
        (1 / 2, 0.1),
    ]
    assert found["image_encoder.neck.0.weight"] == (1, 0.1)
    assert found["mask_decoder.transformer.layers.0.mlp.lin1.weight"] == (1, 0.1)


@pytest.mark.parametrize("family", ["vit", "tiny_vit", "sam2"])
def test_biases_norms_positions_and_tokens_keep_their_size(family: str) -> None:
    model = {"vit": small_sam, "tiny_vit": lambda: small_sam(SMALL_TINY_VIT), "sam2": small_sam2}[family]()
    found = numbers(model, weight_decay=0.1, layer_decay=0.8)
    kept = {name for name, (_, decay) in found.items() if decay == 0}
    for name, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            is_matrix = own == "weight" and isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d))
            assert is_matrix or parameter.dim() == 1 or f"{name}.{own}".lstrip(".") in kept, f"{name}.{own}"
            assert not (is_matrix and f"{name}.{own}" in kept), f"{name}.{own}"
    assert {name for name in found if name.endswith(("bias", "pos_embed", "rel_pos_h", "mask_tokens.weight"))} <= kept


def test_stages_of_tiny_vit_are_as_deep_as_their_blocks() -> None:
    model = small_sam(SMALL_TINY_VIT)  # 2, 2, 6 and 2 blocks
    found = numbers(model, weight_decay=0.0, layer_decay=0.5)
    depth = {"layers.0.blocks.1.": 2, "layers.0.downsample.": 2, "layers.1.blocks.0.": 3, "layers.3.blocks.1.": 12}
    for prefix, expected in depth.items():
        scales = {scale for name, (scale, _) in found.items() if name.startswith(f"image_encoder.{prefix}")}
        assert scales == {0.5 ** (13 - expected)}, prefix


def test_blocks_of_hiera_are_counted_through_its_stages() -> None:
    model = small_sam2()
    found = numbers(model, weight_decay=0.0, layer_decay=0.5)
    depth = len(model.image_encoder.encoder_blocks())
    assert found["image_encoder.trunk.patch_embed.proj.weight"][0] == 0.5 ** (depth + 1)
    for name in ("pos_embed", "pos_embed_window"):  # which SAM 2's training leaves out
        assert found[f"image_encoder.trunk.{name}"][0] == 1
    assert found[f"image_encoder.trunk.blocks.{depth - 1}.attn.qkv.weight"][0] == 0.5
    assert found["image_encoder.neck.convs.0.conv.weight"][0] == 1


def test_the_image_encoder_has_a_rate_of_its_own() -> None:
    found = numbers(small_sam2(), weight_decay=0.0, layer_decay=1.0, encoder_lr_scale=0.6)
    scales = {name.startswith("image_encoder."): scale for name, (scale, _) in found.items()}
    assert scales == {True: 0.6, False: 1.0}


def test_the_decoder_alone() -> None:
    model = small_sam()
    freeze_parts(model, "decoder")
    assert not any(parameter.requires_grad for parameter in model.image_encoder.parameters())
    assert {name.split(".")[0] for name in numbers(model, weight_decay=0, layer_decay=1)} == {
        "prompt_encoder",
        "mask_decoder",
    }


def test_what_images_do_not_reach_is_frozen() -> None:
    model = small_sam2()
    freeze_parts(model, "all")
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert "no_mem_embed" in trained
    assert "sam_mask_decoder.conv_s0.weight" in trained
    assert not any(name.startswith(("memory_", "obj_ptr", "maskmem", "mask_downsample")) for name in trained)
    freeze_parts(model, "decoder")
    assert not any(parameter.requires_grad for parameter in model.sam_mask_decoder.conv_s0.parameters())


def test_what_was_frozen_before_stays_so() -> None:
    model = small_sam()
    model.image_encoder.requires_grad_(False)
    freeze_parts(model, "all")
    assert not any(parameter.requires_grad for parameter in model.image_encoder.parameters())
