"""The values that pass between the steps of tracking: frames, masks of objects, and what is remembered."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class FrameFeatures(NamedTuple):
    """A frame as the image encoder sees it.

    Attributes:
        image: [1, C, h, w], stride 16, without any memory.
        feat_s0: [1, C / 8, 4h, 4w], stride 4, for the mask decoder.
        feat_s1: [1, C / 4, 2h, 2w], stride 8, for the mask decoder.
    """

    image: Tensor
    feat_s0: Tensor
    feat_s1: Tensor


class ObjectMasks(NamedTuple):
    """Candidate masks of O objects in one frame.

    Attributes:
        low_res: logits [O, M, 4h, 4w]; `NO_OBJECT_LOGIT` everywhere where the object is not visible.
        iou: [O, M], predicted IoU.
        pointers: [O, M, C], object pointers: what identifies the object in later frames.
        object_scores: [O], logits; above zero the object is visible.
    """

    low_res: Tensor
    iou: Tensor
    pointers: Tensor
    object_scores: Tensor

    def choose(self, index: Tensor) -> ObjectMasks:
        """One candidate of each object, by int64 [O]; the axis M stays, of one."""
        rows = torch.arange(len(index), device=index.device)
        return ObjectMasks(
            self.low_res[rows, index][:, None],
            self.iou[rows, index][:, None],
            self.pointers[rows, index][:, None],
            self.object_scores,
        )

    def best(self) -> ObjectMasks:
        """The candidate with the highest predicted IoU of each object."""
        return self.choose(self.iou.argmax(dim=1))


class ObjectMemory(NamedTuple):
    """What one object's frame attends to, gathered from its memory bank; see `memory_bank.plan_memory`.

    Attributes:
        masks: K memories [C_memory, h, w], as `Sam2.encode_memory` made them; at least one.
        slots: of those memories in time, as in the plan.
        pointers: L object pointers [C]; there may be none.
        times: of those pointers, as in the plan.
    """

    masks: tuple[Tensor, ...]
    slots: tuple[int, ...]
    pointers: tuple[Tensor, ...]
    times: tuple[float, ...]
