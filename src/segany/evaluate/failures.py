"""Pictures of the objects with the lowest scores: annotation, prediction and prompts, in one mosaic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segany.core.arrays import BoolArray, FloatArray, PixelArray
from segany.core.boxes import mask_box
from segany.core.polygons import mask_to_polygons
from segany.data.item import AnnotatedImage
from segany.evaluate.clicks import Click
from segany.evaluate.interactive import box_objects, click_objects
from segany.evaluate.protocol import Protocol
from segany.evaluate.protocols import BoxProtocol, ClickCountProtocol, ClickProtocol, ImageSubject
from segany.evaluate.results import Results
from segany.imaging.visualize.draw import draw_outlines, draw_overlay
from segany.imaging.visualize.marks import draw_box, draw_point
from segany.imaging.visualize.style import BLACK, PALETTE, WHITE, Sizes

TILE = 300
"""Side of a picture in pixels. Smaller crops are enlarged."""

CAPTION = 34
"""Height of the text above and below the pictures, in pixels."""

MARGIN = 0.35
"""Margin around an object, as a share of its longer side."""

TARGET_COLOR = PALETTE[1]
"""Color of the outline of the annotation. Predictions have the first color of the palette."""

FAILURES = 12
"""Default number of objects in a mosaic."""

COLUMNS = 4


@dataclass(frozen=True)
class Failure:
    """An object with a low score.

    Attributes:
        name: name of its image.
        index: index of the object in its image.
        score: its score.
    """

    name: str
    index: int
    score: float


def worst_objects(results: Results, protocol: Protocol, count: int = FAILURES) -> list[Failure]:
    """The objects with the lowest scores, in ascending order; none for protocols without scores of objects."""
    found = [
        Failure(name, int(record["object"]), score)
        for name, records in results.records[protocol.name].items()
        for record in records
        if (score := protocol.worst(record)) is not None
    ]
    return sorted(found, key=lambda one: (one.score, one.name, one.index))[:count]


def draw_failure(subject: ImageSubject, protocol: Protocol, failure: Failure) -> PixelArray:
    """Predict one object again with the prompts of the protocol, and draw the prediction and the annotation.

    Returns:
        uint8 [TILE + CAPTION, TILE, 3].
    """
    annotated, index = subject.annotated, failure.index
    clicks: Sequence[Click] = ()
    box_xyxy: FloatArray | None = None
    if isinstance(protocol, BoxProtocol):
        box_xyxy = annotated.objects.mask_boxes_xyxy[index]
        mask = next(box_objects(subject.predictor, subject.embedding, annotated, [index])).mask
        prompt = "box"
    else:
        assert isinstance(protocol, (ClickProtocol, ClickCountProtocol))
        clicked = next(click_objects(subject.predictor, subject.embedding, annotated, protocol.plan, [index]))
        clicks, mask = clicked.clicks, clicked.mask
        prompt = f"{len(clicks)} click{'' if len(clicks) == 1 else 's'}"
    return draw_object(annotated, index, mask, f"IoU {failure.score:.2f}, {prompt}", clicks, box_xyxy)


def draw_object(
    annotated: AnnotatedImage,
    index: int,
    mask: BoolArray,
    caption: str,
    clicks: Sequence[Click] = (),
    box_xyxy: FloatArray | None = None,
) -> PixelArray:
    """Draw one object with its annotation, its prediction and the prompts.

    Args:
        annotated: the image and its objects.
        index: index of the object, which must have at least one pixel.
        mask: bool [H, W], the predicted mask.
        caption: a short text below the picture.
        clicks: the clicks.
        box_xyxy: float32 [4], the box prompt.

    Returns:
        uint8 [TILE + CAPTION, TILE, 3].
    """
    tile = _draw(annotated, index, mask, clicks, box_xyxy)
    picture = Image.new("RGB", (TILE, TILE + CAPTION), WHITE)
    picture.paste(tile, ((TILE - tile.width) // 2, (TILE - tile.height) // 2))
    _write(picture, caption, (4, TILE + 1), 12)
    _write(picture, _shortened(f"{annotated.name} #{index}"), (4, TILE + 16), 11)
    return np.array(picture)


def mosaic(tiles: Sequence[PixelArray], title: str) -> PixelArray:
    """Arrange pictures of one size, uint8 [h, w, 3], in a grid with a title and a legend: uint8 [H, W, 3]."""
    columns = min(COLUMNS, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    height, width = tiles[0].shape[:2]
    gap = 6
    canvas = Image.new("RGB", (columns * (width + gap) + gap, CAPTION + rows * (height + gap)), WHITE)
    _write(canvas, title, (gap, 2), 13)
    left = gap
    for color, text in ((TARGET_COLOR, "annotation"), (PALETTE[0], "prediction")):
        ImageDraw.Draw(canvas).rectangle((left, 22, left + 14, 28), fill=color)
        _write(canvas, text, (left + 20, 18), 12)
        left += 100
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        canvas.paste(Image.fromarray(tile), (gap + column * (width + gap), CAPTION + row * (height + gap)))
    return np.array(canvas)


def _draw(
    annotated: AnnotatedImage, index: int, mask: BoolArray, clicks: Sequence[Click], box_xyxy: FloatArray | None
) -> Image.Image:
    """Draw the object and its surroundings, at most TILE wide and high."""
    target = annotated.objects.mask(index)
    left, top, right, bottom = _surroundings(target, clicks)
    part = np.s_[top:bottom, left:right]
    scale = TILE / max(right - left, bottom - top)
    size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    pixels = np.array(Image.fromarray(annotated.image[part]).resize(size, Image.Resampling.BICUBIC))
    target, mask = (
        np.array(Image.fromarray(one[part]).resize(size, Image.Resampling.NEAREST)) for one in (target, mask)
    )
    canvas = Image.fromarray(draw_overlay(pixels, mask[None]))
    sizes = Sizes.fitting((size[1], size[0]))
    draw_outlines(canvas, mask_to_polygons(target), TARGET_COLOR, sizes)
    if box_xyxy is not None:
        corners = (box_xyxy - np.array([left, top, left, top])) * scale
        draw_box(canvas, corners.astype(np.float32), PALETTE[3], sizes)
    for click in clicks:
        draw_point(canvas, ((click.x + 0.5 - left) * scale, (click.y + 0.5 - top) * scale), click.label, sizes)
    return canvas


def _surroundings(target: BoolArray, clicks: Sequence[Click]) -> tuple[int, int, int, int]:
    """The crop to show, left, top, right and bottom: the object, all clicks, and a margin."""
    height, width = target.shape
    box = mask_box(target)
    assert box is not None  # only visible objects are prompted
    xs, ys = [click.x for click in clicks], [click.y for click in clicks]
    left, top = min([box[0], *xs]), min([box[1], *ys])
    right, bottom = max([box[2], *(x + 1 for x in xs)]), max([box[3], *(y + 1 for y in ys)])
    margin = math.ceil(MARGIN * max(right - left, bottom - top)) + 2
    return max(0, left - margin), max(0, top - margin), min(width, right + margin), min(height, bottom + margin)


def _shortened(text: str, most: int = 48) -> str:
    return text if len(text) <= most else f"...{text[-most + 3 :]}"


def _write(canvas: Image.Image, text: str, xy: tuple[int, int], size: int) -> None:
    ImageDraw.Draw(canvas).text(xy, text, BLACK, ImageFont.load_default(size))
