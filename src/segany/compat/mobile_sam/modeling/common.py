"""Layers that the modules share, as in `segment_anything`."""

from segany.compat.segment_anything.modeling.common import LayerNorm2d, MLPBlock

__all__ = ["LayerNorm2d", "MLPBlock"]
