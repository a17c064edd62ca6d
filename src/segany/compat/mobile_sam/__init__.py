"""Drop-in module for the official package `mobile_sam`: that of `segment_anything`, with MobileSAM as `vit_t`."""

from segany.compat.mobile_sam.build_sam import (
    build_sam,
    build_sam_vit_b,
    build_sam_vit_h,
    build_sam_vit_l,
    build_sam_vit_t,
    sam_model_registry,
)
from segany.compat.segment_anything.automatic_mask_generator import SamAutomaticMaskGenerator
from segany.compat.segment_anything.predictor import SamPredictor

__all__ = [
    "SamAutomaticMaskGenerator",
    "SamPredictor",
    "build_sam",
    "build_sam_vit_b",
    "build_sam_vit_h",
    "build_sam_vit_l",
    "build_sam_vit_t",
    "sam_model_registry",
]
