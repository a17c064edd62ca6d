"""The files that a prediction becomes. One function a format; it makes bytes and touches no disk."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from segany.core.arrays import BoolArray, PixelArray
from segany.core.files import write_file
from segany.core.polygons import Polygon, RingArray, mask_to_polygons
from segany.core.prediction import MaskPrediction
from segany.core.rle import encode_masks
from segany.data.formats.writing import check_not_kept, json_bytes, png_bytes
from segany.imaging.visualize.draw import draw_overlay

JPEG_QUALITY = 92


@dataclass(frozen=True, eq=False)
class ObjectMask:
    """One mask that is written.

    Attributes:
        number: the object it belongs to, counted from 1 in the order of the prompts.
        candidate: which of the prompt's candidates, counted from 1; None for the best alone.
        mask: bool [H, W].
        score: the model's own estimate of the IoU.
    """

    number: int
    candidate: int | None
    mask: BoolArray
    score: float

    @property
    def suffix(self) -> str:
        """What tells its files from those of the other masks."""
        return f"_{self.number}" if self.candidate is None else f"_{self.number}_candidate_{self.candidate}"

    @property
    def bbox_xywh(self) -> list[int]:
        """Left, top, width and height in pixels, as COCO has it; zeros for an empty mask."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        if not rows.size:
            return [0, 0, 0, 0]
        x, y = int(columns[0]), int(rows[0])
        return [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]

    @property
    def facts(self) -> dict[str, Any]:
        """What every text format tells of a mask besides its shape."""
        candidate = {} if self.candidate is None else {"candidate": self.candidate}
        return {"object": self.number, **candidate, "score": self.score, "area": int(self.mask.sum())}


@dataclass(frozen=True, eq=False)
class SegmentedImage:
    """An image with the masks found in it.

    Attributes:
        source: the file the image came from.
        image: uint8 [H, W, 3].
        prediction: masks for P prompts, an object each.
        all_candidates: write every candidate of every prompt and not only the best.
    """

    source: Path
    image: PixelArray
    prediction: MaskPrediction
    all_candidates: bool = False

    @property
    def masks(self) -> list[ObjectMask]:
        """The masks to write, object by object."""
        masks = []
        for index, best in enumerate(self.prediction.best_index.tolist()):
            chosen = range(int(self.prediction.candidates[index])) if self.all_candidates else [best]
            for candidate in chosen:
                masks.append(
                    ObjectMask(
                        number=index + 1,
                        candidate=candidate + 1 if self.all_candidates else None,
                        mask=self.prediction.masks[index, candidate],
                        score=float(self.prediction.scores[index, candidate]),
                    )
                )
        return masks


Encoder: TypeAlias = Callable[[SegmentedImage], Iterator[tuple[str, bytes]]]
"""From a result to its files: what each is called after the name of the image, and what it holds."""


def encode_overlay(result: SegmentedImage) -> Iterator[tuple[str, bytes]]:
    """One picture of all objects as PNG; with all candidates, one picture for each."""
    for suffix, picture in _overlays(result):
        yield f"_overlay{suffix}.png", png_bytes(picture)


def encode_overlay_jpg(result: SegmentedImage) -> Iterator[tuple[str, bytes]]:
    """The same as JPEG: a tenth of the size."""
    for suffix, picture in _overlays(result):
        buffer = io.BytesIO()
        # Without subsampling of color, which would smear the thin lines.
        Image.fromarray(picture).save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
        yield f"_overlay{suffix}.jpg", buffer.getvalue()


def encode_png(result: SegmentedImage) -> Iterator[tuple[str, bytes]]:
    """For each mask a gray PNG of the image's size: 255 inside, 0 outside."""
    for item in result.masks:
        yield f"_mask{item.suffix}.png", png_bytes(item.mask.astype(np.uint8) * np.uint8(255))


def encode_cutout(result: SegmentedImage) -> Iterator[tuple[str, bytes]]:
    """For each mask that is not empty a PNG of its bounding box, transparent (and black) outside of it."""
    for item in result.masks:
        x, y, width, height = item.bbox_xywh
        if not width:
            continue
        mask = item.mask[y : y + height, x : x + width, None]
        colors = np.where(mask, result.image[y : y + height, x : x + width], np.uint8(0))
        alpha = np.where(mask, np.uint8(255), np.uint8(0))
        yield f"_cutout{item.suffix}.png", png_bytes(np.concatenate([colors, alpha], axis=2))


