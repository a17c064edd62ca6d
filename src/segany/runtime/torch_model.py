"""Models in PyTorch, with the interface of `ImageModel` and `ProposingModel`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from segany.core.arrays import IMAGES_AT_ONCE, PROMPTS_AT_ONCE, FloatArray, IntArray, PixelArray
from segany.core.embedding import Feature
from segany.imaging.amg import Proposals
from segany.kernels.processor import TensorProcessor, writable_tensor
from segany.models.convert import weights_digest
from segany.models.promptable import PromptableModel
from segany.models.sam.mask_decoder import DecodedTokens
from segany.models.sam.two_way_transformer import HighResFeatures, ImageTokens


class TorchModel:
    """A promptable model in PyTorch. It keeps no state, so threads may share it.

    Attributes:
        module: the model with tensors as inputs and outputs, which is trained, exported and saved.
        processor: preprocesses images and upscales logits.
        source: the name or path from which the weights were loaded; None if they were not loaded.
    """

    processor: TensorProcessor

    def __init__(self, module: PromptableModel, *, source: str | None = None) -> None:
        self.module = module
        self.processor = TensorProcessor(module.preprocessing)
        self.source = source

    @property
    def name(self) -> str:
        """Name in the registry, written to embeddings."""
        return self.module.name

    @property
    def encoder_id(self) -> str:
        """Digest of the image encoder's weights."""
        return self.module.encoder_id

    @property
    def weights_id(self) -> str:
        """A short digest of the current weights; see `weights_digest`."""
        return weights_digest(self.module.state_dict())

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the names, shapes, dtypes and values of the current weights."""
        digest = hashlib.sha256()
        for name, value in sorted(self.module.state_dict().items()):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @property
    def pads_boxes(self) -> bool:
        return self.module.pads_boxes

    @property
    def pred_iou_thresh(self) -> float:
        return self.module.pred_iou_thresh

    @property
    def stability_score_thresh(self) -> float:
        return self.module.stability_score_thresh

    @property
    def has_memory(self) -> bool:
        """Whether the model has a memory bank for video."""
        return self.module.has_memory

    @property
    def low_res_size(self) -> int:
        return self.module.low_res_size

    @property
    def device(self) -> torch.device:
        return self.module.device

    @property
    def dtype(self) -> torch.dtype:
        return self.module.dtype

    @torch.inference_mode()
    def embed(self, images: Sequence[PixelArray]) -> list[tuple[Feature, ...]]:
        """Encode uint8 images [H, W, 3] of any sizes to the features of an `Embedding`, [C, h, w] each.

        They are float32 arrays for a model on a CPU, and tensors of the model's dtype and device otherwise.
        """
        if self.device.type == "cpu":
            batches = (self.module.encode_features(self.processor.tensor([image], self)) for image in images)
            return [tuple(feature[0].float().numpy() for feature in features) for features in batches]
        embeddings: list[tuple[Feature, ...]] = []
        for first in range(0, len(images), IMAGES_AT_ONCE):
            pixels = self.processor.tensor(images[first : first + IMAGES_AT_ONCE], self)
            # Copy rows, since a view would keep the memory of the whole batch.
            rows = zip(*self.module.encode_features(pixels), strict=True)
            embeddings.extend(tuple(feature.clone() for feature in row) for row in rows)
        return embeddings

    def predict_low_res(
        self,
        features: Sequence[Feature],
        points: FloatArray,
        labels: IntArray,
        mask_logits: FloatArray | None,
        *,
        multimask: bool,
    ) -> tuple[FloatArray, FloatArray]:
        """Predict masks for P prompts on one image, in batches.

        Args:
            features: features of an `Embedding`.
            points: float32 [P, N, 2], pixels of the model's input; boxes are two points.
            labels: int64 [P, N], -1 padding, 0 background, 1 foreground, 2 and 3 the corners of a box.
            mask_logits: float32 [P, 4h, 4w], or None if no prompt has a mask.
            multimask: predict three candidates per prompt instead of one.

        Returns:
            Low-res logits float32 [P, M, 4h, 4w] and predicted IoU float32 [P, M].
        """
        together = self._prompts_at_once
        low_res, iou = [], []
        with torch.inference_mode():
            tensors = [self._tensor(feature) for feature in features]
            for first in range(0, len(points), together):
                piece = slice(first, first + together)
                masks = None if mask_logits is None else self._tensor(mask_logits[piece])
                piece_points = torch.tensor(points[piece], device=self.device)
                piece_labels = torch.tensor(labels[piece], device=self.device)
                outputs = self.module.decode_features(tensors, piece_points, piece_labels, masks, multimask=multimask)
                low_res.append(outputs[0].float().cpu())
                iou.append(outputs[1].float().cpu())
        return torch.cat(low_res).numpy(), torch.cat(iou).numpy()

    def propose(
        self,
        features: Sequence[Feature],
        points: FloatArray,
        labels: IntArray,
        min_score: float,
        together: int | None = None,
    ) -> Iterator[Proposals]:
        """Predict masks for many prompts in batches, and yield those with a predicted IoU above `min_score`.

        Mask upscaling is skipped for the others. Prompts are as for `predict_low_res` and have three candidates.
        `together` is the batch size.
        """
        together = together or self._prompts_at_once
        image = self._prepared_image(features)
        for first in range(0, len(points), together):
            piece = slice(first, first + together)
            # Not in this generator, in which the caller's code would run in inference mode too.
            yield self._propose(image, points[piece], labels[piece], first, min_score)

    @torch.inference_mode()
    def _prepared_image(self, features: Sequence[Feature]) -> ImageTokens:
        _, mask_decoder = self.module.heads()
        return mask_decoder.prepare(self.module.image_tokens([self._tensor(feature) for feature in features]))

    @torch.inference_mode()
    def _propose(
        self, image: ImageTokens, points: FloatArray, labels: IntArray, first: int, min_score: float
    ) -> Proposals:
        prompt_encoder, mask_decoder = self.module.heads()
        prompts = prompt_encoder.encode_points(
            torch.tensor(points, device=self.device), torch.tensor(labels, device=self.device)
        )
        decoded = mask_decoder.transform(image, prompts, multimask=True)
        return self._proposals(decoded, image.high_res_features, first, min_score)

    def _proposals(
        self, decoded: DecodedTokens, high_res_features: HighResFeatures | None, first: int, min_score: float
    ) -> Proposals:
        _, mask_decoder = self.module.heads()
        good = decoded.iou.float() > min_score  # [P, M]
        low_res = [some.float() for some in mask_decoder.selected_masks(decoded, high_res_features, good)]
        side = self.low_res_size
        chosen = torch.cat(low_res) if low_res else decoded.iou.new_zeros(0, side, side).float()
        return Proposals(
            prompts=(first + good.nonzero()[:, 0]).cpu().numpy(),
            scores=decoded.iou[good].float().cpu().numpy(),
            low_res=chosen.numpy() if chosen.device.type == "cpu" else chosen,
            done=first + len(good),
        )

    @property
    def _prompts_at_once(self) -> int:
        return PROMPTS_AT_ONCE["cpu" if self.device.type == "cpu" else "gpu"]

    def _tensor(self, feature: Feature) -> Tensor:
        tensor = writable_tensor(feature) if isinstance(feature, np.ndarray) else feature
        return tensor.to(device=self.device, dtype=self.dtype)
