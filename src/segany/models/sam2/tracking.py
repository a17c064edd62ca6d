"""The values that pass between the steps of tracking: frame features, masks of objects, memories."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class FrameFeatures(NamedTuple):
    """Features of a frame from the image encoder. The last two are the `high_res_features` of the mask decoder.

    Attributes:
        image: [1, C, h, w], stride 16, not conditioned on memory.
        feat_s0: [1, C / 8, 4h, 4w], stride 4.
        feat_s1: [1, C / 4, 2h, 2w], stride 8.
    """

    image: Tensor
    feat_s0: Tensor
    feat_s1: Tensor


class ObjectMasks(NamedTuple):
    """Candidate masks of O objects in one frame.

    Attributes:
        low_res: mask logits [O, M, 4h, 4w]; `NO_OBJECT_LOGIT` everywhere if the object is not visible.
        iou: [O, M], predicted IoU.
        pointers: [O, M, C], object pointers.
        object_scores: [O], logits of the object being visible; visible above 0.
    """

    low_res: Tensor
    iou: Tensor
    pointers: Tensor
    object_scores: Tensor

    def choose(self, index: Tensor) -> ObjectMasks:
        """One candidate of each object, by its index int64 [O]. The axis M stays, with length 1."""
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
    """What one frame attends to for one object, gathered from its memory bank; see `memory_bank.select_memory`.

    Attributes:
        memories: K memories [C_memory, h, w] from `Sam2.encode_memory`; at least one.
        maskmem_tpos: K temporal positions of the memories, as in `MemorySelection`.
        pointers: L object pointers [C]; there may be none.
        pointer_tpos: L temporal positions of the pointers, as in `MemorySelection`.
    """

    memories: tuple[Tensor, ...]
    maskmem_tpos: tuple[int, ...]
    pointers: tuple[Tensor, ...]
    pointer_tpos: tuple[float, ...]
