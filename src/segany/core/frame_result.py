"""The result of tracking for one frame of a video."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from segany.core.arrays import BoolArray, FloatArray, ReadOnlyArrays, SizeHW, frozen_view
from segany.core.errors import PromptError, check
from segany.core.instance import NO_ID
from segany.core.instances import Instances


@dataclass(frozen=True, eq=False)
class FrameResult(ReadOnlyArrays):
    """The tracked objects in one frame. There may be none.

    Attributes:
        frame: number of the frame, from 0 in presentation order.
        instances: O objects with masks at the size of the video, of source "track", each with a unique `object_id`.
            `scores` are object scores, the output of the occlusion head (SAM 2, section 4): logits, above 0 if the
            object is visible in this frame. The mask of an object that is not visible is empty. The optional column
            `reverse`, bool [O], tells which objects were tracked backward.
        mask_logits: float32 [O, H, W], masks before thresholding at `MASK_THRESHOLD`; None unless requested.

    Raises:
        ConfigError: the frame is negative, an object has no id, two objects have the same id, or `mask_logits` has
            another shape or dtype.
    """

    frame: int
    instances: Instances
    mask_logits: FloatArray | None = None

    def __post_init__(self) -> None:
        check(self.frame >= 0, f"frame must not be negative, got {self.frame}.")
        ids = self.object_ids
        check(len(set(ids)) == len(ids), f"object_ids must be different from each other, got {list(ids)}.")
        check(NO_ID not in ids, "Every instance of a frame needs an object id of its own.")
        if self.mask_logits is not None:
            logits, shape = self.mask_logits, (len(ids), *self.size_hw)
            check(
                logits.dtype == np.float32 and logits.shape == shape,
                f"mask_logits must be float32 [O, H, W], {list(shape)}, got {logits.dtype} {list(logits.shape)}.",
            )
            object.__setattr__(self, "mask_logits", frozen_view(logits))

    @classmethod
    def from_masks(
        cls,
        frame: int,
        object_ids: npt.ArrayLike,
        masks: BoolArray,
        scores: npt.ArrayLike,
        *,
        mask_logits: FloatArray | None = None,
        **columns: Any,
    ) -> FrameResult:
        """Make a result from mask arrays. The arrays are kept, so that `masks` needs no decoding.

        Args:
            frame: number of the frame.
            object_ids: int [O].
            masks: bool [O, H, W]; must not be changed afterwards.
            scores: float [O], object scores.
            mask_logits: float32 [O, H, W].
            columns: as for `Instances`.

        Raises:
            InstancesError: the columns do not fit each other.
            ConfigError: as for `FrameResult`.
        """
        given = {"sources": "track", **columns}
        instances = Instances.from_masks(
            masks, object_ids=np.asarray(object_ids, dtype=np.int64), scores=scores, **given
        )
        result = cls(frame, instances, mask_logits)
        result.__dict__["masks"] = frozen_view(masks)  # sets the cached property `masks`
        return result

    @cached_property
    def masks(self) -> BoolArray:
        """The masks, bool [O, H, W], read-only; decoded once unless the result was made from arrays."""
        masks: BoolArray = frozen_view(self.instances.masks())
        return masks

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Ids of the objects, in the order of the instances."""
        return tuple(self.instances.object_ids.tolist())

    @property
    def scores(self) -> FloatArray:
        """Object scores, float32 [O]: logits, above 0 for a visible object."""
        return self.instances.scores

    @property
    def size_hw(self) -> SizeHW:
        """Size of the frame in pixels."""
        return self.instances.size_hw

    def mask_of(self, object_id: int) -> BoolArray:
        """Return the mask of one object, bool [H, W].

        Raises:
            PromptError: there is no such object in this result.
        """
        mask: BoolArray = self.masks[self._index(object_id)]
        return mask

    def score_of(self, object_id: int) -> float:
        """Return the object score of one object. Raises `PromptError` if there is no such object."""
        return float(self.scores[self._index(object_id)])

    def updated(self, other: FrameResult) -> FrameResult:
        """Merge the objects of another result of the same frame into this one; they replace objects of the same ids.

        The objects are sorted by id. `mask_logits` is None.

        Raises:
            InstancesError: the masks have different sizes.
        """
        kept = np.flatnonzero(~np.isin(self.instances.object_ids, other.instances.object_ids))
        instances = Instances.concatenate([self.instances[kept], other.instances])
        result = FrameResult(self.frame, instances)
        if "masks" in self.__dict__ and "masks" in other.__dict__:
            result.__dict__["masks"] = frozen_view(np.concatenate([self.masks[kept], other.masks]))
        return result.sorted_by_id()

    def sorted_by_id(self) -> FrameResult:
        """Return the result with its objects sorted by id."""
        order = np.argsort(self.instances.object_ids)
        if (order[:-1] <= order[1:]).all():
            return self
        logits = None if self.mask_logits is None else self.mask_logits[order]
        result = FrameResult(self.frame, self.instances[order], logits)
        if "masks" in self.__dict__:
            result.__dict__["masks"] = frozen_view(self.masks[order])
        return result

    def _index(self, object_id: int) -> int:
        if object_id not in self.object_ids:
            known = ", ".join(map(str, self.object_ids)) or "none"
            raise PromptError(f"Frame {self.frame} has no object {object_id}. Its objects: {known}.")
        return self.object_ids.index(object_id)
