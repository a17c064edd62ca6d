"""Instances as images: overlays, single masks, and cutouts."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from segany.core.arrays import PixelArray
from segany.core.rle import decode_crop
from segany.data.formats.writing import FormatOptions, file_suffixes, png_bytes
from segany.data.item import AnnotatedImage
from segany.imaging.visualize.draw import draw_overlay
from segany.imaging.visualize.mosaic import draw_instances

JPEG_QUALITY = 92


def encode_overlay(annotated: AnnotatedImage, options: FormatOptions) -> Iterator[tuple[str, bytes]]:
    """An overlay of all instances as PNG. For a prediction, it shows prompts and scores; each candidate has its own."""
    for suffix, picture in _overlays(annotated, options):
        yield f"_overlay{suffix}.png", png_bytes(picture)


def encode_overlay_jpg(annotated: AnnotatedImage, options: FormatOptions) -> Iterator[tuple[str, bytes]]:
    """The overlay as JPEG, which takes a tenth of the size."""
    for suffix, picture in _overlays(annotated, options):
        buffer = io.BytesIO()
        # Chroma subsampling would blur the thin lines.
        Image.fromarray(picture).save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
        yield f"_overlay{suffix}.jpg", buffer.getvalue()


def encode_png(annotated: AnnotatedImage, options: FormatOptions) -> Iterator[tuple[str, bytes]]:  # noqa: ARG001
    """A grayscale PNG of the image's size for each instance, 255 inside the mask and 0 outside."""
    for suffix, instance in zip(file_suffixes(annotated.instances), annotated.instances, strict=True):
        yield f"_mask{suffix}.png", png_bytes(instance.mask.astype(np.uint8) * np.uint8(255))


def encode_cutout(annotated: AnnotatedImage, options: FormatOptions) -> Iterator[tuple[str, bytes]]:  # noqa: ARG001
    """A PNG of the bounding box of each mask that is not empty, transparent (and black) outside of the mask."""
    for suffix, instance in zip(file_suffixes(annotated.instances), annotated.instances, strict=True):
        mask, (x, y) = decode_crop(instance.rle)
        if not mask.size:
            continue
        part = annotated.image[y : y + mask.shape[0], x : x + mask.shape[1]]
        colors = np.where(mask[..., None], part, np.uint8(0))
        alpha = np.where(mask[..., None], np.uint8(255), np.uint8(0))
        yield f"_cutout{suffix}.png", png_bytes(np.concatenate([colors, alpha], axis=2))


def _overlays(annotated: AnnotatedImage, options: FormatOptions) -> Iterator[tuple[str, PixelArray]]:
    instances = annotated.instances
    if options.prediction is None:
        yield "", draw_instances(annotated.image, instances)
        return
    prompts = options.prediction.prompts
    has_candidates = "candidate" in instances.columns
    suffixes = file_suffixes(instances)
    groups = [[index] for index in range(len(instances))] if has_candidates else [list(range(len(instances)))]
    for group in groups:
        shown = instances[group]
        led_by = [prompts[object_id - 1] for object_id in shown.object_ids.tolist()]
        picture = draw_overlay(annotated.image, shown.masks(), shown.scores, led_by)
        yield suffixes[group[0]] if has_candidates else "", picture
