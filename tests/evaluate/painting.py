"""A model whose masks can be told by hand: it paints everything that has the color of the pixel clicked on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segany.core.arrays import BoolArray, FloatArray, IntArray, PixelArray, SizeHW
from segany.core.errors import DataError
from segany.core.instances import Instances
from segany.core.preprocessing import Preprocessing
from segany.data.item import AnnotatedImage
from segany.imaging.processor import ImageProcessor

SIDE = 64
CONFIDENCE = (0.5, 0.9, 0.7)
"""Predicted IoU of the candidates: the right mask, everything, and the pixel alone."""


class CroppingProcessor(ImageProcessor):
    """The input has the pixels of the image and of the padding below it."""

    def upscale(self, low_res: FloatArray, size_hw: SizeHW) -> FloatArray:
        return low_res[..., : size_hw[0], : size_hw[1]]

    def upscale_masks(self, low_res: FloatArray, size_hw: SizeHW) -> BoolArray:
        return self.upscale(low_res, size_hw) > 0


class PaintingModel:
    """Images must be 64 wide and at most as high, so that input, low-res masks and image have the same pixels.

    The first click has three candidates, of which it believes most in the whole input. Further clicks add or
    take away a color from the mask before. Boxes are filled.
    """

    name, encoder_id, pads_boxes, pred_iou_thresh = "painting", "no weights", False, 0.0
    weights_id, has_memory = "no weights", False
    low_res_size = SIDE

    def __init__(self) -> None:
        self.processor = CroppingProcessor(Preprocessing(input_size=SIDE))
        self.embedded = 0
        self.prompted: list[int] = []

    def embed(self, images: Sequence[PixelArray]) -> list[tuple[FloatArray, ...]]:
        self.embedded += len(images)
        features = []
        for image in images:
            colors = np.full((1, SIDE, SIDE), -1, dtype=np.float32)
            colors[0, : image.shape[0], : image.shape[1]] = image[..., 0]
            features.append((colors,))
        return features

    def predict_low_res(
        self,
        features: Sequence[FloatArray],
        points: FloatArray,
        labels: IntArray,
        mask_logits: FloatArray | None,
        *,
        multimask: bool,
    ) -> tuple[FloatArray, FloatArray]:
        self.prompted.append(len(points))
        masks = [
            self._answer(features[0][0], xy, label, None if mask_logits is None else mask_logits[row] > 0, multimask)
            for row, (xy, label) in enumerate(zip(points.astype(int), labels, strict=True))
        ]
        scores = CONFIDENCE if multimask else (0.8,)
        return np.where(masks, 4, -4).astype(np.float32), np.tile(np.float32(scores), (len(points), 1))

    def _answer(
        self, colors: FloatArray, xy: IntArray, labels: IntArray, before: BoolArray | None, multimask: bool
    ) -> list[BoolArray]:
        painted = np.zeros_like(colors, dtype=bool)
        if 2 in labels:
            (x0, y0), (x1, y1) = xy[labels == 2][0], xy[labels == 3][0]
            painted[y0:y1, x0:x1] = True
            return [painted]
        if not multimask:
            assert before is not None
            x, y = xy[labels >= 0][-1]
            return [np.where(colors == colors[y, x], bool(labels[labels >= 0][-1]), before)]
        x, y = xy[labels == 1][0]
        painted[y, x] = True
        return [colors == colors[y, x], np.ones_like(painted), painted]


def blocks(name: str = "blocks", size_h: int = 40, empty: bool = False) -> AnnotatedImage:
    """Color 100 is a block of 10 x 20 = 200 pixels, 200 one of 6 x 6 = 36, and the ground, 0, is all else."""
    image = np.zeros((size_h, SIDE, 3), dtype=np.uint8)
    image[5:15, 5:25] = 100
    image[20:26, 40:46] = 200
    masks = [image[..., 0] == 100, image[..., 0] == 200]
    if empty:
        masks.append(np.zeros_like(masks[0]))
    return AnnotatedImage(name, image, Instances.from_masks(np.stack(masks)))


class Images:
    """A dataset in memory. Of a name without an image, it says that it is damaged."""

    def __init__(self, *images: AnnotatedImage | str) -> None:
        self.images = images
        self.reads: list[str] = []

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(one if isinstance(one, str) else one.name for one in self.images)

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> AnnotatedImage:
        one = self.images[index]
        self.reads.append(self.names[index])
        if isinstance(one, str):
            raise DataError(f"{one} is damaged.")
        return one
