"""The image predictor of SAM 2, with the names and state of the official one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from segany.compat.errors import StateError, require
from segany.compat.sam2.modeling.sam2_base import SAM2Base
from segany.compat.sam2.utils.transforms import SAM2Transforms
from segany.core.errors import ImageError

Array = npt.NDArray[Any]


class SAM2ImagePredictor:
    """Embeds images with `set_image` or `set_image_batch`, then predicts masks for any number of prompts on them.

    Unlike `segany.ImagePredictor` it has a state, so that threads must not share it.

    Attributes:
        model: the model.
        mask_threshold: logits above it are inside a mask.
    """

    def __init__(
        self,
        sam_model: SAM2Base,
        mask_threshold: float = 0.0,
        max_hole_area: float = 0.0,
        max_sprinkle_area: float = 0.0,
    ) -> None:
        super().__init__()
        self.model = sam_model
        self.mask_threshold = mask_threshold
        self._is_image_set = self._is_batch = False
        self._features: dict[str, Any] | None = None
        self._orig_hw: list[tuple[int, int]] = []
        self._transforms = SAM2Transforms(sam_model.image_size, mask_threshold, max_hole_area, max_sprinkle_area)

    @classmethod
    def from_pretrained(
        cls,
        model_id: str,
        *,
        device: str | torch.device = "cuda",
        mode: Any = "eval",
        hydra_overrides_extra: Sequence[str] = (),
        apply_postprocessing: bool = True,
        mask_threshold: float = 0.0,
        max_hole_area: float = 0.0,
        max_sprinkle_area: float = 0.0,
    ) -> SAM2ImagePredictor:
        """Build the predictor of a Hugging Face repository; see `build_sam2_hf` and the constructor."""
        from segany.compat.sam2.build_sam import build_sam2_hf

        model = build_sam2_hf(model_id, device, mode, hydra_overrides_extra, apply_postprocessing)
        return cls(model, mask_threshold, max_hole_area, max_sprinkle_area)

    @torch.no_grad()
    def set_image(self, image: Array | Image.Image) -> None:
        """Embed an image, uint8 [H, W, 3] or a Pillow image in RGB.

        Raises:
            ImageError: it is neither an array nor a Pillow image.
        """
        self.reset_predictor()
        if not isinstance(image, (np.ndarray, Image.Image)):
            raise ImageError(f"An image must be an array or a Pillow image, got {type(image).__name__}.")
        pixels = np.asarray(image)
        self._embed([pixels])

    @torch.no_grad()
    def set_image_batch(self, image_list: list[Array]) -> None:
        """Embed images, uint8 [H, W, 3] of any sizes, for `predict_batch`.

        Raises:
            ArgumentError: it is not a list of arrays.
        """
        self.reset_predictor()
        is_list = isinstance(image_list, list) and all(isinstance(image, np.ndarray) for image in image_list)
        require(is_list, "The images must be a list of arrays [H, W, 3].")
        self._embed(image_list)
        self._is_batch = True

    def _embed(self, images: Sequence[Array]) -> None:
        for image in images:
            require(image.ndim == 3 and image.shape[2] == 3, f"An image must be [H, W, 3], got {list(image.shape)}.")
        self._orig_hw = [(image.shape[0], image.shape[1]) for image in images]
        rows = [self.model.encode_features(self._transforms(image)[None].to(self.device)) for image in images]
        embedding, stride4, stride8 = (torch.cat(parts) for parts in zip(*rows, strict=True))
        self._features = {"image_embed": embedding, "high_res_feats": [stride4, stride8]}
        self._is_image_set = True

    def predict_batch(
        self,
        point_coords_batch: Sequence[Array] | None = None,
        point_labels_batch: Sequence[Array] | None = None,
        box_batch: Sequence[Array] | None = None,
        mask_input_batch: Sequence[Array] | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> tuple[list[Array], list[Array], list[Array]]:
        """Predict masks on each image of `set_image_batch`; see `predict`.

        Returns:
            Lists with masks, predicted IoU and low-res logits of each image.

        Raises:
            ArgumentError, StateError: the images were not set with `set_image_batch`.
        """
        require(self._is_batch, "predict_batch needs images from set_image_batch.")
        self._check_image()
        rows = []
        for index in range(len(self._orig_hw)):
            points, labels, box, mask_input = (
                None if batch is None else batch[index]
                for batch in (point_coords_batch, point_labels_batch, box_batch, mask_input_batch)
            )
            rows.append(
                self._predict_arrays(
                    points, labels, box, mask_input, multimask_output, return_logits, normalize_coords, index
                )
            )
        masks, iou, low_res = (list(column) for column in zip(*rows, strict=True))
        return masks, iou, low_res

    def predict(
        self,
        point_coords: Array | None = None,
        point_labels: Array | None = None,
        box: Array | None = None,
        mask_input: Array | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> tuple[Array, Array, Array]:
        """Predict masks for one prompt, or for P prompts with a leading axis.

        Args:
            point_coords, point_labels: points [N, 2] or [P, N, 2] in pixels of the image, and their labels: 1 for
                foreground, 0 for background, -1 for padding, 2 and 3 for the corners of a box.
            box: [4] or [P, 4], left, top, right, bottom in pixels of the image.
            mask_input: low-res logits [1, 4h, 4w] or [P, 1, 4h, 4w] of an earlier prediction.
            multimask_output: predict three masks instead of one.
            return_logits: return logits instead of masks, which are 0 and 1.
            normalize_coords: whether coordinates are in pixels; else they are in 0..1.

        Returns:
            Masks float32 [M, H, W], predicted IoU [M] and low-res logits [M, 4h, 4w], with a leading axis P for several
            prompts.

        Raises:
            StateError: no image is set.
            ArgumentError: there are points without labels.
        """
        self._check_image()
        return self._predict_arrays(
            point_coords, point_labels, box, mask_input, multimask_output, return_logits, normalize_coords, -1
        )

    def _predict_arrays(
        self,
        point_coords: Array | None,
        point_labels: Array | None,
        box: Array | None,
        mask_input: Array | None,
        multimask_output: bool,
        return_logits: bool,
        normalize_coords: bool,
        img_idx: int,
    ) -> tuple[Array, Array, Array]:
        masks, points, labels, boxes = self._prep_prompts(
            point_coords, point_labels, box, mask_input, normalize_coords, img_idx
        )
        found = self._predict(points, labels, boxes, masks, multimask_output, return_logits, img_idx)
        chosen, iou, low_res = (one.squeeze(0).float().detach().cpu().numpy() for one in found)
        return chosen, iou, low_res

    def _prep_prompts(
        self,
        point_coords: Any,
        point_labels: Any,
        box: Any,
        mask_logits: Any,
        normalize_coords: bool,
        img_idx: int = -1,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
        """Convert prompts to tensors: mask logits, points, labels and boxes, in pixels of the model's input."""
        points = labels = boxes = masks = None
        orig_hw = self._orig_hw[img_idx]
        if point_coords is not None:
            require(point_labels is not None, "point_labels must be given with point_coords.")
            points = torch.as_tensor(point_coords, dtype=torch.float, device=self.device)
            points = self._transforms.transform_coords(points, normalize_coords, orig_hw)
            labels = torch.as_tensor(point_labels, dtype=torch.int, device=self.device)
            if points.dim() == 2:
                points, labels = points[None], labels[None]
        if box is not None:
            boxes = torch.as_tensor(box, dtype=torch.float, device=self.device)
            boxes = self._transforms.transform_boxes(boxes, normalize_coords, orig_hw)
        if mask_logits is not None:
            masks = torch.as_tensor(mask_logits, dtype=torch.float, device=self.device)
            masks = masks[None] if masks.dim() == 3 else masks
        return masks, points, labels, boxes

    @torch.no_grad()
    def _predict(
        self,
        point_coords: Tensor | None,
        point_labels: Tensor | None,
        boxes: Tensor | None = None,
        mask_input: Tensor | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        img_idx: int = -1,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Predict masks for P prompts in pixels of the model's input; see `predict`."""
        self._check_image()
        low_res, iou = self.predict_low_res(point_coords, point_labels, boxes, mask_input, multimask_output, img_idx)
        upscale = self._transforms.postprocess_masks if return_logits else self._transforms.upscale_masks
        return upscale(low_res, self._orig_hw[img_idx]), iou, low_res.clamp(-32.0, 32.0)

    @torch.no_grad()
    def predict_low_res(
        self,
        point_coords: Tensor | None,
        point_labels: Tensor | None,
        boxes: Tensor | None = None,
        mask_input: Tensor | None = None,
        multimask_output: bool = True,
        img_idx: int = -1,
    ) -> tuple[Tensor, Tensor]:
        """Predict low-res logits [P, M, 4h, 4w] and IoU [P, M] for P prompts in pixels of the model's input."""
        points = None if point_coords is None else (point_coords, cast(Tensor, point_labels))
        if boxes is not None:  # the corners are points before the others
            corners = boxes.reshape(-1, 2, 2)
            of_corners = torch.tensor([[2, 3]], dtype=torch.int, device=boxes.device).expand(len(corners), -1)
            points = (
                (corners, of_corners)
                if points is None
                else (
                    torch.cat([corners, points[0]], dim=1),
                    torch.cat([of_corners, points[1]], dim=1),
                )
            )
        model, features = self.model, self._features
        assert features is not None
        sparse, dense = model.sam_prompt_encoder(points=points, boxes=None, masks=mask_input)
        low_res, iou, _, _ = model.sam_mask_decoder(
            image_embeddings=features["image_embed"][img_idx][None],
            image_pe=model.sam_prompt_encoder.get_dense_pe(),  # type: ignore[operator]
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask_output,
            repeat_image=points is not None and len(points[0]) > 1,
            high_res_features=[level[img_idx][None] for level in features["high_res_feats"]],
        )
        return low_res, iou

    def get_image_embedding(self) -> Tensor:
        """Return the image embedding [B, C, h, w]. Raises `StateError` if no image is set."""
        self._check_image()
        assert self._features is not None
        return cast(Tensor, self._features["image_embed"])

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.model.device

    def reset_predictor(self) -> None:
        """Forget the images."""
        self._is_image_set = self._is_batch = False
        self._features = None
        self._orig_hw = []

    def _check_image(self) -> None:
        if not self._is_image_set:
            raise StateError("There is no image yet. Call set_image first, or set_image_batch before predict_batch.")
