"""Builders of the SAM models, by name as in the official code."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from segany.compat.configs import given_config
from segany.compat.segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from segany.models.convert import read_checkpoint
from segany.models.image_encoder import ImageEncoder
from segany.models.registry import MODELS
from segany.models.sam.config import VitConfig
from segany.nn.init_empty import init_empty_weights

Checkpoint = str | Path | None


def build_sam_vit_h(checkpoint: Checkpoint = None) -> Sam:
    """Build SAM ViT-H.

    Args:
        checkpoint: the official checkpoint, or another one with its keys; by default weights are random.

    Raises:
        CheckpointError: the checkpoint cannot be read, or holds more than tensors.
        RuntimeError: its tensors are not those of the model.
    """
    return _build_vit("sam_vit_h", checkpoint)


def build_sam_vit_l(checkpoint: Checkpoint = None) -> Sam:
    """Build SAM ViT-L; see `build_sam_vit_h`."""
    return _build_vit("sam_vit_l", checkpoint)


def build_sam_vit_b(checkpoint: Checkpoint = None) -> Sam:
    """Build SAM ViT-B; see `build_sam_vit_h`."""
    return _build_vit("sam_vit_b", checkpoint)


build_sam = build_sam_vit_h

sam_model_registry: dict[str, Callable[..., Sam]] = {
    "default": build_sam_vit_h,
    "vit_h": build_sam_vit_h,
    "vit_l": build_sam_vit_l,
    "vit_b": build_sam_vit_b,
}


def _build_vit(name: str, checkpoint: Checkpoint) -> Sam:
    config = MODELS[name].config.encoder
    assert isinstance(config, VitConfig)

    def build_encoder() -> ImageEncoder:
        return ImageEncoderViT(
            img_size=config.input_size,
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.heads,
            use_rel_pos=True,
            window_size=config.window_size,
            global_attn_indexes=config.global_blocks,
        )

    return build_model(build_encoder, checkpoint)


def build_model(build_encoder: Callable[[], ImageEncoder], checkpoint: Checkpoint) -> Sam:
    """Build a model around an image encoder, and load a checkpoint unless it is None."""
    config = given_config()
    width, side = config.encoder.out_channels, config.embedding_size
    # With a checkpoint, random weights would only be overwritten.
    with nullcontext() if checkpoint is None else init_empty_weights():
        encoder = build_encoder()
        prompt_encoder = PromptEncoder(width, (side, side), (config.input_size,) * 2, config.mask_channels)
        decoder = config.decoder
        transformer = TwoWayTransformer(decoder.depth, width, decoder.heads, decoder.mlp_width)
        mask_decoder = MaskDecoder(transformer_dim=width, transformer=transformer)
    sam = Sam(encoder, prompt_encoder, mask_decoder)
    if checkpoint is not None:
        sam.load_state_dict(read_checkpoint(Path(checkpoint)), assign=True)
    return sam.float().eval()
