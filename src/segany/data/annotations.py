"""Segmentations as COCO's JSON has them, polygons and run lengths, and reading JSON files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from segany.core.arrays import SizeHW
from segany.core.errors import DataError, InstancesError
from segany.core.files import read_file
from segany.core.rle import Rle, run_lengths

MAX_PIXELS = 10**9
"""Of an image as a file claims it. Masks of larger ones would fill the memory before the image itself is read."""

MAX_PATH_LENGTH = 5_000_000
"""Pixels along the outline of one mask. pycocotools takes some forty bytes for each."""

MIN_POLYGON_NUMBERS = 6
"""Three corners. What has fewer has no area, and pycocotools takes four numbers for a box."""


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        DataError: it is missing, may not be read, or is no JSON.
    """
    return parse_json(read_file(path, DataError), str(path))


def parse_json(data: bytes, what: str) -> Any:
    """What JSON text holds; `what` begins the message.

    Raises:
        DataError: it is no JSON, or it is cut off.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:  # text that is not UTF-8 is a ValueError as well
        reason = "it is empty" if not data.strip() else f"it is damaged or cut off ({error})"
        raise DataError(f"{what} cannot be read as JSON: {reason}.") from error


def checked_size(height: Any, width: Any) -> SizeHW:
    """The size of an image as a file claims it.

    Raises:
        ValueError: it is not made of whole numbers from 1, or of more than `MAX_PIXELS`.
        TypeError, OverflowError: it is not made of numbers.
    """
    size_hw = int(height), int(width)
    if min(size_hw) < 1 or size_hw[0] * size_hw[1] > MAX_PIXELS:
        raise ValueError(
            f"an image cannot be {_short(width)} wide and {_short(height)} high: at most {MAX_PIXELS:,} pixels are read"
        )
    return size_hw


def check_path_length(rings: Sequence[npt.NDArray[np.float64]]) -> None:
    """Raise `ValueError` where the rings [N, 2] of a mask, in pixels, are so long that filling them takes gigabytes."""
    length = sum(float(np.abs(ring - np.roll(ring, 1, axis=0)).max(axis=1).sum()) for ring in rings if len(ring))
    if not length <= MAX_PATH_LENGTH:
        raise ValueError(
            f"Its outline is {length:.3g} pixels long, more than the {MAX_PATH_LENGTH:,} that are read for one mask."
        )


def encode_segmentations(segmentations: Sequence[Any], size_hw: SizeHW) -> list[Rle | None]:
    """The masks of annotations, in their order; see `encode_segmentation`.

    Raises:
        InstancesError: one is damaged; the message has its number, from 0.
    """
    encodings = []
    for number, segmentation in enumerate(segmentations):
        try:
            encodings.append(encode_segmentation(segmentation, size_hw))
        except ValueError as error:
            raise InstancesError(f"mask {number} is damaged. {error}") from error
    return encodings


def encode_segmentation(segmentation: Any, size_hw: SizeHW) -> Rle | None:
    """One mask of COCO's, in any of its three forms, checked.

    Args:
        segmentation: polygons [[x, y, x, y, ...], ...], whose union is the mask, filled as pycocotools does;
            `{"size": [h, w], "counts": [...]}`, run lengths; or the same with the counts compressed.
        size_hw: of the image.

    Returns:
        None where there is no mask: nothing at all, no polygons, or polygons of fewer than three corners.

    Raises:
        ValueError: it is none of these, of another size, or damaged.
    """
    if segmentation is None:
        return None
    if isinstance(segmentation, (list, tuple)):
        return _from_polygons(segmentation, size_hw)
    if not isinstance(segmentation, dict) or "counts" not in segmentation:
        raise ValueError(f"A mask is a list of polygons or has run lengths as counts, not {_short(segmentation)}.")
    height, width = size_hw
    if segmentation.get("size") not in ([height, width], (height, width)):
        raise ValueError(
            f"It is of size {_short(segmentation.get('size'))}, but the image is [{height}, {width}], height and width."
        )
    counts = segmentation["counts"]
    if isinstance(counts, (list, tuple, np.ndarray)):
        return encode_runs(_checked_runs(counts, size_hw), size_hw)
    if isinstance(counts, bytes):
        counts = counts.decode("ascii")
    if not isinstance(counts, str):
        raise ValueError(f"Its counts are {_short(counts)}, neither run lengths nor text.")  # noqa: TRY004
    encoding = Rle(size=[height, width], counts=counts)
    run_lengths(encoding)  # for its checks: pycocotools has none
    return encoding


def encode_runs(lengths: npt.NDArray[np.int64], size_hw: SizeHW) -> Rle:
    """Compress run lengths [R], background first, that add up to the size."""
    size = [int(side) for side in size_hw]
    encoding = coco_mask.frPyObjects({"size": size, "counts": lengths.tolist()}, *size)
    return Rle(size=size, counts=encoding["counts"].decode("ascii"))


def _from_polygons(polygons: Sequence[Any], size_hw: SizeHW) -> Rle | None:
    height, width = size_hw
    rings = [ring for ring in (_checked_ring(polygon, size_hw) for polygon in polygons) if ring is not None]
    if not rings:
        return None
    check_path_length([ring.reshape(-1, 2) for ring in rings])
    merged = coco_mask.merge(coco_mask.frPyObjects([ring.tolist() for ring in rings], height, width))
    return Rle(size=[height, width], counts=merged["counts"].decode("ascii"))


def _checked_ring(polygon: Any, size_hw: SizeHW) -> npt.NDArray[np.float64] | None:
    """[2 N], None where it has no area."""
    try:
        ring = np.asarray(polygon, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"A polygon must be a list of numbers x, y, x, y, ..., not {_short(polygon)}.") from error
    if ring.ndim != 1 or len(ring) % 2:
        raise ValueError(f"A polygon must be a list of numbers x, y, x, y, ..., not of shape {list(ring.shape)}.")
    # A little outside is common; far outside is damage, and would cost pycocotools memory by the distance.
    if not np.isfinite(ring).all() or np.abs(ring).max(initial=0) > 2 * max(size_hw):
        raise ValueError(f"A polygon has a corner far outside of the image: {_short(polygon)}.")
    return ring if len(ring) >= MIN_POLYGON_NUMBERS else None


def _checked_runs(counts: Any, size_hw: SizeHW) -> npt.NDArray[np.int64]:
    runs = np.asarray(counts)
    if runs.ndim != 1 or runs.dtype.kind not in "iu" or runs.min(initial=0) < 0:
        raise ValueError("Its run lengths are not whole numbers from 0.")
    height, width = size_hw
    total = sum(runs.tolist())  # of Python's numbers, which do not overflow
    if total != height * width:
        raise ValueError(f"The run lengths add up to {total}, not to its size, {width} x {height}.")
    return runs.astype(np.int64)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
