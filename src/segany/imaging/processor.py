"""The image processor: preprocessing of images, and upscaling of low-res logits to the size of the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segany.core.arrays import BoolArray, FloatArray, SizeHW
from segany.core.preprocessing import Preprocessing
from segany.imaging.image import ImageSource, read_image
from segany.imaging.measure import Logits, MaskMeasures, measure_masks
from segany.imaging.resize import NUMPY, Matmul, resize_pixels, upscale_logits, upscale_masks


class ImageProcessor:
    """Preprocesses images for a model and postprocesses its low-res logits.

    Attributes:
        preprocessing: preprocessing of the model.
        matmul: implementation of matrix multiplication; PyTorch models use PyTorch, so that two thread pools do not
            compete.
    """

    matmul: Matmul = NUMPY

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing

    def preprocess(self, images: Sequence[ImageSource]) -> FloatArray:
        """Decode, resize, normalize and pad images.

        Args:
            images: images of any sizes, as for `read_image`.

        Returns:
            The input of the image encoder, float32 [B, 3, S, S].

        Raises:
            ImageError: as for `read_image`.
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
        """Upscale low-res logits, float32 [P, M, h, w], to the size of the image: float32 [P, M, H, W]."""
        return upscale_logits(low_res, self.preprocessing, size_hw, self.matmul)

    def upscale_masks(self, low_res: FloatArray, size_hw: SizeHW) -> BoolArray:
        """Upscale and threshold low-res logits, float32 [P, M, h, w]: bool [P, M, H, W]."""
        return upscale_masks(low_res, self.preprocessing, size_hw, self.matmul)

    def measure(self, low_res: Logits, size_hw: SizeHW, offset: float) -> MaskMeasures:
        """Measure area, stability score and box of masks at the size of the image; see `measure_masks`."""
        return measure_masks(low_res, self.preprocessing, size_hw, offset, self.matmul)
