"""Builders of MobileSAM and the SAM models, by name as in the official code."""

from __future__ import annotations

from segany.compat.mobile_sam.modeling import Sam, TinyViT
from segany.compat.segment_anything import (
    build_sam,
    build_sam_vit_b,
    build_sam_vit_h,
    build_sam_vit_l,
)
from segany.compat.segment_anything import sam_model_registry as vit_registry
from segany.compat.segment_anything.build_sam import Checkpoint, build_model

__all__ = [
    "build_sam",
    "build_sam_vit_b",
    "build_sam_vit_h",
    "build_sam_vit_l",
    "build_sam_vit_t",
    "sam_model_registry",
]


def build_sam_vit_t(checkpoint: Checkpoint = None) -> Sam:
    """Build MobileSAM; see `segany.compat.segment_anything.build_sam_vit_h`."""
    return build_model(TinyViT, checkpoint)


sam_model_registry = {**vit_registry, "vit_t": build_sam_vit_t}
