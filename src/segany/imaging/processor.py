"""Images to the input of a model, and its low-res logits back to the size of the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segany.core.arrays import BoolArray, FloatArray, SizeHW
from segany.core.preprocessing import Preprocessing
from segany.imaging.image import ImageSource, read_image
from segany.imaging.measure import Logits, MaskMeasures, measure_masks
from segany.imaging.resize import NUMPY, Matmul, resize_pixels, upscale_logits, upscale_masks


class ImageProcessor:
    """What is done to an image before a model, and to logits after it.

    Attributes:
        preprocessing: of the model.
        matmul: multiplies matrices; what computes beside a runtime's threads should be that runtime.
    """

    matmul: Matmul = NUMPY

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing

    def preprocess(self, images: Sequence[ImageSource]) -> FloatArray:
        """Decode, resize, normalize and pad.

        Args:
            images: of any sizes, as for `read_image`.

        Returns:
            The input of the image encoder, float32 [B, 3, S, S].

        Raises:
            ImageError: an image is missing, unreadable, too large, empty, or not made of pixels.
        """
        preprocessing = self.preprocessing
        size = preprocessing.input_size
        mean, std = (np.array(values, dtype=np.float32) for values in (preprocessing.mean_rgb, preprocessing.std_rgb))
        pixels = np.zeros((len(images), 3, size, size), dtype=np.float32)
        for row, image in zip(pixels, images, strict=True):
            resized = resize_pixels(read_image(image), preprocessing)
            row[:, : resized.shape[0], : resized.shape[1]] = ((resized - mean) / std).transpose(2, 0, 1)
        return pixels

    def upscale(self, low_res: FloatArray, size_hw: SizeHW) -> FloatArray:
        """Low-res logits [P, M, h, w] to logits at the size of the image, [P, M, H, W]."""
        return upscale_logits(low_res, self.preprocessing, size_hw, self.matmul)

    def upscale_masks(self, low_res: FloatArray, size_hw: SizeHW) -> BoolArray:
        """Low-res logits [P, M, h, w] to masks at the size of the image, [P, M, H, W]."""
        return upscale_masks(low_res, self.preprocessing, size_hw, self.matmul)

    def measure(self, low_res: Logits, size_hw: SizeHW, offset: float) -> MaskMeasures:
        """Area, stability and box that masks have at the size of the image; see `measure_masks`."""
        return measure_masks(low_res, self.preprocessing, size_hw, offset, self.matmul)
