"""The overlay: an image with its masks, the prompts that led to them, and their scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from segany.core.arrays import BoolArray, FloatArray, PixelArray
from segany.core.boxes import mask_box
from segany.core.polygons import Polygon, RingArray, mask_to_polygons
from segany.core.prompt import Prompt
from segany.imaging.visualize.marks import Labels, Rectangle, draw_box, draw_point
from segany.imaging.visualize.style import TINT, WHITE, Color, Sizes, object_color

LINE_SUPERSAMPLING = 4
"""Outlines are drawn up to that many times larger, which smooths their edges."""

VIDEO_SUPERSAMPLING = 2
"""The same for frames of videos: they are many, and lossy compression hides the rest of the difference."""

LINE_PIXELS = 40_000_000
"""A large picture's outlines are drawn with less supersampling, to need no more pixels than this."""

SPECK = 5
"""Parts and holes smaller than that many lines' widths get a thin line without white, or the white would hide them."""

CORNER_CUT = 1.0
"""Pixels cut off a corner of an outline along both sides, which turns the stairs of pixels into slopes."""


MAX_RINGS = 10_000
"""A mask of more parts and holes is noise, and gets no outline: it would take long and hide everything."""


def draw_overlay(
    image: PixelArray,
    masks: BoolArray,
    scores: FloatArray | None = None,
    prompts: Sequence[Prompt] = (),
) -> PixelArray:
    """Draw masks over an image, one color an object.

    A mask is a tint with an outline of its color within white (noise of more than
    `MAX_RINGS` rings has none). Foreground points are green discs with
    a plus, background points red ones with a minus, boxes dashed rectangles in the object's color. A
    chip tells the score, the object's number where there are several, and of a mask in the prompt.

    Args:
        image: uint8 [H, W, 3].
        masks: bool [K, H, W], one mask an object.
        scores: float32 [K], shown up to 1; no labels are drawn when left out.
        prompts: what led to each of the K masks; none are drawn when left out.

    Returns:
        uint8 [H, W, 3], a new array of the same size.
    """
    sizes = Sizes.fitting((image.shape[0], image.shape[1]))
    canvas = _draw_masks(image, masks, [object_color(index) for index in range(len(masks))], sizes)
    occupied = _draw_prompts(canvas, prompts, sizes)
    if scores is not None:
        labels = Labels(canvas, sizes, occupied)
        for index, mask in enumerate(masks):
            text = _label(index, scores, prompts)
            box, top_x = _extent(mask, prompts[index] if prompts else None)
            labels.draw(text, box, top_x, object_color(index))
    return np.array(canvas)


def draw_tracked(image: PixelArray, masks: BoolArray, object_ids: Sequence[int]) -> PixelArray:
    """Draw the masks of tracked objects over a frame. An object's color depends on its id alone.

    A mask is drawn as in `draw_overlay`; where there are several objects, a chip tells the id of each that
    is visible.

    Args:
        image: uint8 [H, W, 3].
        masks: bool [O, H, W].
        object_ids: the O objects.

    Returns:
        uint8 [H, W, 3], a new array of the same size.
    """
    sizes = Sizes.fitting((image.shape[0], image.shape[1]))
    colors = [object_color(object_id - 1) for object_id in object_ids]  # people count objects from 1
    canvas = _draw_masks(image, masks, colors, sizes, VIDEO_SUPERSAMPLING)
    if len(object_ids) > 1:
        labels = Labels(canvas, sizes)
        for mask, object_id, color in zip(masks, object_ids, colors, strict=True):
            if mask.any():
                labels.draw(str(object_id), *_extent(mask, None), color)
    return np.array(canvas)


def _draw_masks(
    image: PixelArray,
    masks: BoolArray,
    colors: Sequence[Color],
    sizes: Sizes,
    supersampling: int = LINE_SUPERSAMPLING,
) -> Image.Image:
    """Tints and outlines of masks, bool [K, H, W], each in its color, over an image."""
    largest_first = np.argsort(-masks.sum(axis=(1, 2)), kind="stable").tolist()  # or it would cover the others
    tinted = image.copy()
    for index in largest_first:
        _tint(tinted, image, masks[index], colors[index])
    canvas = Image.fromarray(tinted)
    for index in largest_first:
        draw_outlines(canvas, mask_to_polygons(masks[index]), colors[index], sizes, supersampling)
    return canvas


