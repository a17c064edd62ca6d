"""Masks that a model proposes while it is asked about everything in an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from segany.types import FloatArray, IntArray

if TYPE_CHECKING:
    from torch import Tensor


class Proposals(NamedTuple):
    """Masks that were found good, K in all.

    Attributes:
        prompts: int64 [K], which prompt made each.
        scores: float32 [K], predicted IoU.
        low_res: logits [K, h, w]; a tensor where they lie on an accelerator, so that they stay there.
        done: prompts decoded so far.
    """

    prompts: IntArray
    scores: FloatArray
    low_res: FloatArray | Tensor
    done: int
