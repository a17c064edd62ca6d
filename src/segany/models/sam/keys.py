"""Names of SAM's tensors in checkpoints of the transformers library, and ours, which are the official ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from segany.models.configs import KeyRules, rename_key

Value = TypeVar("Value")

VIT_RULES: KeyRules = (
    (r"vision_encoder\.pos_embed", "image_encoder.pos_embed"),
    (r"vision_encoder\.patch_embed\.projection\.(\w+)", r"image_encoder.patch_embed.proj.\1"),
    (r"vision_encoder\.layers\.(\d+)\.layer_norm([12])\.(\w+)", r"image_encoder.blocks.\1.norm\2.\3"),
    (r"vision_encoder\.layers\.(\d+)\.((?:attn|mlp)\..+)", r"image_encoder.blocks.\1.\2"),
    (r"vision_encoder\.neck\.conv1\.weight", "image_encoder.neck.0.weight"),
    (r"vision_encoder\.neck\.layer_norm1\.(\w+)", r"image_encoder.neck.1.\1"),
    (r"vision_encoder\.neck\.conv2\.weight", "image_encoder.neck.2.weight"),
    (r"vision_encoder\.neck\.layer_norm2\.(\w+)", r"image_encoder.neck.3.\1"),
)  # fmt: skip

SAM_RULES: KeyRules = (
    (r"shared_image_embedding\.positional_embedding", "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
    (r"prompt_encoder\.shared_embedding\.positional_embedding", None),  # the same matrix a second time
    (r"prompt_encoder\.point_embed\.(\d)\.weight", r"prompt_encoder.point_embeddings.\1.weight"),
    (r"prompt_encoder\.(no_mask_embed|not_a_point_embed)\.weight", r"prompt_encoder.\1.weight"),
    (r"prompt_encoder\.mask_embed\.conv1\.(\w+)", r"prompt_encoder.mask_downscaling.0.\1"),
    (r"prompt_encoder\.mask_embed\.layer_norm1\.(\w+)", r"prompt_encoder.mask_downscaling.1.\1"),
    (r"prompt_encoder\.mask_embed\.conv2\.(\w+)", r"prompt_encoder.mask_downscaling.3.\1"),
    (r"prompt_encoder\.mask_embed\.layer_norm2\.(\w+)", r"prompt_encoder.mask_downscaling.4.\1"),
    (r"prompt_encoder\.mask_embed\.conv3\.(\w+)", r"prompt_encoder.mask_downscaling.6.\1"),
    (r"(mask_decoder\.transformer\.layers\.\d)\.layer_norm([1-4])\.(\w+)", r"\1.norm\2.\3"),
    (r"mask_decoder\.transformer\.layer_norm_final_attn\.(\w+)", r"mask_decoder.transformer.norm_final_attn.\1"),
    (r"(mask_decoder\.transformer\..+)", r"\1"),
    (r"mask_decoder\.(iou_token|mask_tokens)\.weight", r"mask_decoder.\1.weight"),
    (r"mask_decoder\.upscale_conv1\.(\w+)", r"mask_decoder.output_upscaling.0.\1"),
    (r"mask_decoder\.upscale_layer_norm\.(\w+)", r"mask_decoder.output_upscaling.1.\1"),
    (r"mask_decoder\.upscale_conv2\.(\w+)", r"mask_decoder.output_upscaling.3.\1"),
    (r"(mask_decoder\.(?:output_hypernetworks_mlps\.\d|iou_prediction_head))\.proj_in\.(\w+)", r"\1.layers.0.\2"),
    (r"(mask_decoder\.(?:output_hypernetworks_mlps\.\d|iou_prediction_head))\.layers\.0\.(\w+)", r"\1.layers.1.\2"),
    (r"(mask_decoder\.(?:output_hypernetworks_mlps\.\d|iou_prediction_head))\.proj_out\.(\w+)", r"\1.layers.2.\2"),
)  # fmt: skip
"""What is not of the image encoder. Some of these names mean other tensors in official checkpoints."""


def is_transformers(keys: Iterable[str]) -> bool:
    """Whether a checkpoint has the names of the transformers library."""
    return any(key.startswith("vision_encoder.") for key in keys)


def rename_sam(raw: Mapping[str, Value], encoder_rules: KeyRules) -> dict[str, Value]:
    """The tensors of a checkpoint, official or of the transformers library, under our names."""
    rules = (*encoder_rules, *SAM_RULES) if is_transformers(raw) else encoder_rules
    renamed = ((rename_key(key, rules), value) for key, value in raw.items())
    return {key: value for key, value in renamed if key is not None}
