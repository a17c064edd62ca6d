"""Names of SAM 2's tensors in checkpoints of the transformers library, and ours, which are the official ones.

Its `Sam2Model` and `Sam2VideoModel` have the same names; the image model merely leaves the memory out when it loads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from segany.models.configs import KeyRules, rename_key
from segany.models.sam.keys import SAM_RULES, is_transformers

HIERA_RULES: KeyRules = (
    (r"vision_encoder\.backbone\.(pos_embed\w*)", r"image_encoder.trunk.\1"),
    (r"vision_encoder\.backbone\.patch_embed\.projection\.(\w+)", r"image_encoder.trunk.patch_embed.proj.\1"),
    (r"vision_encoder\.backbone\.blocks\.(\d+)\.layer_norm([12])\.(\w+)", r"image_encoder.trunk.blocks.\1.norm\2.\3"),
    (r"vision_encoder\.backbone\.(blocks\.\d+\.mlp)\.proj_in\.(\w+)", r"image_encoder.trunk.\1.layers.0.\2"),
    (r"vision_encoder\.backbone\.(blocks\.\d+\.mlp)\.proj_out\.(\w+)", r"image_encoder.trunk.\1.layers.1.\2"),
    (r"vision_encoder\.backbone\.blocks\.(.+)", r"image_encoder.trunk.blocks.\1"),
    (r"vision_encoder\.neck\.convs\.(\d)\.(\w+)", r"image_encoder.neck.convs.\1.conv.\2"),
)  # fmt: skip

SAM2_RULES: KeyRules = (
    (r"(mask_decoder\.transformer\.layers\.\d)\.mlp\.proj_in\.(\w+)", r"\1.mlp.layers.0.\2"),
    (r"(mask_decoder\.transformer\.layers\.\d)\.mlp\.proj_out\.(\w+)", r"\1.mlp.layers.1.\2"),
    (r"(mask_decoder\.transformer\..+)\.o_proj\.(\w+)", r"\1.out_proj.\2"),
    (r"(mask_decoder\.pred_obj_score_head)\.proj_in\.(\w+)", r"\1.layers.0.\2"),
    (r"(mask_decoder\.pred_obj_score_head)\.layers\.0\.(\w+)", r"\1.layers.1.\2"),
    (r"(mask_decoder\.pred_obj_score_head)\.proj_out\.(\w+)", r"\1.layers.2.\2"),
    (r"object_pointer_proj\.proj_in\.(\w+)", r"obj_ptr_proj.layers.0.\1"),
    (r"object_pointer_proj\.layers\.0\.(\w+)", r"obj_ptr_proj.layers.1.\1"),
    (r"object_pointer_proj\.proj_out\.(\w+)", r"obj_ptr_proj.layers.2.\1"),
    (r"temporal_positional_encoding_projection_layer\.(\w+)", r"obj_ptr_tpos_proj.\1"),
    (r"no_memory_embedding", "no_mem_embed"),
    (r"no_memory_positional_encoding", "no_mem_pos_enc"),
    (r"memory_temporal_positional_encoding", "maskmem_tpos_enc"),
    (r"no_object_pointer", "no_obj_ptr"),
    (r"occlusion_spatial_embedding_parameter", "no_obj_embed_spatial"),
    (r"memory_attention\.layer_norm\.(\w+)", r"memory_attention.norm.\1"),
    (r"(memory_attention\.layers\.\d)\.layer_norm([123])\.(\w+)", r"\1.norm\2.\3"),
    (r"(memory_attention\.layers\.\d\.\w+)\.o_proj\.(\w+)", r"\1.out_proj.\2"),
    *(
        rule
        for layer in range(4)
        for rule in (
            (rf"memory_encoder\.mask_downsampler\.layers\.{layer}\.conv\.(\w+)",
             rf"memory_encoder.mask_downsampler.encoder.{3 * layer}.\1"),
            (rf"memory_encoder\.mask_downsampler\.layers\.{layer}\.layer_norm\.(\w+)",
             rf"memory_encoder.mask_downsampler.encoder.{3 * layer + 1}.\1"),
        )
    ),
    (r"memory_encoder\.mask_downsampler\.final_conv\.(\w+)", r"memory_encoder.mask_downsampler.encoder.12.\1"),
    (r"memory_encoder\.feature_projection\.(\w+)", r"memory_encoder.pix_feat_proj.\1"),
    (r"memory_encoder\.projection\.(\w+)", r"memory_encoder.out_proj.\1"),
    (r"memory_encoder\.memory_fuser\.layers\.(\d)\.scale", r"memory_encoder.fuser.layers.\1.gamma"),
    (r"memory_encoder\.memory_fuser\.layers\.(\d)\.depthwise_conv\.(\w+)", r"memory_encoder.fuser.layers.\1.dwconv.\2"),
    (r"memory_encoder\.memory_fuser\.layers\.(\d)\.layer_norm\.(\w+)", r"memory_encoder.fuser.layers.\1.norm.\2"),
    (r"memory_encoder\.memory_fuser\.(layers\.\d)\.pointwise_conv(\d)\.(\w+)", r"memory_encoder.fuser.\1.pwconv\2.\3"),
)  # fmt: skip
"""What is neither of the image encoder nor in `SAM_RULES`, which come after these."""

_POINT_KINDS = "prompt_encoder.point_embed.weight"
"""One table, [4, C], of what is four tables elsewhere."""


def rename_sam2(raw: Mapping[str, Any], encoder_rules: KeyRules) -> dict[str, Any]:
    """The tensors of a checkpoint, official or of the transformers library, under our names."""
    if not is_transformers(raw):
        renamed = ((rename_key(key, encoder_rules), value) for key, value in raw.items())
        return {key: value for key, value in renamed if key is not None}
    state: dict[str, Any] = {}
    for key, value in raw.items():
        if key == _POINT_KINDS:
            state |= {f"sam_prompt_encoder.point_embeddings.{i}.weight": row[None] for i, row in enumerate(value)}
            continue
        # The first rules bring what only SAM 2 has to official names, the others what both have to those of SAM.
        name: str | None = key
        for rules in ((*encoder_rules, *SAM2_RULES), SAM_RULES):
            name = None if name is None else rename_key(name, rules)
        if name is not None:
            state[re.sub(r"^(prompt_encoder|mask_decoder)\.", r"sam_\1.", name)] = value
    return state
