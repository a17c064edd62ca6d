"""The files that the automatic masks of an image become. One function a format; it makes bytes and touches no disk."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from segany.core.arrays import PixelArray
from segany.data.formats.records import LabelOrder, MaskRecord, MaskRecords
from segany.data.formats.writing import json_bytes, png_bytes

METADATA_COLUMNS = (
    "id", "area", "bbox_x0", "bbox_y0", "bbox_w", "bbox_h", "point_input_x", "point_input_y", "predicted_iou",
    "stability_score", "crop_box_x0", "crop_box_y0", "crop_box_w", "crop_box_h",
)  # fmt: skip
"""Those of the metadata.csv that the official `amg.py` writes."""


@dataclass(frozen=True, eq=False)
class RecordedImage:
    """An image with the masks the generator found in it, and how its label map is made.

    Attributes:
        source: the file the image came from.
        image: uint8 [H, W, 3].
        records: the masks.
        label_order, label_fill: as `MaskRecords.to_label_map` takes them.
    """

    source: Path
    image: PixelArray
    records: MaskRecords
    label_order: LabelOrder = "area"
    label_fill: bool = False


RecordEncoder: TypeAlias = Callable[[RecordedImage], Iterator[tuple[str, bytes]]]
"""From a result to its files: what each is called after the name of the image, and what it holds."""


def encode_coco(result: RecordedImage) -> Iterator[tuple[str, bytes]]:
    """COCO annotations of this image alone."""
    yield "_auto_coco.json", json_bytes(result.records.to_coco(result.source.name))


def encode_sa1b(result: RecordedImage) -> Iterator[tuple[str, bytes]]:
    """What the SA-1B dataset has for an image."""
    yield "_auto_sa1b.json", json_bytes(result.records.to_sa1b(result.source.name))


def encode_label_map(result: RecordedImage) -> Iterator[tuple[str, bytes]]:
    """A PNG of 16 bits, or a NumPy file of 32 where the labels need them: 0 for none, i + 1 for the i-th mask."""
    labels = result.records.to_label_map(result.label_order, fill=result.label_fill)
    if len(result.records) <= np.iinfo(np.uint16).max:
        yield "_auto_labels.png", png_bytes(labels.astype(np.uint16))
    else:
        buffer = io.BytesIO()
        np.save(buffer, labels)
        yield "_auto_labels.npy", buffer.getvalue()


def encode_masks_png(result: RecordedImage) -> Iterator[tuple[str, bytes]]:
    """A folder like that of the official `amg.py`: a gray PNG a mask, and a table of the rest, which comes last."""
    for index, record in enumerate(result.records):
        yield f"_auto_masks/{index}.png", png_bytes(record.mask.astype(np.uint8) * np.uint8(255))
    rows = [METADATA_COLUMNS, *(_metadata(index, record) for index, record in enumerate(result.records))]
    yield "_auto_masks/metadata.csv", "".join(",".join(map(str, row)) + "\n" for row in rows).encode()


def encode_overlay(result: RecordedImage) -> Iterator[tuple[str, bytes]]:
    """One picture of all masks."""
    yield "_auto_overlay.png", png_bytes(result.records.overlay(result.image))


def encode_npz(result: RecordedImage) -> Iterator[tuple[str, bytes]]:
    """A compressed NumPy archive: `masks` bool [K, H, W], and an array for each other field of `MaskRecord`."""
    records = result.records
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        # One mask at a time: all of them would take a byte for every pixel of every mask.
        with archive.open("masks.npy", "w", force_zip64=True) as file:
            header = {"descr": "|b1", "fortran_order": False, "shape": (len(records), *records.size_hw)}
            np.lib.format.write_array_header_1_0(file, header)
            for record in records:
                file.write(record.mask.tobytes())
        for name, array in _columns(records).items():
            with archive.open(f"{name}.npy", "w") as column:
                np.lib.format.write_array(column, array, allow_pickle=False)
    yield "_auto.npz", buffer.getvalue()


RECORD_FORMATS: dict[str, RecordEncoder] = {
    "coco": encode_coco,
    "sa1b": encode_sa1b,
    "label-map": encode_label_map,
    "masks-png": encode_masks_png,
    "overlay": encode_overlay,
    "npz": encode_npz,
}
"""What automatic masks can be written as."""

DEFAULT_RECORD_FORMATS = ("coco", "overlay")
"""Everything there is to know, and a picture to look at."""


def _metadata(index: int, record: MaskRecord) -> tuple[Any, ...]:
    scores = (record.predicted_iou, record.stability_score)
    return (index, record.area, *record.bbox_xywh, *record.point_xy, *scores, *record.crop_box_xywh)


def _columns(records: MaskRecords) -> dict[str, npt.NDArray[Any]]:
    return {
        "area": np.array([record.area for record in records], dtype=np.int64),
        "bbox_xywh": np.array([record.bbox_xywh for record in records], dtype=np.float32).reshape(-1, 4),
        "predicted_iou": np.array([record.predicted_iou for record in records], dtype=np.float32),
        "stability_score": np.array([record.stability_score for record in records], dtype=np.float32),
        "point_xy": np.array([record.point_xy for record in records], dtype=np.float32).reshape(-1, 2),
        "crop_box_xywh": np.array([record.crop_box_xywh for record in records], dtype=np.int64).reshape(-1, 4),
    }
