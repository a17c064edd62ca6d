"""A class-agnostic object detector: an anchor-free head on the image embedding that finds the boxes of objects.

SAM's data engine pre-fills masks from the boxes of a detector with the one category "object" (Segment Anything, section
4, "Semi-automatic stage"), a Faster R-CNN on the image. This detector reads the image embedding instead, which exists
for the mask decoder anyway: it runs in milliseconds, and trains in minutes on stored embeddings.

The head has the heatmap of object centers of CenterNet (Zhou et al., 2019) on the levels of FCOS (Tian et al., 2019),
with weights shared between levels. Objects of different sizes are detected on different levels, so that nested objects
with the same center do not compete.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segany.core.arrays import SizeHW
from segany.core.errors import EmbeddingError, check
from segany.models.calibration import Calibration
from segany.models.configs import EMBEDDING_STRIDE, EncoderConfig, check_depths, check_heads, register

PRIOR = 0.01
"""Probability of an object at a position before training, which the bias of the heatmap starts from (RetinaNet)."""

MAX_LOG_DISTANCE = 6.0
"""Bound on the logarithm of distances in strides, far above the size of any input: they must not overflow."""

_GROUPS = 8
"""Groups of group normalization, with `width / _GROUPS` channels each."""


@register
@dataclass(frozen=True)
class ObjectDetectorConfig:
    """Config of the object detector.

    Attributes:
        in_channels: channels of the image embedding.
        width: channels of the head, a multiple of 8.
        depth: number of convolutions of the tower, which all levels share.
        levels: number of levels. Level i has the stride 16 * 2^i, in pixels of the model's input.
    """

    in_channels: int = 256
    width: int = 64
    depth: int = 3
    levels: int = 4

    def __post_init__(self) -> None:
        check_heads(self.width, _GROUPS)
        check_depths(depth=self.depth, levels=self.levels)
        check(self.in_channels > 0, f"in_channels must be positive, got {self.in_channels}.")
        check(self.levels <= 8, f"levels must be at most 8, got {self.levels}.")

    @classmethod
    def for_encoder(cls, encoder: EncoderConfig) -> ObjectDetectorConfig:
        """The config for the image embeddings of an encoder."""
        return cls(in_channels=encoder.out_channels)

    @property
    def strides(self) -> tuple[int, ...]:
        """The strides of the levels, in pixels of the model's input."""
        return tuple(EMBEDDING_STRIDE << level for level in range(self.levels))


class DetectorLevel(NamedTuple):
    """The output on one level.

    Attributes:
        heatmap: float32 [B, h, w], logits of the center of an object at each position.
        boxes_xyxy: float32 [B, h, w, 4], the box of that object, in pixels of the model's input.
    """

    heatmap: Tensor
    boxes_xyxy: Tensor


