"""The image predictor of SAM, with the names and state of the official one."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segany.compat.errors import StateError, require
from segany.compat.segment_anything.modeling import Sam
from segany.compat.segment_anything.utils.transforms import ResizeLongestSide

Array = npt.NDArray[Any]


class SamPredictor:
    """Embeds an image with `set_image`, then predicts masks for any number of prompts on it.

    It may be subclassed. Unlike `segany.ImagePredictor` it has a state, so that threads must not share it.

    Attributes:
        model: the model.
        transform: resizes images and scales coordinates.
        is_image_set: whether there is an image.
        features: the image embedding [1, C, h, w]; may be assigned, together with the sizes and `is_image_set`.
        original_size, input_size: (H, W) of the image, and after resizing.
    """

    features: Tensor | None
    original_size: tuple[int, ...]
    input_size: tuple[int, ...]

    def __init__(self, sam_model: Sam) -> None:
        super().__init__()
        self.model = sam_model
        self.transform = ResizeLongestSide(cast(int, sam_model.image_encoder.img_size))
        self.reset_image()

    def set_image(self, image: Array, image_format: str = "RGB") -> None:
        """Embed an image, uint8 [H, W, 3].

        Raises:
            ArgumentError: `image_format` is neither "RGB" nor "BGR", or the image has no three channels.
        """
        require(image_format in ("RGB", "BGR"), f"image_format must be 'RGB' or 'BGR', got {image_format!r}.")
        if image_format != self.model.image_format:
            image = image[..., ::-1]
        resized = self.transform.apply_image(image)
        require(resized.ndim == 3, f"An image must be uint8 [H, W, 3], got {list(image.shape)}.")
        pixels = torch.as_tensor(resized, device=self.device).permute(2, 0, 1).contiguous()[None]
        self.set_torch_image(pixels, (image.shape[0], image.shape[1]))

    @torch.no_grad()
    def set_torch_image(self, transformed_image: Tensor, original_image_size: tuple[int, ...]) -> None:
        """Embed an image that was resized by `ResizeLongestSide`.

        Args:
            transformed_image: [1, 3, h, w] in units of 0..255.
            original_image_size: (H, W) before resizing.

        Raises:
            ArgumentError: the image has another shape.
        """
        size = cast(int, self.model.image_encoder.img_size)
        shape = list(transformed_image.shape)
        require(
            len(shape) == 4 and shape[1] == 3 and max(shape[2:]) == size,
            f"The image must be [1, 3, h, w] with a longer side of {size} pixels, got {shape}.",
        )
        self.reset_image()
        self.original_size = original_image_size
        self.input_size = tuple(shape[2:])
        self.features = self.model.image_encoder(self.model.preprocess(transformed_image))
        self.is_image_set = True

    def predict(
        self,
        point_coords: Array | None = None,
        point_labels: Array | None = None,
        box: Array | None = None,
        mask_input: Array | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[Array, Array, Array]:
        """Predict masks for one prompt.

        Args:
            point_coords, point_labels: points [N, 2] in pixels of the image, and their labels [N]: 1 for foreground, 0
                for background.
            box: [4], left, top, right, bottom in pixels of the image.
            mask_input: low-res logits [1, 4h, 4w] of an earlier prediction.
            multimask_output: predict three masks instead of one.
            return_logits: return logits instead of boolean masks.

        Returns:
            Masks [M, H, W], predicted IoU [M] and low-res logits [M, 4h, 4w].

        Raises:
            StateError: no image is set.
            ArgumentError: there are points without labels.
        """
        self._check_image()
        points = labels = boxes = masks = None
        if point_coords is not None:
            require(point_labels is not None, "point_labels must be given with point_coords.")
            scaled = self.transform.apply_coords(np.asarray(point_coords), self.original_size)
            points = torch.as_tensor(scaled, dtype=torch.float, device=self.device)[None]
            labels = torch.as_tensor(point_labels, dtype=torch.int, device=self.device)[None]
        if box is not None:
            scaled = self.transform.apply_boxes(np.asarray(box), self.original_size)
            boxes = torch.as_tensor(scaled, dtype=torch.float, device=self.device)
        if mask_input is not None:
            masks = torch.as_tensor(mask_input, dtype=torch.float, device=self.device)[None]
        found = self.predict_torch(points, labels, boxes, masks, multimask_output, return_logits=return_logits)
        # NumPy has no bfloat16, which autocast may leave.
        rows = (one[0].detach().cpu() for one in found)
        chosen, iou, low_res = (one.numpy() if one.dtype == torch.bool else one.float().numpy() for one in rows)
        return chosen, iou, low_res

    @torch.no_grad()
    def predict_torch(
        self,
        point_coords: Tensor | None,
        point_labels: Tensor | None,
        boxes: Tensor | None = None,
        mask_input: Tensor | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Predict masks for P prompts, whose coordinates are in pixels of the resized image.

        Args:
            point_coords, point_labels: [P, N, 2] and [P, N].
            boxes: [P, 4].
            mask_input: [P, 1, 4h, 4w].
            multimask_output, return_logits: as for `predict`.

        Returns:
            Masks [P, M, H, W], predicted IoU [P, M] and low-res logits [P, M, 4h, 4w].

        Raises:
            StateError: no image is set.
        """
        self._check_image()
        model = self.model
        points = None if point_coords is None else (point_coords, point_labels)
        sparse, dense = model.prompt_encoder(points=points, boxes=boxes, masks=mask_input)
        low_res, iou = model.mask_decoder(
            image_embeddings=self.features,
            image_pe=model.prompt_encoder.get_dense_pe(),  # type: ignore[operator]
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask_output,
        )
        upscale = model.postprocess_masks if return_logits else model.upscale_masks
        return upscale(low_res, self.input_size, self.original_size), iou, low_res

    def get_image_embedding(self) -> Tensor:
        """Return the image embedding [1, C, h, w]. Raises `StateError` if no image is set."""
        self._check_image()
        assert self.features is not None
        return self.features

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.model.device

    def reset_image(self) -> None:
        """Forget the image."""
        self.is_image_set = False
        self.features = None

    def _check_image(self) -> None:
        if not self.is_image_set:
            raise StateError("There is no image yet. Call set_image first.")
