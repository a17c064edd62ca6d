"""Checkpoints to state dicts under our names, which are those of the official checkpoints.

Two formats are known: the official one (`.pth`, `.pt`) and that of the transformers library
(`.safetensors`). Every renaming is written down here; whatever no rule covers is reported.
"""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from segany.core.errors import CheckpointError
from segany.models.registry import MODELS, ModelSpec

StateDict = dict[str, Tensor]

UNUSED_OFFICIAL = ("image_encoder.head.", "image_encoder.norm_head.")
"""TinyViT's classification head, which MobileSAM's checkpoint carries and never runs."""

WRAPPERS = ("model", "state_dict")
"""Keys under which training scripts put the state dict."""

# Rules are tried in order, each on the whole key; the first that matches renames it.
_TRANSFORMERS_RULES: tuple[tuple[str, str | None], ...] = (
    (r"vision_encoder\.pos_embed", "image_encoder.pos_embed"),
    (r"vision_encoder\.patch_embed\.projection\.(\w+)", r"image_encoder.patch_embed.proj.\1"),
    (r"vision_encoder\.layers\.(\d+)\.layer_norm([12])\.(\w+)", r"image_encoder.blocks.\1.norm\2.\3"),
    (r"vision_encoder\.layers\.(\d+)\.((?:attn|mlp)\..+)", r"image_encoder.blocks.\1.\2"),
    (r"vision_encoder\.neck\.conv1\.weight", "image_encoder.neck.0.weight"),
    (r"vision_encoder\.neck\.layer_norm1\.(\w+)", r"image_encoder.neck.1.\1"),
    (r"vision_encoder\.neck\.conv2\.weight", "image_encoder.neck.2.weight"),
    (r"vision_encoder\.neck\.layer_norm2\.(\w+)", r"image_encoder.neck.3.\1"),
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

# What SAM 2 has beside what `_TRANSFORMERS_RULES` covers, tried before those. Transformers' `Sam2Model` and
# `Sam2VideoModel` have the same names; the image model merely leaves the memory out when it loads.
_TRANSFORMERS_SAM2_RULES: tuple[tuple[str, str], ...] = (
    (r"vision_encoder\.backbone\.(pos_embed\w*)", r"image_encoder.trunk.\1"),
    (r"vision_encoder\.backbone\.patch_embed\.projection\.(\w+)", r"image_encoder.trunk.patch_embed.proj.\1"),
    (r"vision_encoder\.backbone\.blocks\.(\d+)\.layer_norm([12])\.(\w+)", r"image_encoder.trunk.blocks.\1.norm\2.\3"),
    (r"vision_encoder\.backbone\.(blocks\.\d+\.mlp)\.proj_in\.(\w+)", r"image_encoder.trunk.\1.layers.0.\2"),
    (r"vision_encoder\.backbone\.(blocks\.\d+\.mlp)\.proj_out\.(\w+)", r"image_encoder.trunk.\1.layers.1.\2"),
    (r"vision_encoder\.backbone\.blocks\.(.+)", r"image_encoder.trunk.blocks.\1"),
    (r"vision_encoder\.neck\.convs\.(\d)\.(\w+)", r"image_encoder.neck.convs.\1.conv.\2"),
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

_SAM2_POINT_KINDS = "prompt_encoder.point_embed.weight"
"""In transformers' SAM 2 one table, [4, C], of what is four tables elsewhere."""


def read_checkpoint(path: Path) -> StateDict:
    """The tensors of a checkpoint file, in either format, under our names.

    Raises:
        CheckpointError: the file is missing, unreadable, truncated, holds more than tensors, or is no checkpoint.
    """
    _require_readable(path)
    raw = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    return rename_keys(raw)


def _require_readable(path: Path) -> None:
    """Say what the disk refuses: the readers below take some refusals for a missing or a damaged file."""
    try:
        if not path.is_file():
            raise CheckpointError(f"There is no checkpoint file at {path}.")
        path.open("rb").close()
    except OSError as error:
        raise CheckpointError(f"The checkpoint {path} cannot be read: {error.strerror or error}.") from error


def rename_keys(raw: Mapping[str, Tensor]) -> StateDict:
    """State dict of either format to our names. Keys that no rule covers keep theirs and are reported later."""
    if not any(key.startswith("vision_encoder.") for key in raw):
        return {key: value for key, value in raw.items() if not key.startswith(UNUSED_OFFICIAL)}
    if any(key.startswith("vision_encoder.backbone.") for key in raw):
        return _rename_transformers_sam2(raw)
    renamed = ((_rename_transformers(key), value) for key, value in raw.items())
    return {key: value for key, value in renamed if key is not None}


def _rename_transformers(key: str) -> str | None:
    return _rename(key, _TRANSFORMERS_RULES)


def _rename_transformers_sam2(raw: Mapping[str, Tensor]) -> StateDict:
    state: StateDict = {}
    for key, value in raw.items():
        if key == _SAM2_POINT_KINDS:
            state |= {f"sam_prompt_encoder.point_embeddings.{i}.weight": row[None] for i, row in enumerate(value)}
            continue
        # One rule brings what only SAM 2 has to official names, another what both have to those of SAM.
        name = _rename_transformers(_rename(key, _TRANSFORMERS_SAM2_RULES) or key)
        if name is not None:
            state[re.sub(r"^(prompt_encoder|mask_decoder)\.", r"sam_\1.", name)] = value
    return state


def _rename(key: str, rules: Sequence[tuple[str, str | None]]) -> str | None:
    for pattern, replacement in rules:
        if match := re.fullmatch(pattern, key):
            return None if replacement is None else match.expand(replacement)
    return key


def _read_safetensors(path: Path) -> StateDict:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # as below
        reason = str(error) or type(error).__name__
        raise CheckpointError(f"{path} is no readable safetensors file: {reason}. Fetch or copy it again.") from error


def _read_pickle(path: Path) -> StateDict:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is damaged, or holds more than tensors. segany loads tensors only, because anything "
            "else in a checkpoint could run code. Save its state dict alone and load that."
        ) from error
    except Exception as error:  # damaged bytes steer the unpickler into errors of nearly every kind
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is no readable checkpoint ({reason}). Fetch or copy it again.") from error
    for wrapper in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in loaded.items()
    ):
        raise CheckpointError(f"{path} holds no state dict (names and tensors), so it is no checkpoint.")
    return dict(loaded)


