"""The automatic mask generator of MobileSAM, which is that of SAM."""

from segany.compat.segment_anything.automatic_mask_generator import SamAutomaticMaskGenerator

__all__ = ["SamAutomaticMaskGenerator"]
