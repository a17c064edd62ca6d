"""The image encoder of SAM, as in `segment_anything`."""

from segany.compat.segment_anything.modeling.image_encoder import ImageEncoderViT

__all__ = ["ImageEncoderViT"]
