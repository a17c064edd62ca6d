"""Validation of the columns of `Instances`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from segany.core.arrays import FloatArray, IntArray, check_unmasked, frozen_view
from segany.core.errors import InstancesError
from segany.core.instance import NO_ID, Category, Source


def column(name: str, values: npt.ArrayLike, count: int, dtype: type[np.generic] | None = None) -> npt.NDArray[Any]:
    """Return a read-only copy of values [N, ...] for N = `count` instances.

    Raises:
        InstancesError: there are more or fewer values than instances, or they do not convert to `dtype`.
    """
    check_unmasked(values, name, InstancesError)
    try:
        with np.errstate(over="ignore"):  # numbers too large for float32 become infinite
            array = np.array(values, dtype=dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise InstancesError(f"{name} must have one value per instance, all of one shape: {error}.") from error
    if array.ndim == 0 or len(array) != count:
        raise InstancesError(f"{name} has shape {list(array.shape)}, but there are {count} instances.")
    return frozen_view(array)


def box_column(boxes_xyxy: npt.ArrayLike, count: int) -> FloatArray:
    """Return boxes as float32 [N, 4].

    Raises:
        InstancesError: they have another shape, are not finite, or right lies left of left or bottom above top.
    """
    boxes: FloatArray = column("boxes_xyxy", boxes_xyxy, count, np.float32)
    if boxes.shape[1:] != (4,):
        if count or boxes.size:
            raise InstancesError(f"boxes_xyxy has shape {list(boxes.shape)}, not [{count}, 4].")
        boxes = frozen_view(boxes.reshape(0, 4))
    bad = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    if bad.any():
        shown = ", ".join(f"{value:g}" for value in boxes[bad][0])
        raise InstancesError(f"The box ({shown}) is not left, top, right, bottom.")
    return boxes


def score_column(scores: npt.ArrayLike | None, count: int) -> FloatArray:
    """Return scores as float32 [N]; NaN where none are given.

    Raises:
        InstancesError: they have another shape.
    """
    values: FloatArray = column("scores", np.full(count, np.nan) if scores is None else scores, count, np.float32)
    if values.ndim != 1:
        raise InstancesError(f"scores has shape {list(values.shape)}, not [{count}].")
    return values


def id_column(name: str, values: npt.ArrayLike | None, count: int) -> IntArray:
    """Return ids as int64 [N]; `NO_ID` where none are given.

    Raises:
        InstancesError: they are neither non-negative integers nor `NO_ID`.
    """
    if values is None:
        return frozen_view(np.full(count, NO_ID, dtype=np.int64))
    check_unmasked(values, name, InstancesError)
    given = np.asarray(values)
    if given.size and (given.ndim != 1 or given.dtype.kind not in "iu" or given.min() < NO_ID):
        raise InstancesError(f"{name} must be whole numbers from 0, or {NO_ID} for none, one an instance.")
    return column(name, given, count, np.int64)


def source_column(sources: Source | Sequence[str] | npt.NDArray[np.str_], count: int) -> npt.NDArray[np.str_]:
    """Return sources as str [N], from one for all instances or one for each.

    Raises:
        InstancesError: there is no such source.
    """
    values = [sources] * count if isinstance(sources, str) else np.asarray(sources).tolist()
    unknown = set(values) - set(get_args(Source))
    if unknown:
        raise InstancesError(f"There is no source {unknown.pop()!r}. Sources: {', '.join(get_args(Source))}.")
    return column("sources", values, count, np.str_)


def check_categories(category_ids: IntArray, categories: Sequence[Category]) -> None:
    """Raise `InstancesError` if an id is unknown or two categories have the same id."""
    known = {category.id for category in categories}
    if len(known) != len(categories):
        raise InstancesError(f"Two categories have the same id: {sorted(category.id for category in categories)}.")
    unknown = set(category_ids.tolist()) - known - {NO_ID}
    if unknown:
        raise InstancesError(f"There is no category {min(unknown)}. Known ids: {sorted(known)}.")
