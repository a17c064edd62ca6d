"""Array types, named by what they hold, and constants of masks.

Shape legend, used everywhere: B images, P prompts, N points, M masks a prompt, C channels, H W pixels.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float32]
IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
PixelArray: TypeAlias = npt.NDArray[np.uint8]
SizeHW: TypeAlias = tuple[int, int]

IMAGES_AT_ONCE = 4
"""Images of a list that are held decoded, and that an accelerator encodes together.

On a CPU they are encoded one by one: one image already keeps all cores busy.
"""

PROMPTS_AT_ONCE = {"cpu": 8, "gpu": 64}
"""Prompts decoded together. On a CPU eight share the image and still fit the cache."""

MASK_THRESHOLD = 0.0
"""Mask logits above this are foreground."""


def frozen_view(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A read-only view, so that the arrays of frozen values cannot be changed either."""
    view: npt.NDArray[Any] = array.view()
    view.flags.writeable = False
    return view
