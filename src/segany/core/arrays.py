"""Array types, named by what they hold, and constants of batches and masks.

Shape legend, used everywhere: B images, P prompts, N points, M masks per prompt, C channels, H W pixels.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from segany.core.errors import SeganyError

FloatArray: TypeAlias = npt.NDArray[np.float32]
IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
PixelArray: TypeAlias = npt.NDArray[np.uint8]
SizeHW: TypeAlias = tuple[int, int]

IMAGES_AT_ONCE = 4
"""Batch size of the image encoder on an accelerator, and how many images of a list are decoded at a time.

On a CPU the batch size is 1: one image already keeps all cores busy.
"""

PROMPTS_AT_ONCE = {"cpu": 8, "gpu": 64}
"""Batch size of the mask decoder. On a CPU, eight prompts share the image embedding and still fit the cache."""

MASK_THRESHOLD = 0.0
"""Pixels with a mask logit above this are foreground."""

STABILITY_SCORE_THRESH = 0.95
"""Threshold on the stability score of automatic masks in the official code of SAM and SAM 2."""


class ReadOnlyArrays:
    """Base class of frozen dataclasses with arrays: the arrays of copies and unpickled objects are read-only too."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, _frozen(value))


def _frozen(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return frozen_view(value)
    if isinstance(value, tuple):
        return tuple(_frozen(item) for item in value) if any(isinstance(one, np.ndarray) for one in value) else value
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return value


def frozen_view(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a read-only view, so that the arrays of frozen dataclasses cannot be changed either."""
    view: npt.NDArray[Any] = array.view()
    view.flags.writeable = False
    return view


def check_unmasked(value: Any, what: str, kind: type[SeganyError]) -> None:
    """Raise `kind` if an array, or one in a list, is a masked array with masked values: `np.asarray` ignores masks."""
    for item in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(item, np.ma.MaskedArray) and np.ma.getmaskarray(item).any():
            raise kind(f"{what} is a masked array with masked values. Fill them first, with its filled().")
