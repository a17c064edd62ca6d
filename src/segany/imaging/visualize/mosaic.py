"""Overlay of many masks, in colors that contrast with neighboring masks and the image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from segany.core.arrays import PixelArray
from segany.core.errors import ImageError
from segany.core.instances import Instances
from segany.core.label_map import LabelArray
from segany.imaging.image import ImageSource, read_image
from segany.imaging.visualize.draw import draw_outlines
from segany.imaging.visualize.style import PALETTE, Color, Sizes

MOSAIC_TINT = 0.5
"""Opacity of the mask colors; higher than for single objects, since many masks must be distinguishable."""

LINE_SHARE, RIM_SHARE = 0.6, 0.5
"""Widths of outlines and rims relative to those of single objects."""

SUPERSAMPLING = 2
"""Supersampling factor of outlines; a higher one does not improve thin lines and takes three times as long."""

ENOUGH_CONTRAST = 150.0
"""Distance of two RGB colors above which the contrast counts as sufficient."""

REPETITION = 0.9
"""Factor by which each use of a color reduces its contrast when the next color is chosen."""

TINT_ROWS = 256
"""Rows that are tinted at a time, which bounds the memory for float intermediates."""


def draw_instances(image: ImageSource, instances: Instances) -> PixelArray:
    """Draw the masks of all instances over their image, smaller masks on top.

    Where masks overlap, the tint is that of the smallest; all outlines are drawn completely.

    Args:
        image: the image of the instances, as for `read_image`.
        instances: the instances; there may be none.

    Returns:
        uint8 [H, W, 3], a new array.

    Raises:
        ImageError: the image cannot be read, or its size differs from that of the masks.
    """
    pixels = read_image(image)
    if pixels.shape[:2] != instances.size_hw:
        (height, width), (image_height, image_width) = instances.size_hw, pixels.shape[:2]
        raise ImageError(
            f"The image is {image_width} wide and {image_height} high, but the masks are {width} wide and "
            f"{height} high. Give the image they were made from."
        )
    labels = instances.to_label_map()
    colors = choose_colors(pixels, labels)
    table = np.array(colors, dtype=np.float32) * np.float32(MOSAIC_TINT)
    tinted = pixels.copy()
    for top in range(0, len(pixels), TINT_ROWS):
        rows = slice(top, top + TINT_ROWS)
        mixture = np.rint(pixels[rows] * np.float32(1 - MOSAIC_TINT) + table[labels[rows]])
        np.copyto(tinted[rows], mixture.astype(np.uint8), where=(labels[rows] > 0)[..., None])
    canvas = Image.fromarray(tinted)
    sizes = Sizes.fitting(instances.size_hw)
    thin = replace(sizes, line=max(1.0, sizes.line * LINE_SHARE), rim=sizes.rim * RIM_SHARE)
    for index in instances.bottom_first():
        label = index + 1
        # Masks that others cover completely have no label in the map, and so no chosen color.
        color = colors[label] if label < len(colors) else PALETTE[label % len(PALETTE)]
        draw_outlines(canvas, instances[index].polygons, color, thin, SUPERSAMPLING)
    return np.array(canvas)


def choose_colors(image: PixelArray, labels: LabelArray) -> list[Color]:
    """Choose a color of the palette for every label from 0 to the largest; that of 0 is not used.

    Greedy graph coloring by descending area: each region gets the color with the highest contrast to its colored
    neighbors and to the image below it, where frequently used colors are penalized.

    Args:
        image: uint8 [H, W, 3].
        labels: int32 [H, W].
    """
    count = int(labels.max(initial=0))
    palette = np.array(PALETTE, dtype=np.float64)
    pixels = np.bincount(labels.reshape(-1), minlength=count + 1)
    beneath = _mean_colors(image, labels, count)
    neighbors = _neighbors(labels, count)
    chosen: dict[int, int] = {}
    uses = np.zeros(len(palette))
    for label in (np.argsort(-pixels[1:], kind="stable") + 1).tolist():
        taken = palette[[chosen[other] for other in neighbors[label] if other in chosen]]
        others = np.concatenate([taken, beneath[label : label + 1]])
        contrast = np.linalg.norm(palette[:, None] - others, axis=2).min(axis=1)
        chosen[label] = int((contrast.clip(max=ENOUGH_CONTRAST) * REPETITION**uses).argmax())
        uses[chosen[label]] += 1
    return [PALETTE[0], *(PALETTE[chosen[label]] for label in range(1, count + 1))]


def _mean_colors(image: PixelArray, labels: LabelArray, count: int) -> npt.NDArray[np.float64]:
    """Compute the mean image color of every label, [count + 1, 3], from a subsample of the pixels."""
    step = max(1, max(labels.shape) // 600)
    sample = labels[::step, ::step].reshape(-1)
    pixels = image[::step, ::step].reshape(-1, 3)
    sums = [np.bincount(sample, weights=pixels[:, channel], minlength=count + 1) for channel in range(3)]
    means: npt.NDArray[np.float64] = np.stack(sums, axis=1) / np.bincount(sample, minlength=count + 1).clip(1)[:, None]
    return means


def _neighbors(labels: LabelArray, count: int) -> list[set[int]]:
    """Return the adjacent labels of every label, including those a few pixels away, since masks often leave gaps."""
    near = max(3, max(labels.shape) // 150)
    pairs = []
    for distance in (1, near):
        for one, other in ((labels[:, distance:], labels[:, :-distance]), (labels[distance:], labels[:-distance])):
            differ = (one != other) & (one > 0) & (other > 0)
            pairs.append(np.unique(one[differ].astype(np.int64) * (count + 1) + other[differ]))
    neighbors: list[set[int]] = [set() for _ in range(count + 1)]
    for pair in np.unique(np.concatenate(pairs)).tolist():
        one_label, other_label = divmod(pair, count + 1)
        neighbors[one_label].add(other_label)
        neighbors[other_label].add(one_label)
    return neighbors