def check_state(state: StateDict, spec: ModelSpec, source: Path) -> None:
    """Raise `CheckpointError` unless `state` holds exactly the tensors of that model.

    The message names what is missing, unexpected or of another shape, and the model it looks like.
    """
    problems = _differences(state, _shapes(spec))
    if not problems:
        return
    alike = matching_spec(state)
    hint = f" It holds the weights of {alike.name!r}: load it as that." if alike else ""
    raise CheckpointError(f"{source} does not fit the model {spec.name!r}.{hint}\n" + "\n".join(problems))


def matching_spec(state: StateDict) -> ModelSpec | None:
    """The registered model whose tensors these are, by name and shape, or None."""
    return next((spec for spec in MODELS.values() if not _differences(state, _shapes(spec))), None)


def nearest_spec(state: StateDict) -> ModelSpec:
    """The registered model that shares the most tensors with these, by name and shape."""
    found = {(key, tuple(value.shape)) for key, value in state.items()}
    return max(MODELS.values(), key=lambda spec: len(found & set(_shapes(spec).items())))


@lru_cache
def _shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in spec.build_empty().state_dict().items()}


def _differences(state: StateDict, expected: Mapping[str, tuple[int, ...]]) -> list[str]:
    """One line for each kind of difference; none where the state fits."""
    wrong = [
        f"{key} {list(state[key].shape)} instead of {list(shape)}"
        for key, shape in expected.items()
        if key in state and tuple(state[key].shape) != shape
    ]
    lines = {
        "missing": [key for key in expected if key not in state],
        "unexpected": [key for key in state if key not in expected],
        "of another shape": wrong,
    }
    return [f"  {len(keys)} {kind}: {_some(keys)}" for kind, keys in lines.items() if keys]


def _some(names: list[str], shown: int = 4) -> str:
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f", and {rest} more" if rest > 0 else "")


def encoder_id(module: nn.Module) -> str:
    """The digest of a module's weights; see `weights_digest`."""
    return weights_digest(module.state_dict())


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """A digest of weights, the same on every device and in every run: 16 hexadecimal digits.

    It covers all names and shapes, and evenly spaced values of each tensor: all of them up to 127, else
    64 to 127 of them, as float32. A training moves every tensor and so changes it, at a fraction of the
    cost of hashing everything; an edit of a few values may not. The dtype is no part of it.
    """
    digest = hashlib.sha256()
    for key, value in sorted(state.items()):
        digest.update(f"{key}{tuple(value.shape)}".encode())
        digest.update(value.flatten()[:: max(1, value.numel() // 64)].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
