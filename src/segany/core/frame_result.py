"""What tracking yields: the masks of all objects in one frame of a video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segany.core.arrays import BoolArray, FloatArray, SizeHW, frozen_view
from segany.core.errors import ConfigError, PromptError, check


@dataclass(frozen=True, eq=False)
class FrameResult:
    """The masks of O objects in one frame. O may be 0. The arrays are read-only.

    Attributes:
        frame: number of the frame, from 0 in the order the frames are shown.
        object_ids: the objects, each once, in the order of the arrays below.
        masks: bool [O, H, W] at the size of the video; empty where an object is not visible.
        scores: float32 [O], object scores: the logit of the object being visible in this frame (SAM 2,
            section 4, "occlusion head"). Above 0 it is visible.
        mask_logits: float32 [O, H, W], masks before thresholding at `MASK_THRESHOLD`; None unless asked for.

    Raises:
        ConfigError: the frame is negative, an id comes twice, or shapes or dtypes are not as above.
    """

    frame: int
    object_ids: tuple[int, ...]
    masks: BoolArray
    scores: FloatArray
    mask_logits: FloatArray | None = None

    def __post_init__(self) -> None:
        ids = self.object_ids
        check(self.frame >= 0, f"frame must not be negative, got {self.frame}.")
        check(len(set(ids)) == len(ids), f"object_ids must be different from each other, got {list(ids)}.")
        _check_array("masks", self.masks, np.bool_, (len(ids), *self.masks.shape[-2:]))
        _check_array("scores", self.scores, np.float32, (len(ids),))
        if self.mask_logits is not None:
            _check_array("mask_logits", self.mask_logits, np.float32, self.masks.shape)
        for name in ("masks", "scores", "mask_logits"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, frozen_view(value))

    @property
    def size_hw(self) -> SizeHW:
        """Size of the frame in pixels."""
        return self.masks.shape[1], self.masks.shape[2]

    def mask_of(self, object_id: int) -> BoolArray:
        """bool [H, W], the mask of one object.

        Raises:
            PromptError: there is no such object in this result.
        """
        mask: BoolArray = self.masks[self._index(object_id)]
        return mask

    def score_of(self, object_id: int) -> float:
        """The logit of one object being visible. Raises `PromptError` where there is no such object."""
        return float(self.scores[self._index(object_id)])

    def _index(self, object_id: int) -> int:
        if object_id not in self.object_ids:
            known = ", ".join(map(str, self.object_ids)) or "none"
            raise PromptError(f"Frame {self.frame} has no object {object_id}. Its objects: {known}.")
        return self.object_ids.index(object_id)


def _check_array(name: str, array: npt.NDArray[Any], dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise ConfigError(
            f"{name} must be {np.dtype(dtype).name} {'[O]' if name == 'scores' else '[O, H, W]'} for the O object "
            f"ids, got {array.dtype} {list(array.shape)}."
        )
