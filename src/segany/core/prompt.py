"""Prompts: points, a box, a mask, or a combination of them for one object.

Public coordinates are pixels of the original image, x then y.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from segany.core.arrays import BoolArray, FloatArray, IntArray, ReadOnlyArrays, SizeHW, check_unmasked, frozen_view
from segany.core.errors import PromptError

MaskMode: TypeAlias = Literal["auto", "multi", "single"]

BACKGROUND, FOREGROUND = 0, 1
"""Labels of the points of a `Prompt`."""

PADDING_LABEL, BOX_TOP_LEFT_LABEL, BOX_BOTTOM_RIGHT_LABEL = -1, 2, 3
"""Labels for the prompt encoder only: the padding point ("not a point"), and the two corners of a box."""


MAX_SHOWN, MAX_MESSAGE = 20, 200
"""Most elements and most characters of a value that is quoted in an error message."""

MAX_LOGIT = 1e4
"""Largest mask logit: larger ones overflow in the model, whose own logits reach a few tens."""


def _array(value: Any, what: str) -> npt.NDArray[Any]:
    """Convert an array-like to an array; tensors may have any dtype and device."""
    check_unmasked(value, what, PromptError)
    try:
        if hasattr(value, "detach") and hasattr(value, "cpu"):
            value = value.detach().cpu()
            value = value.float() if value.dtype.is_floating_point else value  # NumPy has no bfloat16
        array = np.asarray(value)
    # Ragged lists, lists of tensors, and tensors without values, which raise NotImplementedError, a RuntimeError.
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise PromptError(f"{what} must be an array of numbers, got {_short(value)}.") from error
    return array


def _float_array(value: Any, what: str) -> FloatArray:
    array = _array(value, what)
    if array.dtype.kind not in "fiub":
        raise PromptError(f"{what} must be numbers, got {_short(value)}.")
    with np.errstate(over="ignore"):  # overflow gives infinity, which is refused below
        floats = np.array(array, dtype=np.float32)  # a copy, since the caller may modify the original
    if not np.isfinite(floats).all():
        raise PromptError(f"{what} must be finite numbers, got {_short(value)}.")
    return floats


def _short(value: Any) -> str:
    if isinstance(value, (str, bytes)) or not hasattr(value, "__len__") or len(value) <= MAX_SHOWN:
        with contextlib.suppress(RecursionError):  # nested too deeply
            text = repr(value)
            if len(text) <= MAX_MESSAGE:
                return text
    return f"a {type(value).__name__}"


@dataclass(frozen=True, eq=False)
class Prompt(ReadOnlyArrays):
    """A prompt for one object: points, a box, a mask, or a combination of them.

    Attributes:
        points_xy: float32 [N, 2], pixels of the original image.
        labels: int64 [N], 1 for foreground and 0 for background; by default all foreground.
        box_xyxy: float32 [4], left, top, right, bottom in pixels of the original image.
        mask_logits: float32 [h, w], low-res logits of an earlier prediction, in the square frame of the model's input
            (256 x 256 for an input size of 1024).
        mask: bool [H, W] at the size of the original image, an alternative to `mask_logits`.

    Raises:
        PromptError: nothing is given, a label is not 0 or 1, labels and points differ in number, the
            box has no area, the mask is empty or not boolean, or a value is not finite.
    """

    points_xy: FloatArray | None = None
    labels: IntArray | None = None
    box_xyxy: FloatArray | None = None
    mask_logits: FloatArray | None = None
    mask: BoolArray | None = None

    def __init__(
        self,
        points_xy: npt.ArrayLike | None = None,
        labels: npt.ArrayLike | None = None,
        box_xyxy: npt.ArrayLike | None = None,
        mask_logits: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
    ) -> None:
        if mask is not None and mask_logits is not None:
            raise PromptError("Give either mask, bool at the size of the image, or mask_logits, not both.")
        points, point_labels = checked_points(points_xy, labels)
        values = {
            "points_xy": points,
            "labels": point_labels,
            "box_xyxy": None if box_xyxy is None else _checked_box(box_xyxy),
            "mask_logits": None if mask_logits is None else _checked_mask_logits(mask_logits),
            "mask": None if mask is None else _checked_mask(mask),
        }
        if all(value is None for value in values.values()):
            raise PromptError("The prompt is empty. Give at least one of points_xy, box_xyxy, mask and mask_logits.")
        for name, value in values.items():
            object.__setattr__(self, name, None if value is None else frozen_view(value))

    @property
    def is_ambiguous(self) -> bool:
        """Whether the prompt is ambiguous: at most one point, no box and no mask (SAM, section 3)."""
        count = 0 if self.points_xy is None else len(self.points_xy)
        return count <= 1 and self.box_xyxy is None and not self.has_mask

    @property
    def has_mask(self) -> bool:
        """Whether `mask` or `mask_logits` is given."""
        return self.mask is not None or self.mask_logits is not None

    def check_fits(self, size_hw: SizeHW) -> None:
        """Raise `PromptError` if a point or a box corner lies outside an image of size `size_hw`, or the mask has
        another size.
        """
        height, width = size_hw
        if self.mask is not None and self.mask.shape != (height, width):
            raise PromptError(
                f"The mask is {self.mask.shape[1]} wide and {self.mask.shape[0]} high, but the image is {width} wide "
                f"and {height} high. A mask prompt must be of the image's size."
            )
        limit = np.array([width, height], dtype=np.float32)
        for what, coordinates in (("Point", self.points_xy), ("Box corner", self.box_xyxy)):
            if coordinates is None:
                continue
            pairs = coordinates.reshape(-1, 2)
            outside = ((pairs < 0) | (pairs > limit)).any(axis=1)
            if outside.any():
                x, y = pairs[outside][0]
                raise PromptError(
                    f"{what} ({x:g}, {y:g}) lies outside the image, which is {width} wide and {height} high. "
                    "Coordinates are pixels of the original image, x then y."
                )


def checked_points(
    points_xy: npt.ArrayLike | None, labels: npt.ArrayLike | None
) -> tuple[FloatArray | None, IntArray | None]:
    """Validate points and labels: float32 [N, 2] and int64 [N], by default all foreground. Raises `PromptError`."""
    if points_xy is None:
        if labels is not None:
            raise PromptError("labels are given without points_xy.")
        return None, None
    points = _float_array(points_xy, "points_xy")
    if points.size == 0:
        raise PromptError("points_xy is empty. Leave it out, or give at least one point.")
    if points.ndim != 2 or points.shape[1] != 2:
        raise PromptError(f"points_xy must have shape [N, 2], got {list(points.shape)}.")
    if labels is None:
        return points, np.full(len(points), FOREGROUND, dtype=np.int64)
    given = _array(labels, "labels")
    if given.ndim != 1 or len(given) != len(points):
        raise PromptError(
            f"There are {len(points)} points but labels of shape {list(given.shape)}. Give one label a point."
        )
    if given.dtype.kind not in "fiub" or not np.isin(given, (BACKGROUND, FOREGROUND)).all():
        raise PromptError(f"labels must be 1 (foreground) or 0 (background), got {_short(given.tolist())}.")
    return points, given.astype(np.int64)


def _checked_box(box_xyxy: npt.ArrayLike) -> FloatArray:
    box = _float_array(box_xyxy, "box_xyxy")
    if box.shape != (4,):
        raise PromptError(f"box_xyxy must be four numbers, x0 y0 x1 y1, got shape {list(box.shape)}.")
    x0, y0, x1, y1 = box
    if x1 <= x0 or y1 <= y0:
        raise PromptError(
            f"box_xyxy ({x0:g}, {y0:g}, {x1:g}, {y1:g}) has no area: it needs x1 > x0 and y1 > y0 "
            "(left, top, right, bottom; not width and height)."
        )
    return box


def _checked_mask(mask: npt.ArrayLike) -> BoolArray:
    given = np.array(_array(mask, "mask"))  # a copy, since the caller may modify the original
    if given.dtype != np.bool_ or given.ndim != 2:
        raise PromptError(f"mask must be bool [H, W], got {given.dtype} {list(given.shape)}.")
    if not given.any():
        raise PromptError("The mask is empty. Set the pixels of the object to True.")
    return given


def _checked_mask_logits(mask_logits: npt.ArrayLike) -> FloatArray:
    if _array(mask_logits, "mask_logits").dtype == np.bool_:
        raise PromptError(
            "mask_logits must be the low_res_logits of an earlier prediction. Give a boolean mask at the size of the "
            "image as `mask`."
        )
    mask = _float_array(mask_logits, "mask_logits")
    if mask.ndim != 2:
        raise PromptError(f"mask_logits must have shape [h, w], got {list(mask.shape)}.")
    if np.abs(mask).max(initial=0) > MAX_LOGIT:
        raise PromptError(
            f"mask_logits reach {np.abs(mask).max():g}, which is no logit: those of the models reach a few tens."
        )
    return mask
