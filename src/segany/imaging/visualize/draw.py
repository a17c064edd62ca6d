"""Overlays of an image with masks, prompts and scores."""

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
"""Largest supersampling factor of outlines, for antialiasing."""

VIDEO_SUPERSAMPLING = 2
"""Supersampling factor for video frames, which is smaller for speed; lossy compression hides the difference."""

LINE_PIXELS = 40_000_000
"""Most pixels of a supersampled layer; larger images are drawn with less supersampling."""

SPECK = 5
"""Components and holes smaller than this many line widths get a thin line without a rim, which would hide them."""

CORNER_CUT = 1.0
"""Pixels by which corners of an outline are cut along both sides, which smooths the steps of the pixel grid."""


MAX_RINGS = 10_000
"""Most rings (components and holes) of a mask with an outline. Masks with more are noise, and slow to draw."""


def draw_overlay(
    image: PixelArray,
    masks: BoolArray,
    scores: FloatArray | None = None,
    prompts: Sequence[Prompt] = (),
) -> PixelArray:
    """Draw masks over an image, with one color per object.

    A mask is tinted and has an outline in its color with a white rim (none above `MAX_RINGS` rings). Foreground points
    are green discs with a plus, background points red discs with a minus, boxes dashed rectangles in the object's
    color. A label shows the score, the object's number if there are several, and whether the prompt has a mask.

    Args:
        image: uint8 [H, W, 3].
        masks: bool [K, H, W], one mask per object.
        scores: float32 [K], clipped to 1; without scores, no labels are drawn.
        prompts: prompts of the K masks; by default none are drawn.

    Returns:
        uint8 [H, W, 3], a new array.
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
    """Draw the masks of tracked objects over a frame. The color of an object depends only on its id.

    Masks are drawn as in `draw_overlay`. If there are several objects, a label shows the id of each visible object.

    Args:
        image: uint8 [H, W, 3].
        masks: bool [O, H, W].
        object_ids: ids of the O objects.

    Returns:
        uint8 [H, W, 3], a new array.
    """
    sizes = Sizes.fitting((image.shape[0], image.shape[1]))
    colors = [object_color(object_id - 1) for object_id in object_ids]  # object ids usually start at 1
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
    """Draw tints and outlines of masks, bool [K, H, W], over an image, each in its color."""
    largest_first = np.argsort(-masks.sum(axis=(1, 2)), kind="stable").tolist()  # so that small masks are on top
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
    """Draw outlines along all rings of polygons, unless there are more than `MAX_RINGS`."""
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
        # Pillow's coordinates refer to pixel centers, polygons to pixel corners.
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
    """Blend a color into the pixels of a mask, with lookup tables, since floats would need too much memory.

    The color is blended with `image`, not with `tinted`, so that overlapping masks keep their own colors.
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
    """Draw boxes, then points. Returns the rectangles that the points cover."""
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
    """Return the box of a mask, or of its prompt if the mask is empty, and the x coordinate of its topmost pixels."""
    box = mask_box(mask)
    if box is not None:
        return box, float(np.flatnonzero(mask[box[1]]).mean())
    points = [] if prompt is None else [p.reshape(-1, 2) for p in (prompt.points_xy, prompt.box_xyxy) if p is not None]
    corners = np.concatenate(points) if points else np.zeros((1, 2), dtype=np.float32)
    (x0, y0), (x1, y1) = corners.min(axis=0).astype(int).tolist(), corners.max(axis=0).astype(int).tolist()
    return (x0, y0, x1, y1), (x0 + x1) / 2
