"""The picture of many masks at once, in colors that tell each from its neighbors and from the image."""

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
"""Share of the mask's color in its pixels: more than for single objects, since the colors have to tell many apart."""

LINE_SHARE, RIM_SHARE = 0.6, 0.5
"""Outlines are that much thinner than those of single objects."""

SUPERSAMPLING = 2
"""Thin lines look as good with this as with more, and take a third of the time."""

ENOUGH_CONTRAST = 150.0
"""Distance of two RGB colors beyond which more makes no difference to the eye."""

REPETITION = 0.9
"""Share of its contrast that each use of a color leaves it in the choice of the next one."""

TINT_ROWS = 256
"""Rows that are tinted together, which bounds the memory for the arithmetic in floats."""


def draw_instances(image: ImageSource, instances: Instances) -> PixelArray:
    """Draw the masks of all instances over their image, smaller ones above larger ones.

    Pixels that several masks cover have the tint of the smallest; every mask has its whole outline.

    Args:
        image: the image of the instances: a path, a Pillow image or an array.
        instances: any number of them.

    Returns:
        uint8 [H, W, 3], a new array.

    Raises:
        ImageError: the image cannot be read, or is of another size than the masks.
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
        # A mask that others cover entirely has no pixels of its own to choose a color by.
        color = colors[label] if label < len(colors) else PALETTE[label % len(PALETTE)]
        draw_outlines(canvas, instances[index].polygons, color, thin, SUPERSAMPLING)
    return np.array(canvas)


def choose_colors(image: PixelArray, labels: LabelArray) -> list[Color]:
    """A color of the palette for every label from 0 to the largest; that of 0 is never seen.

    Large regions choose first. Each takes the color that differs most from those of the neighbors
    that have one already and from the image beneath it, less so where it was used often.
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
    """The mean color [count + 1, 3] of the image beneath every label, from a few hundred thousand pixels."""
    step = max(1, max(labels.shape) // 600)
    sample = labels[::step, ::step].reshape(-1)
    pixels = image[::step, ::step].reshape(-1, 3)
    sums = [np.bincount(sample, weights=pixels[:, channel], minlength=count + 1) for channel in range(3)]
    means: npt.NDArray[np.float64] = np.stack(sums, axis=1) / np.bincount(sample, minlength=count + 1).clip(1)[:, None]
    return means


def _neighbors(labels: LabelArray, count: int) -> list[set[int]]:
    """For every label those that touch it or come near, since masks often leave a few pixels between them."""
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