def encode_coco(result: SegmentedImage) -> Iterator[tuple[str, bytes]]:
    """A COCO JSON file of this image alone: run-length encoded masks, boxes x y width height, and scores."""
    height, width = result.image.shape[:2]
    masks = result.masks
    annotations = [
        {
            "id": number,
            "image_id": 1,
            "category_id": 1,
            "iscrowd": 0,
            "bbox": item.bbox_xywh,
            **item.facts,
            "segmentation": encode_masks(item.mask)[0],
        }
        for number, item in enumerate(masks, start=1)
    ]
    yield (
        "_coco.json",
        json_bytes(
            {
                "info": {"description": "Masks made with segany"},
                "images": [{"id": 1, "file_name": result.source.name, "width": width, "height": height}],
                "categories": [{"id": 1, "name": "object"}],
                "annotations": annotations,
            }
        ),
    )


def encode_npz(result: SegmentedImage) -> Iterator[tuple[str, bytes]]:
    """A NumPy archive of the whole prediction, all candidates included.

    Holds `masks` bool [P, M, H, W], `scores` float32 [P, M], `low_res_logits` float32 [P, M, h, w] and
    `candidates` int64 [P], as `MaskPrediction` has them.
    """
    prediction = result.prediction
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        masks=prediction.masks,
        scores=prediction.scores,
        low_res_logits=prediction.low_res_logits,
        candidates=prediction.candidates,
    )
    yield "_prediction.npz", buffer.getvalue()


def encode_polygons(result: SegmentedImage) -> Iterator[tuple[str, bytes]]:
    """GeoJSON, a MultiPolygon a mask, with all its parts and holes.

    Coordinates are pixels of the image, x to the right and y down, (0, 0) the corner of its first
    pixel. Polygons run along the edges of pixels and enclose exactly the mask.
    """
    height, width = result.image.shape[:2]
    features = [
        {
            "type": "Feature",
            "id": number,
            "properties": {**item.facts, "bbox_xywh": item.bbox_xywh},
            "geometry": {
                "type": "MultiPolygon",
                "coordinates": [_coordinates(polygon) for polygon in mask_to_polygons(item.mask)],
            },
        }
        for number, item in enumerate(result.masks, start=1)
    ]
    image = {"file_name": result.source.name, "width": width, "height": height}
    yield "_polygons.geojson", json_bytes({"type": "FeatureCollection", "image": image, "features": features})


FORMATS: dict[str, Encoder] = {
    "overlay": encode_overlay,
    "overlay-jpg": encode_overlay_jpg,
    "png": encode_png,
    "cutout": encode_cutout,
    "coco": encode_coco,
    "npz": encode_npz,
    "polygons": encode_polygons,
}
"""What a result can be written as."""

DEFAULT_FORMATS = ("overlay", "png", "coco")
"""A picture to look at, masks for any program, and a text with everything."""


def write_result(
    result: SegmentedImage, formats: Sequence[str], folder: Path, name: str, keep: Collection[Path] = ()
) -> dict[str, list[Path]]:
    """Write a result in some formats: all files, or none.

    Args:
        result: an image and its masks.
        formats: keys of `FORMATS`.
        folder: where to; made when it is missing.
        name: what the files' names begin with.
        keep: resolved paths that must not be overwritten, such as the images themselves.

    Returns:
        For every format the files that were written, each whole.

    Raises:
        OutputError: a file could not be written; those written before it are removed again.
    """
    encoded = {item: [(folder / f"{name}{suffix}", data) for suffix, data in FORMATS[item](result)] for item in formats}
    files = [file for group in encoded.values() for file in group]
    for path, _ in files:
        check_not_kept(path, keep)
    written: list[Path] = []
    try:
        for path, data in files:
            written.append(write_file(path, data))
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return {item: [path for path, _ in group] for item, group in encoded.items()}


def _overlays(result: SegmentedImage) -> Iterator[tuple[str, PixelArray]]:
    masks, prompts = result.masks, result.prediction.prompts
    groups = [[item] for item in masks] if result.all_candidates else [masks]
    for group in groups:
        picture = draw_overlay(
            result.image,
            np.stack([item.mask for item in group]),
            np.array([item.score for item in group], dtype=np.float32),
            [prompts[item.number - 1] for item in group],
        )
        yield group[0].suffix if result.all_candidates else "", picture


def _coordinates(polygon: Polygon) -> list[list[list[int]]]:
    return [_closed(ring) for ring in polygon.rings]


def _closed(ring: RingArray) -> list[list[int]]:
    """GeoJSON repeats the first point as the last. All corners are whole numbers."""
    points: list[list[int]] = ring.astype(np.int64).tolist()
    return [*points, points[0]]
