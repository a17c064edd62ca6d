"""Lossless conversion between masks and polygons.

A polygon follows the edges of the pixels ("cracks"), not their centers: pixel (row, column) is the square from
(column, row) to (column + 1, row + 1), as everywhere in segany. A single pixel therefore has an area of one,
components and holes are preserved, and filling the polygons gives exactly the mask.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from segany.core.arrays import BoolArray, SizeHW
from segany.core.boxes import mask_box

RingArray: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Polygon:
    """One 4-connected component of a mask.

    Rings are simple: none crosses or touches itself, though two may touch at a corner. They are open (the first point
    is not repeated at the end) and contain corners only, no points on a straight line.

    Attributes:
        exterior: float64 [N, 2], x and y in pixels; clockwise in image coordinates (y downwards), so that the
            shoelace formula gives a positive area.
        holes: float64 [N, 2] each, counterclockwise.
    """

    exterior: RingArray
    holes: tuple[RingArray, ...] = ()

    @property
    def rings(self) -> tuple[RingArray, ...]:
        """The exterior and the holes."""
        return (self.exterior, *self.holes)

    @property
    def area(self) -> float:
        """Area in square pixels, without the holes."""
        return sum(signed_area(ring) for ring in self.rings)


def signed_area(ring: RingArray) -> float:
    """Compute the area of a ring [N, 2] by the shoelace formula: positive for exteriors, negative for holes."""
    x, y = ring[:, 0], ring[:, 1]
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def mask_to_polygons(mask: BoolArray, origin_xy: tuple[int, int] = (0, 0)) -> tuple[Polygon, ...]:
    """Trace the contours of a mask.

    Args:
        mask: bool [H, W].
        origin_xy: top left corner of the mask in the image, if it is a crop of a larger mask.

    Returns:
        A polygon for each component, from top to bottom; none for an empty mask.
    """
    box = mask_box(mask)
    if box is None:
        return ()
    left, top, right, bottom = box
    corner_xy = np.array([left + origin_xy[0], top + origin_xy[1]], dtype=np.float64)
    return _Cracks(mask[top:bottom, left:right]).polygons(corner_xy)


def polygons_to_mask(polygons: Iterable[Polygon], size_hw: SizeHW) -> BoolArray:
    """Fill polygons: a pixel is set if its center lies inside by the even-odd rule.

    Args:
        polygons: polygons with corners anywhere; they are clipped to the image.
        size_hw: height and width of the mask.

    Returns:
        bool [H, W].
    """
    height, width = size_hw
    rings = [ring for polygon in polygons for ring in polygon.rings]
    if not rings:
        return np.zeros(size_hw, dtype=np.bool_)
    start = np.concatenate(rings)
    end = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    downwards = (start[:, 1] <= end[:, 1])[:, None]
    upper, lower = np.where(downwards, start, end), np.where(downwards, end, start)
    # Scanline fill: find where each edge crosses the center of a row. Right of a crossing, inside and outside swap.
    first, stop = (np.ceil(points[:, 1] - 0.5).clip(0, height).astype(np.int64) for points in (upper, lower))
    edge = np.repeat(np.arange(len(start)), stop - first)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(stop - first) - stop, stop - first)
    slope = (lower - upper)[edge]
    x = upper[edge, 0] + (row + 0.5 - upper[edge, 1]) * slope[:, 0] / slope[:, 1]
    column = np.ceil(x - 0.5).clip(0, width).astype(np.int64)
    swaps = np.bincount(row * (width + 1) + column, minlength=height * (width + 1)).reshape(height, width + 1)
    inside: BoolArray = np.logical_xor.accumulate(swaps[:, :width] & 1, axis=1, dtype=np.bool_)
    return inside


class _Cracks:
    """The directed boundary of a mask: straight runs from corner to corner, with the mask on their right.

    At most corners, one run ends and one begins. Where two pixels touch diagonally there are two of each; such a
    corner is represented by two *ends*, one for each of the pixels. Ends are numbered row by row from left to right,
    so that ends 2k and 2k + 1 bound one horizontal run; in column-major order they bound the vertical runs.
    """

    def __init__(self, mask: BoolArray) -> None:
        padded = np.pad(mask, 1)
        self.buffer, self.stride = padded.tobytes(), padded.shape[1]
        across, down = padded[:, 1:] ^ padded[:, :-1], padded[1:] ^ padded[:-1]
        y, x = np.nonzero((across[1:] | across[:-1]) & (down[:, 1:] | down[:, :-1]))
        upper_right, lower_right = padded[y, x + 1], padded[y + 1, x + 1]
        diagonal = (upper_right == padded[y + 1, x]) & (lower_right == padded[y, x])

        corner = np.repeat(np.arange(len(x)), 1 + diagonal)
        self.corner = corner
        self.corner_xy = np.stack([x[corner], y[corner]], axis=1)
        self.diagonal = diagonal[corner]
        self.mask_follows = lower_right[corner]  # the pixel to the lower right of the corner
        self.following = np.empty_like(corner)  # the end at which the run that starts at an end stops

        left, right = np.arange(len(corner)).reshape(-1, 2).T
        eastwards = self.mask_follows[left]
        self.following[np.where(eastwards, left, right)] = np.where(eastwards, right, left)

        # The first end of a diagonal corner bounds the run to its left. The contour turns up if the upper left pixel
        # is set and down if the upper right pixel is set, around the pixel that it belongs to.
        is_second = np.append(False, corner[1:] == corner[:-1])
        turns_down = is_second ^ (diagonal & upper_right)[corner]
        upper, lower = np.lexsort((turns_down, y[corner], x[corner])).reshape(-1, 2).T
        northwards = self.mask_follows[upper]
        self.run_start = np.where(northwards, lower, upper)  # of the vertical runs, column by column
        self.run_key = self._key(*self.corner_xy[upper].T)
        self.following[self.run_start] = np.where(northwards, upper, lower)

    def polygons(self, origin_xy: RingArray) -> tuple[Polygon, ...]:
        """Trace all rings and assign each hole to its exterior; `origin_xy` is added to the coordinates."""
        rings = self._rings()
        ring_of_end = np.empty_like(self.corner)
        for number, ring in enumerate(rings):
            ring_of_end[ring] = number
        exteriors: list[int] = []  # index of the exterior of each ring
        members: dict[int, list[RingArray]] = {}
        for number, ring in enumerate(rings):
            is_hole = not self.mask_follows[ring[0]]
            exteriors.append(exteriors[ring_of_end[self._left_of(ring[0])]] if is_hole else number)
            members.setdefault(exteriors[-1], []).append(self.corner_xy[ring] + origin_xy)
        return tuple(Polygon(exterior, tuple(holes)) for exterior, *holes in members.values())

    def _rings(self) -> list[list[int]]:
        """Return the rings as lists of ends, each beginning with its first end in row order, and sorted by it."""
        corner, diagonal, following = self.corner.tolist(), self.diagonal.tolist(), self.following.tolist()
        done = [False] * len(following)
        rings = []
        for start in range(len(following)):
            end = start
            path: list[int] = []
            places: dict[int, int] = {}  # diagonal corners on the path
            while not done[end]:
                done[end] = True
                if diagonal[end]:
                    if corner[end] in places:  # the ring touches itself here: split off the loop as a ring
                        loop = path[places[corner[end]] :]
                        del path[-len(loop) :]
                        for other in loop:
                            places.pop(corner[other], None)
                        rings.append(loop)
                    places[corner[end]] = len(path)
                path.append(end)
                end = following[end]
            if path:
                rings.append(path)
        return sorted(_rotated(ring) for ring in rings)

    def _left_of(self, end: int) -> int:
        """Return an end of an earlier ring of the same component, given the first end of a hole.

        The pixels to the left of the hole belong to the component up to the next crack, which is on that ring.
        """
        x, y = self.corner_xy[end].tolist()
        row = (y + 1) * self.stride
        background = self.buffer.rfind(b"\0", row, row + x) - row
        run = np.searchsorted(self.run_key, self._key(background, y), side="right") - 1
        return int(self.run_start[run])

    def _key(self, x: Any, y: Any) -> Any:
        """Return a sort key for corners: by column, then by row."""
        return x * len(self.buffer) + y


def _rotated(ring: list[int]) -> list[int]:
    first = ring.index(min(ring))
    return ring[first:] + ring[:first]
