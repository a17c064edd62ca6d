"""Resizing of images, scaling of coordinates and upscaling of masks for SAM 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from segany.core.preprocessing import Preprocessing
from segany.imaging.components import find_components
from segany.imaging.interpolate import resize_smoothly
from segany.kernels.processor import TensorProcessor

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class SAM2Transforms(nn.Module):
    """Converts images to the input of the model, and its outputs to masks of the image.

    Attributes:
        resolution: side of the square input in pixels.
        mask_threshold: logits above it are inside a mask.
        max_hole_area, max_sprinkle_area: holes and islands of low-res masks of up to this area are removed; as in the
            official code, on CUDA only.
    """

    def __init__(
        self, resolution: int, mask_threshold: float, max_hole_area: float = 0.0, max_sprinkle_area: float = 0.0
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.mask_threshold = mask_threshold
        self.max_hole_area, self.max_sprinkle_area = max_hole_area, max_sprinkle_area
        self.mean, self.std = list(_MEAN), list(_STD)

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing as segany's processors take it."""
        return Preprocessing(self.resolution, "square")

    def forward(self, x: npt.NDArray[Any] | Image.Image) -> Tensor:
        """Resize and normalize an image, [H, W, 3] in units of 0..255 (uint8) or 0..1 (float), to [3, S, S]."""
        pixels = np.asarray(x)
        if pixels.dtype == np.uint8:
            like = torch.empty(0)
            return TensorProcessor(self.preprocessing).tensor([np.ascontiguousarray(pixels)], like)[0]
        image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float()[None]
        resized = resize_smoothly(image, (self.resolution, self.resolution))[0]
        mean, std = (resized.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (resized - mean) / std

    def forward_batch(self, img_list: Sequence[npt.NDArray[Any]]) -> Tensor:
        """Resize and normalize images of any sizes: [B, 3, S, S]."""
        return torch.stack([self(image) for image in img_list])

    def transform_coords(
        self, coords: Tensor, normalize: bool = False, orig_hw: tuple[int, int] | None = None
    ) -> Tensor:
        """Scale points [..., 2] to pixels of the model's input.

        Args:
            coords: points in pixels of the image if `normalize` is true, else in 0..1.
            normalize: whether to divide by the size of the image.
            orig_hw: (H, W) of the image.
        """
        if normalize:
            assert orig_hw is not None
            coords = coords / coords.new_tensor(orig_hw[::-1])
        return coords * self.resolution

    def transform_boxes(self, boxes: Tensor, normalize: bool = False, orig_hw: tuple[int, int] | None = None) -> Tensor:
        """Scale boxes [P, 4] or [4] to pixels of the model's input, as corners [P, 2, 2]; see `transform_coords`."""
        return self.transform_coords(boxes.reshape(-1, 2, 2), normalize, orig_hw)

    def postprocess_masks(self, masks: Tensor, orig_hw: tuple[int, int]) -> Tensor:
        """Upscale low-res logits [P, M, 4h, 4w] to the size of the image (H, W): float32 [P, M, H, W]."""
        return F.interpolate(self.without_small_regions(masks.float()), tuple(orig_hw), mode="bilinear")

    def upscale_masks(self, masks: Tensor, orig_hw: tuple[int, int]) -> Tensor:
        """Upscale and threshold low-res logits, bool [P, M, H, W], as `postprocess_masks` does."""
        if masks.device.type != "cpu":
            return self.postprocess_masks(masks, orig_hw) > self.mask_threshold
        logits = (masks.detach().float() - self.mask_threshold).numpy()
        height, width = orig_hw
        return torch.from_numpy(TensorProcessor(self.preprocessing).upscale_masks(logits, (height, width)))

    def without_small_regions(self, masks: Tensor) -> Tensor:
        """Fill small holes of low-res logits with a value above the threshold, and small islands with one below it."""
        if masks.device.type != "cuda":
            return masks
        for area, sign in ((self.max_hole_area, 1.0), (self.max_sprinkle_area, -1.0)):
            if area > 0:
                marked = masks <= self.mask_threshold if sign > 0 else masks > self.mask_threshold
                masks = torch.where(small_regions(marked, area), self.mask_threshold + 10.0 * sign, masks)
        return masks


def small_regions(marked: Tensor, max_area: float) -> Tensor:
    """Mark the connected components of at most `max_area` pixels of maps, bool [..., H, W]."""
    found = np.zeros(marked.shape, dtype=np.bool_)
    maps = marked.cpu().numpy()
    for one, small in zip(maps.reshape(-1, *maps.shape[-2:]), found.reshape(-1, *maps.shape[-2:]), strict=True):
        parts = find_components(one)
        for index in np.flatnonzero((parts.areas <= max_area)[parts.component]):
            small.reshape(-1)[parts.start[index] : parts.stop[index]] = True
    return torch.from_numpy(found).to(marked.device)
