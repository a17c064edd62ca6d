"""The image predictor of MobileSAM, which is that of SAM."""

from segany.compat.segment_anything.predictor import SamPredictor

__all__ = ["SamPredictor"]
