"""A synthetic dataset of simple shapes, for trying out training without data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segany.core.arrays import BoolArray
from segany.core.errors import check, check_numbers
from segany.core.instances import Instances
from segany.data.item import AnnotatedImage

_FloatMap = npt.NDArray[np.float64]

_COLORS_TRIED = 4

_MIN_VISIBLE = 0.4
"""Smallest visible share of a shape that counts as an object."""


@dataclass(frozen=True)
class Shapes:
    """A `Dataset` of overlapping discs, rectangles and triangles on a textured background.

    An image is drawn when it is read. It depends only on the seed and its index, so that datasets with different seeds
    have no image in common.

    Attributes:
        count: number of images.
        side: height and width of the images.
        seed: random seed.
        most: largest number of shapes in an image; the smallest is one.
    """

    count: int
    side: int = 128
    seed: int = 0
    most: int = 3

    def __post_init__(self) -> None:
        check_numbers(self)
        check(self.count > 0 and self.most > 0, "count and most must be positive.")
        check(self.side >= 32, f"side must be at least 32, got {self.side}.")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"shapes-{self.seed}-{index:06d}" for index in range(self.count))

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> AnnotatedImage:
        if not 0 <= index < self.count:
            raise IndexError(f"there are {self.count} pictures, none with the number {index}")
        rng = np.random.default_rng([self.seed, index])
        colors = [_color(rng, [])]
        picture = _textured(rng, colors[0], self.side)
        masks: list[BoolArray] = []
        areas: list[int] = []
        for _ in range(rng.integers(1, self.most + 1)):
            drawn = _DRAWN[rng.integers(len(_DRAWN))](rng, self.side)
            colors.append(_color(rng, colors))
            picture = np.where(drawn[..., None], _textured(rng, colors[-1], self.side), picture)
            masks = [mask & ~drawn for mask in masks]
            masks.append(drawn)
            areas.append(int(drawn.sum()))
        visible = [mask for mask, area in zip(masks, areas, strict=True) if mask.sum() > _MIN_VISIBLE * area]
        image = np.clip(picture, 0, 255).astype(np.uint8)
        return AnnotatedImage(self.names[index], image, Instances.from_masks(np.stack(visible)))


def _color(rng: np.random.Generator, others: list[_FloatMap]) -> _FloatMap:
    """A random color [3] that differs from other colors: the most different of a few candidates."""
    colors = rng.uniform(0, 255, (_COLORS_TRIED, 3))
    distances = [min((float(np.abs(color - other).sum()) for other in others), default=0.0) for color in colors]
    chosen: _FloatMap = colors[int(np.argmax(distances))]
    return chosen


def _textured(rng: np.random.Generator, color: _FloatMap, side: int) -> _FloatMap:
    """A color with a gradient and noise, [side, side, 3]."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    slope = rng.normal(0, 20, (2, 3))
    noise = rng.normal(0, rng.uniform(2, 10), (side, side, 1))
    texture: _FloatMap = color + y[..., None] * slope[0] + x[..., None] * slope[1] + noise
    return texture


def _disc(rng: np.random.Generator, side: int) -> BoolArray:
    y, x = np.mgrid[:side, :side] + 0.5
    center_y, center_x = rng.uniform(0.15, 0.85, 2) * side
    radius = rng.uniform(0.1, 0.25) * side
    return np.asarray((x - center_x) ** 2 + (y - center_y) ** 2 < radius**2)


def _rectangle(rng: np.random.Generator, side: int) -> BoolArray:
    half_width, half_height = rng.uniform(0.09, 0.25, 2) * side
    along, across = _turned(rng, side)
    return np.asarray((np.abs(along) < half_width) & (np.abs(across) < half_height))


def _triangle(rng: np.random.Generator, side: int) -> BoolArray:
    along, across = _turned(rng, side)
    inner = rng.uniform(0.08, 0.15) * side  # radius of the circle inside
    edges = [np.cos(turn) * along + np.sin(turn) * across < inner for turn in 2 * np.pi / 3 * np.arange(3)]
    return np.asarray(np.logical_and.reduce(edges))


def _turned(rng: np.random.Generator, side: int) -> tuple[_FloatMap, _FloatMap]:
    """Pixel coordinates [side, side] along two perpendicular axes with a random origin and a random rotation."""
    y, x = np.mgrid[:side, :side] + 0.5
    center_y, center_x = rng.uniform(0.15, 0.85, 2) * side
    angle = rng.uniform(0, 2 * np.pi)
    x, y = x - center_x, y - center_y
    return np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x


_DRAWN: tuple[Callable[[np.random.Generator, int], BoolArray], ...] = (_disc, _rectangle, _triangle)
