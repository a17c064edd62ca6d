"""The SAM model, with the constructor and signatures of the official code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segany.compat.configs import given_config
from segany.core.preprocessing import Preprocessing
from segany.kernels.processor import TensorProcessor, writable_tensor
from segany.models.image_encoder import ImageEncoder
from segany.models.promptable import PromptableModel
from segany.models.sam import mask_decoder as native_decoder
from segany.models.sam import prompt_encoder as native_encoder
from segany.models.sam.model import Sam as NativeSam

_MEAN, _STD = Preprocessing().mean_rgb, Preprocessing().std_rgb


class Sam(PromptableModel):
    """Predicts masks from images and prompts.

    Attributes:
        mask_threshold: logits above it are inside a mask.
        image_format: order of the channels of images.
    """

    mask_threshold: float = 0.0
    image_format: str = "RGB"
    pads_boxes = NativeSam.pads_boxes
    pred_iou_thresh = NativeSam.pred_iou_thresh

    def __init__(
        self,
        image_encoder: nn.Module,
        prompt_encoder: nn.Module,
        mask_decoder: nn.Module,
        pixel_mean: Sequence[float] = _MEAN,
        pixel_std: Sequence[float] = _STD,
    ) -> None:
        """Join the parts; the image encoder has an attribute `img_size`."""
        super().__init__(given_config(cast(int, image_encoder.img_size)), name="sam")
        self.image_encoder = cast(ImageEncoder, image_encoder)
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor(list(values)).view(-1, 1, 1), persistent=False)

    pixel_mean: Tensor
    pixel_std: Tensor

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    @property
    def preprocessing(self) -> Preprocessing:
        mean, std = (tuple(values.flatten().tolist()) for values in (self.pixel_mean, self.pixel_std))
        return Preprocessing(self._img_size, "longest_side", cast(Any, mean), cast(Any, std))

    @property
    def _img_size(self) -> int:
        return cast(int, self.image_encoder.img_size)

    def heads(self) -> tuple[native_encoder.PromptEncoder, native_decoder.MaskDecoder]:
        heads: Any = (self.prompt_encoder, self.mask_decoder)
        return cast("tuple[native_encoder.PromptEncoder, native_decoder.MaskDecoder]", heads)

    def set_heads(self, prompt_encoder: native_encoder.PromptEncoder, mask_decoder: native_decoder.MaskDecoder) -> None:
        self.prompt_encoder, self.mask_decoder = prompt_encoder, mask_decoder

    def encode_features(self, pixels: Tensor, drop_path_scales: Tensor | None = None) -> tuple[Tensor, ...]:
        del drop_path_scales
        return (self.image_encoder(pixels),)

    @torch.no_grad()
    def forward(self, batched_input: list[dict[str, Any]], multimask_output: bool) -> list[dict[str, Tensor]]:
        """Predict masks for prompts on several images.

        Args:
            batched_input: one dictionary per image: `image`, [3, h, w], resized by `ResizeLongestSide`;
                `original_size`, (H, W); and the prompts in pixels of the resized image, where there are some:
                `point_coords` [P, N, 2] and `point_labels` [P, N], `boxes` [P, 4], `mask_inputs` [P, 1, 4h, 4w].
            multimask_output: predict three masks for each prompt instead of one.

        Returns:
            For each image `masks`, bool [P, M, H, W]; `iou_predictions` [P, M]; `low_res_logits` [P, M, 4h, 4w].
        """
        pixels = torch.stack([self.preprocess(one["image"]) for one in batched_input])
        return [
            self._predict(one, embedding[None], multimask_output)
            for one, embedding in zip(batched_input, self.image_encoder(pixels), strict=True)
        ]

    def _predict(self, one: dict[str, Any], embedding: Tensor, multimask_output: bool) -> dict[str, Tensor]:
        points = (one["point_coords"], one["point_labels"]) if "point_coords" in one else None
        sparse, dense = self.prompt_encoder(points=points, boxes=one.get("boxes"), masks=one.get("mask_inputs"))
        low_res, iou = self.mask_decoder(
            image_embeddings=embedding,
            image_pe=self.prompt_encoder.get_dense_pe(),  # type: ignore[operator]
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask_output,
        )
        masks = self.upscale_masks(low_res, tuple(one["image"].shape[-2:]), tuple(one["original_size"]))
        return {"masks": masks, "iou_predictions": iou, "low_res_logits": low_res}

    def upscale_masks(self, low_res: Tensor, input_size: tuple[int, ...], original_size: tuple[int, ...]) -> Tensor:
        """Upscale and threshold low-res logits [P, M, 4h, 4w], bool [P, M, H, W], as `postprocess_masks` does.

        Without storing the upscaled logits, unless a subclass has another `postprocess_masks`.
        """
        plain = type(self).postprocess_masks is Sam.postprocess_masks and self.mask_threshold == 0
        if not plain or not self._is_of_whole_image(low_res, input_size, original_size):
            return self.postprocess_masks(low_res, input_size, original_size) > self.mask_threshold
        height, width = original_size
        logits = low_res.detach().float().numpy()
        return writable_tensor(cast(Any, TensorProcessor(self.preprocessing).upscale_masks(logits, (height, width))))

    def _is_of_whole_image(self, low_res: Tensor, input_size: tuple[int, ...], original_size: tuple[int, ...]) -> bool:
        """Tell whether masks are upscaled by segany's processor: on a CPU, and of an image that has the usual size."""
        if low_res.device.type != "cpu" or len(original_size) != 2:
            return False
        return tuple(input_size) == self.preprocessing.resized_hw((original_size[0], original_size[1]))

    def postprocess_masks(self, masks: Tensor, input_size: tuple[int, ...], original_size: tuple[int, ...]) -> Tensor:
        """Upscale low-res logits to the size of the original image.

        Args:
            masks: [P, M, 4h, 4w].
            input_size: (h, w) of the resized image without padding.
            original_size: (H, W) of the original image.

        Returns:
            [P, M, H, W].
        """
        square = (self._img_size, self._img_size)
        masks = F.interpolate(masks, square, mode="bilinear", align_corners=False)
        masks = masks[..., : input_size[0], : input_size[1]]
        return F.interpolate(masks, tuple(original_size), mode="bilinear", align_corners=False)

    def preprocess(self, x: Tensor) -> Tensor:
        """Normalize pixels [..., 3, h, w] in units of 0..255 and pad them to the square input."""
        height, width = x.shape[-2:]
        size = self._img_size
        return F.pad((x - self.pixel_mean) / self.pixel_std, (0, size - width, 0, size - height))
