"""The mask decoder, as in `segment_anything`."""

from segany.compat.segment_anything.modeling.mask_decoder import MLP, MaskDecoder

__all__ = ["MLP", "MaskDecoder"]
