"""The modules of MobileSAM and SAM with the constructors and signatures of the official code."""

from segany.compat.mobile_sam.modeling.tiny_vit_sam import TinyViT
from segany.compat.segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)

__all__ = ["ImageEncoderViT", "MaskDecoder", "PromptEncoder", "Sam", "TinyViT", "TwoWayTransformer"]
