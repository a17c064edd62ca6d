"""The SAM model, as in `segment_anything`."""

from segany.compat.segment_anything.modeling.sam import Sam

__all__ = ["Sam"]