def draw_outlines(
    canvas: Image.Image,
    polygons: Iterable[Polygon],
    color: Color,
    sizes: Sizes,
    supersampling: int = LINE_SUPERSAMPLING,
) -> None:
    """Draw lines along all rings of polygons, unless there are more than `MAX_RINGS`."""
    traced = [ring for polygon in polygons for ring in polygon.rings]
    if not traced or len(traced) > MAX_RINGS:
        return
    rings = [_without_stairs(ring) for ring in traced]
    margin = math.ceil(sizes.line / 2 + sizes.rim) + 1
    corners = np.concatenate(rings)
    left, top = (np.floor(corners.min(axis=0)).astype(int) - margin).tolist()
    right, bottom = (np.ceil(corners.max(axis=0)).astype(int) + margin).tolist()
    factor = int(min(supersampling, max(1.0, math.sqrt(LINE_PIXELS / ((right - left) * (bottom - top))))))
    layers = [Image.new("L", ((right - left) * factor, (bottom - top) * factor)) for _ in range(2)]
    rims, lines = (ImageDraw.Draw(layer) for layer in layers)
    for ring in rings:
        # Pillow's coordinates are centers of pixels, ours are their corners.
        points = ((ring - (left, top)) * factor - 0.5).ravel().tolist()
        closed = [*points, *points[:4]]
        is_speck = np.ptp(ring, axis=0).max() < SPECK * sizes.line
        line = sizes.line / 2 if is_speck else sizes.line
        lines.line(closed, fill=255, width=max(1, round(line * factor)), joint="curve")
        if sizes.rim and not is_speck:
            rims.line(closed, fill=255, width=max(1, round((line + 2 * sizes.rim) * factor)), joint="curve")
    for layer, fill in zip(layers, (WHITE, color), strict=True):
        canvas.paste(fill, (left, top), layer.reduce(factor))


def _tint(tinted: PixelArray, image: PixelArray, mask: BoolArray, color: Color) -> None:
    """Mix the color into the pixels of a mask, with tables: floats of a large image would fill the memory.

    Mixes with `image` and not with what is tinted already: a mixture of mixtures would be nobody's color.
    """
    found = mask_box(mask)
    if found is None:
        return
    left, top, right, bottom = found
    box = np.s_[top:bottom, left:right]
    tables = np.rint(np.arange(256) * (1 - TINT) + np.array(color)[:, None] * TINT).astype(int)  # [3, 256]
    mixed = Image.fromarray(np.ascontiguousarray(image[box])).point(tables.ravel().tolist())
    np.copyto(tinted[box], np.asarray(mixed), where=mask[box][..., None])


def _without_stairs(ring: RingArray) -> RingArray:
    """Replace each corner [N, 2] by two points [2N, 2] a little before and after it."""
    steps = np.roll(ring, -1, axis=0) - ring
    lengths = np.abs(steps).sum(axis=1, keepdims=True)  # the steps are along one axis
    cut = np.minimum(CORNER_CUT, lengths / 2) * steps / lengths
    return np.stack([ring + cut, np.roll(ring, -1, axis=0) - cut], axis=1).reshape(-1, 2)


def _draw_prompts(canvas: Image.Image, prompts: Sequence[Prompt], sizes: Sizes) -> list[Rectangle]:
    """Draw boxes, then points. Returns what the points cover."""
    for index, prompt in enumerate(prompts):
        if prompt.box_xyxy is not None:
            draw_box(canvas, prompt.box_xyxy, object_color(index), sizes)
    occupied = []
    reach = math.ceil(sizes.point)
    for prompt in prompts:
        if prompt.points_xy is None or prompt.labels is None:
            continue
        for (x, y), label in zip(prompt.points_xy.tolist(), prompt.labels.tolist(), strict=True):
            draw_point(canvas, (x, y), label, sizes)
            occupied.append((round(x) - reach, round(y) - reach, round(x) + reach, round(y) + reach))
    return occupied


def _label(index: int, scores: npt.NDArray[np.floating], prompts: Sequence[Prompt]) -> str:
    number = f"{index + 1}:  " if len(scores) > 1 else ""
    from_mask = "  from mask" if prompts and prompts[index].has_mask else ""
    return f"{number}{min(1.0, scores[index]):.2f}{from_mask}"


def _extent(mask: BoolArray, prompt: Prompt | None) -> tuple[Rectangle, float]:
    """The box of a mask, or of its prompt where the mask is empty, and where it is highest."""
    box = mask_box(mask)
    if box is not None:
        return box, float(np.flatnonzero(mask[box[1]]).mean())
    points = [] if prompt is None else [p.reshape(-1, 2) for p in (prompt.points_xy, prompt.box_xyxy) if p is not None]
    corners = np.concatenate(points) if points else np.zeros((1, 2), dtype=np.float32)
    (x0, y0), (x1, y1) = corners.min(axis=0).astype(int).tolist(), corners.max(axis=0).astype(int).tolist()
    return (x0, y0, x1, y1), (x0 + x1) / 2