class ObjectDetector(nn.Module):
    """Finds the boxes of objects in image embeddings. It keeps no state, so threads may share it.

    Attributes:
        config: the architecture.
        model: name of the model whose image embeddings it was trained on.
        encoder_id: digest of the image encoder's weights of that model; see `Embedding.encoder_id`.
        calibration: the confidence of masks that its boxes prompt; None before `evaluate.calibration.calibrate`.
    """

    calibration: Calibration | None = None

    def __init__(self, config: ObjectDetectorConfig, *, model: str, encoder_id: str) -> None:
        """Build the detector, with PyTorch's initialization.

        Args:
            config: the architecture.
            model: name of the model whose image embeddings it takes.
            encoder_id: digest of the image encoder's weights of that model.
        """
        super().__init__()
        self.config, self.model, self.encoder_id = config, model, encoder_id
        width = config.width
        self.project = nn.Sequential(nn.Conv2d(config.in_channels, width, 1, bias=False), *_norm(width))
        layers = [(nn.Conv2d(width, width, 3, padding=1, bias=False), *_norm(width)) for _ in range(config.depth)]
        self.tower = nn.Sequential(*(layer for block in layers for layer in block))
        self.heatmap = nn.Conv2d(width, 1, 1)
        self.distances = nn.Conv2d(width, 4, 1)
        self.scales = nn.Parameter(torch.ones(config.levels))
        with torch.no_grad():
            self.heatmap.bias.fill_(math.log(PRIOR / (1 - PRIOR)))  # type: ignore[union-attr]

    @property
    def device(self) -> torch.device:
        return self.scales.device

    def check_fits(self, model: str, encoder_id: str) -> None:
        """Raise `EmbeddingError` unless embeddings of a model with these encoder weights are those of the training."""
        if (model, encoder_id) != (self.model, self.encoder_id):
            raise EmbeddingError(
                f"The object detector was trained on embeddings of {self.model!r} with the image-encoder weights "
                f"{self.encoder_id}, not of {model!r} with {encoder_id}. Use that model, or train a detector for this "
                "one: segany train object_detector --model MODEL."
            )

    def forward(self, embedding: Tensor) -> list[DetectorLevel]:
        """Detect objects at every position of every level.

        Args:
            embedding: image embeddings [B, C, h, w], without their padding; see `unpadded`.

        Returns:
            The outputs of the levels, from the smallest stride.
        """
        features = self.project(embedding)
        levels: list[DetectorLevel] = []
        for stride, scale in zip(self.config.strides, self.scales, strict=True):
            if levels:
                features = F.max_pool2d(features, 2, ceil_mode=True)
            tower = self.tower(features)
            heatmap = self.heatmap(tower)[:, 0].float()  # in half precision, boxes would be off by pixels
            # FCOS: exp(s x) strides to the left, top, right and bottom, with a scale s of the level.
            distances = (scale * self.distances(tower)).float().clamp(max=MAX_LOG_DISTANCE).exp().permute(0, 2, 3, 1)
            centers = positions_xy((heatmap.shape[1], heatmap.shape[2]), distances) * stride
            near, far = (distances * stride).split(2, dim=-1)
            levels.append(DetectorLevel(heatmap, torch.cat([centers - near, centers + far], dim=-1)))
        return levels

    @torch.inference_mode()
    def detect(self, embedding: Tensor, *, max_boxes: int, min_score: float) -> tuple[Tensor, Tensor]:
        """Find boxes: the positions of the heatmaps that are the maximum of their 3 x 3 neighbors (CenterNet).

        Boxes of one object on several levels are not suppressed.

        Args:
            embedding: an image embedding [C, h, w], without its padding.
            max_boxes: largest number of boxes.
            min_score: boxes have at least this score.

        Returns:
            Boxes float32 [K, 4], in pixels of the model's input, and their scores float32 [K], highest first.
        """
        boxes, scores = [], []
        for level in self(embedding[None].to(self.scales)):
            heat = level.heatmap.sigmoid()
            peaks = (heat == F.max_pool2d(heat, 3, stride=1, padding=1)) & (heat >= min_score)
            boxes.append(level.boxes_xyxy[peaks])
            scores.append(heat[peaks])
        found, order = torch.cat(scores).sort(descending=True, stable=True)
        return torch.cat(boxes)[order[:max_boxes]], found[:max_boxes]


def unpadded(embedding: Tensor, resized_hw: SizeHW) -> Tensor:
    """Crop an image embedding [..., h, w] to the positions that cover any pixel of the image.

    Args:
        embedding: the embedding of the model's input, which pads the image at the right and bottom.
        resized_hw: size of the resized image, in pixels of the input; see `Preprocessing.resized_hw`.
    """
    height, width = (-(-side // EMBEDDING_STRIDE) for side in resized_hw)
    return embedding[..., :height, :width]


def positions_xy(size_hw: SizeHW, like: Tensor) -> Tensor:
    """The centers xy of the positions of a map, [h, w, 2], in units of its stride."""
    rows, columns = (torch.arange(side, dtype=like.dtype, device=like.device) + 0.5 for side in size_hw)
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)


def _norm(width: int) -> Sequence[nn.Module]:
    return nn.GroupNorm(_GROUPS, width), nn.ReLU(inplace=True)
