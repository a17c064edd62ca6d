"""Resizing of images and scaling of coordinates to the input of MobileSAM."""

from segany.compat.segment_anything.utils.transforms import ResizeLongestSide

__all__ = ["ResizeLongestSide"]
