"""The modules of SAM with the constructors and signatures of the official code."""

from segany.compat.segment_anything.modeling.image_encoder import ImageEncoderViT
from segany.compat.segment_anything.modeling.mask_decoder import MaskDecoder
from segany.compat.segment_anything.modeling.prompt_encoder import PromptEncoder
from segany.compat.segment_anything.modeling.sam import Sam
from segany.compat.segment_anything.modeling.transformer import TwoWayTransformer

__all__ = ["ImageEncoderViT", "MaskDecoder", "PromptEncoder", "Sam", "TwoWayTransformer"]
