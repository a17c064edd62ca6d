"""Decoding of COCO segmentations (polygons and run-length encodings), and of JSON files."""

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
"""Largest number of pixels in an image size that a file states, checked before memory is allocated for masks."""

MAX_PATH_LENGTH = 5_000_000
"""Largest perimeter of the polygons of one mask in pixels; pycocotools allocates about 40 bytes per pixel of it."""

MIN_POLYGON_NUMBERS = 6
"""Coordinates of a polygon with three vertices. Polygons with fewer have no area; pycocotools reads four as a box."""


def read_json(path: Path) -> Any:
    """Read a JSON file and return its content.

    Raises:
        DataError: the file is missing, not readable, or not JSON.
    """
    return parse_json(read_file(path, DataError), str(path))


def parse_json(data: bytes, what: str) -> Any:
    """Parse JSON text. `what` is the start of the error message.

    Raises:
        DataError: the text is not JSON, or is truncated.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:  # text that is not UTF-8 is a ValueError as well
        reason = "it is empty" if not data.strip() else f"it is damaged or cut off ({error})"
        raise DataError(f"{what} cannot be read as JSON: {reason}.") from error


def checked_size(height: Any, width: Any) -> SizeHW:
    """Validate the image size that a file states, and return it as integers.

    Raises:
        ValueError: a side is below 1, or there are more than `MAX_PIXELS` pixels.
        TypeError, OverflowError: a side is not a number.
    """
    size_hw = int(height), int(width)
    if min(size_hw) < 1 or size_hw[0] * size_hw[1] > MAX_PIXELS:
        raise ValueError(
            f"an image cannot be {_short(width)} wide and {_short(height)} high: at most {MAX_PIXELS:,} pixels are read"
        )
    return size_hw


def check_path_length(rings: Sequence[npt.NDArray[np.float64]]) -> None:
    """Raise `ValueError` if the polygons [N, 2] of a mask, in pixels, have a perimeter above `MAX_PATH_LENGTH`."""
    length = sum(float(np.abs(ring - np.roll(ring, 1, axis=0)).max(axis=1).sum()) for ring in rings if len(ring))
    if not length <= MAX_PATH_LENGTH:
        raise ValueError(
            f"Its outline is {length:.3g} pixels long, more than the {MAX_PATH_LENGTH:,} that are read for one mask."
        )


def encode_segmentations(segmentations: Sequence[Any], size_hw: SizeHW) -> list[Rle | None]:
    """Encode the segmentations of several annotations of one image; see `encode_segmentation`.

    Raises:
        InstancesError: a segmentation is damaged; the message states its index.
    """
    encodings = []
    for number, segmentation in enumerate(segmentations):
        try:
            encodings.append(encode_segmentation(segmentation, size_hw))
        except ValueError as error:
            raise InstancesError(f"mask {number} is damaged. {error}") from error
    return encodings


def encode_segmentation(segmentation: Any, size_hw: SizeHW) -> Rle | None:
    """Validate a COCO segmentation and convert it to a compressed run-length encoding.

    Args:
        segmentation: polygons [[x, y, x, y, ...], ...] in pixels of the image, whose union is rasterized by
            pycocotools; an uncompressed run-length encoding `{"size": [h, w], "counts": [...]}`; or a compressed one,
            whose counts are a string.
        size_hw: size of the image.

    Returns:
        The encoding; None if there is no segmentation, no polygon, or no polygon with at least three vertices.

    Raises:
        ValueError: the segmentation has none of these forms, has another size, or is damaged.
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
    """Compress run lengths, int64 [R], in column-major order and background first. Their sum must be H * W."""
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
    """Return the coordinates, float64 [2 N]; None for fewer than three vertices."""
    try:
        ring = np.asarray(polygon, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"A polygon must be a list of numbers x, y, x, y, ..., not {_short(polygon)}.") from error
    if ring.ndim != 1 or len(ring) % 2:
        raise ValueError(f"A polygon must be a list of numbers x, y, x, y, ..., not of shape {list(ring.shape)}.")
    # Vertices slightly outside are common. Far outside they are damage, and pycocotools allocates by the distance.
    if not np.isfinite(ring).all() or np.abs(ring).max(initial=0) > 2 * max(size_hw):
        raise ValueError(f"A polygon has a corner far outside of the image: {_short(polygon)}.")
    return ring if len(ring) >= MIN_POLYGON_NUMBERS else None


def _checked_runs(counts: Any, size_hw: SizeHW) -> npt.NDArray[np.int64]:
    runs = np.asarray(counts)
    if runs.ndim != 1 or runs.dtype.kind not in "iu" or runs.min(initial=0) < 0:
        raise ValueError("Its run lengths are not whole numbers from 0.")
    height, width = size_hw
    total = sum(runs.tolist())  # integers of Python do not overflow
    if total != height * width:
        raise ValueError(f"The run lengths add up to {total}, not to its size, {width} x {height}.")
    return runs.astype(np.int64)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
