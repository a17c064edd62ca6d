"""Simulated interactive prompts on the objects of one training item."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segany.core.arrays import MASK_THRESHOLD
from segany.core.prompt import BOX_BOTTOM_RIGHT_LABEL, BOX_TOP_LEFT_LABEL, FOREGROUND, PADDING_LABEL
from segany.data.item import TrainingItem
from segany.train.losses import ObjectLosses, shrink_masks, stretch_logits
from segany.train.prompts import PromptDraws, jitter_boxes, sample_error_points, sample_pixels
from segany.train.sam_recipe import SamRecipe

_MASKS_AT_ONCE = 16
"""Number of masks that are upsampled together to find their error regions; it bounds the memory."""


class ClickSimulation:
    """The N objects of an item whose first prompt is of the same kind, and their prompts up to this iteration.

    Attributes:
        item: index of the item in its batch.
        masks: bool [N, S, S], the true masks at the size of the model's input.
        truth: [N, s, s], the target of the mask losses, from `shrink_masks`.
        points: float32 [N, n, 2], clicks and the two corners of a box, in pixels of the model's input.
        labels: int64 [N, n].
        mask_logits: float32 [N, h, w], low-res logits of the previous iteration; None before the first.
        losses: the losses of each iteration.
    """

    def __init__(
        self, item: int, data: TrainingItem, plan: PromptDraws, recipe: SamRecipe, device: torch.device, *, boxes: bool
    ) -> None:
        chosen = np.flatnonzero(plan.starts_with_box == boxes)
        self.item = item
        self.starts_with_box = boxes
        self.masks = torch.from_numpy(data.masks[chosen]).to(device)  # bool [N, S, S]
        size = self.masks.shape[-1]
        self.truth = shrink_masks(self.masks, recipe.loss_side or size)
        self.draws = torch.from_numpy(plan.draws[:, chosen].astype(np.float32)).to(device)  # MPS has no float64
        self.repeats = plan.repeats
        self.mask_logits: Tensor | None = None
        self.losses: list[ObjectLosses] = []
        labels = (BOX_TOP_LEFT_LABEL, BOX_BOTTOM_RIGHT_LABEL) if boxes else (FOREGROUND,)
        self.labels = torch.tensor(labels, device=device).expand(len(chosen), -1)
        if boxes:
            given = torch.from_numpy(data.boxes_xyxy[chosen]).double()
            noise = torch.from_numpy(plan.box_noise[chosen])
            jittered = jitter_boxes(given, noise, size, share=recipe.box_noise, limit=recipe.box_noise_limit)
            self.points = jittered.reshape(-1, 2, 2).float().to(device)
        else:
            self.points = sample_pixels(self.masks, self.draws[0])[:, None].float()

    def __len__(self) -> int:
        return len(self.masks)

    def prompt(self, iteration: int) -> None:
        """Add the click of this iteration, sampled from the error region, to the prompts of each object."""
        if iteration == 0 or iteration in self.repeats:
            return
        points, labels = self._corrections(self.draws[iteration])
        # Clicks come before the corners of a box, as in the predictors.
        corners = 2 if self.starts_with_box else 0
        clicks = self.points.shape[1] - corners
        self.points = torch.cat([self.points[:, :clicks], points[:, None].float(), self.points[:, clicks:]], dim=1)
        self.labels = torch.cat([self.labels[:, :clicks], labels[:, None], self.labels[:, clicks:]], dim=1)

    def _corrections(self, draws: Tensor) -> tuple[Tensor, Tensor]:
        assert self.mask_logits is not None
        size, corrected = self.masks.shape[-1], []
        pieces = (x.split(_MASKS_AT_ONCE) for x in (self.mask_logits, self.masks, draws))
        for logits, masks, some_draws in zip(*pieces, strict=True):
            predicted = stretch_logits(logits[:, None], size)[:, 0] > MASK_THRESHOLD
            corrected.append(sample_error_points(predicted, masks, some_draws))
        points, labels = (torch.cat(parts) for parts in zip(*corrected, strict=True))
        return points, labels

    def is_ambiguous(self, *, box_multimask: bool) -> bool:
        """Whether the prompt is a single point or box without a mask, for which the model predicts three masks."""
        single = self.labels.shape[1] == 1 or (self.starts_with_box and self.labels.shape[1] == 2 and box_multimask)
        return single and self.mask_logits is None

    def padded(self, *, pads_boxes: bool) -> tuple[Tensor, Tensor]:
        """Points [N, n, 2] and labels [N, n] for the prompt encoder, with a padding point where predictors add one."""
        if self.starts_with_box and not pads_boxes:
            return self.points, self.labels
        return F.pad(self.points, (0, 0, 0, 1)), F.pad(self.labels, (0, 1), value=PADDING_LABEL)
