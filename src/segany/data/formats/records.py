"""What the automatic mask generator finds: one record a mask, and all of them together."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import numpy as np

from segany.core.arrays import BoolArray, PixelArray, SizeHW
from segany.core.errors import ConfigError, ImageError, InstancesError, MissingExtraError
from segany.core.label_map import LabelArray, fill_nearest
from segany.core.polygons import Polygon, mask_to_polygons
from segany.core.rle import Rle, coco_bbox_xywh, decode_crop
from segany.imaging.image import ImageSource, read_image
from segany.imaging.visualize.mosaic import draw_mosaic

LabelOrder = Literal["area", "score"]


@dataclass(frozen=True)
class MaskRecord:
    """One mask of an image, and how it came about.

    Attributes:
        size_hw: size of the image in pixels.
        rle_counts: the mask as COCO's compressed run lengths.
        area: of the mask, in pixels.
        bbox_xywh: left, top, and the differences of the last and first column and row, as the official
            code has them: a mask of one pixel is 0 wide and 0 high.
        predicted_iou: the model's own estimate of the mask's quality; may exceed 1 slightly.
        stability_score: IoU of the masks at a higher and a lower threshold.
        point_xy: the point that prompted the mask, in pixels of the image.
        crop_box_xywh: the part of the image it was found in.
    """

    size_hw: SizeHW
    rle_counts: str
    area: int
    bbox_xywh: tuple[float, float, float, float]
    predicted_iou: float
    stability_score: float
    point_xy: tuple[float, float]
    crop_box_xywh: tuple[int, int, int, int]

    @property
    def rle(self) -> Rle:
        """The mask as COCO has it in JSON."""
        return Rle(size=list(self.size_hw), counts=self.rle_counts)

    @property
    def mask(self) -> BoolArray:
        """bool [H, W], decoded each time."""
        mask = np.zeros(self.size_hw, dtype=np.bool_)
        part, (x, y) = decode_crop(self.rle)
        mask[y : y + part.shape[0], x : x + part.shape[1]] = part
        return mask

    @property
    def polygons(self) -> tuple[Polygon, ...]:
        """The parts of the mask with their holes; filling them gives exactly the mask."""
        return mask_to_polygons(*decode_crop(self.rle))


@dataclass(frozen=True, repr=False)
class MaskRecords(Sequence[MaskRecord]):
    """The masks of one image, those with the highest predicted IoU first. There may be none.

    Masks stay run-length encoded until asked for: a hundred of them take less memory than one picture.

    Attributes:
        records: the masks; they are sorted when this is built, and equal ones keep their order.
        size_hw: size of the image in pixels.

    Raises:
        InstancesError: a record belongs to an image of another size.
    """

    records: tuple[MaskRecord, ...]
    size_hw: SizeHW

    def __post_init__(self) -> None:
        best_first = tuple(sorted(self.records, key=lambda record: -record.predicted_iou))
        object.__setattr__(self, "records", best_first)
        for record in best_first:
            if record.size_hw != self.size_hw:
                raise InstancesError(f"A mask has the size {record.size_hw}, but the image {self.size_hw}.")

    def __repr__(self) -> str:
        height, width = self.size_hw
        return f"<{len(self)} masks of an image {width} wide and {height} high>"

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[MaskRecord]:
        return iter(self.records)

    @overload
    def __getitem__(self, index: int) -> MaskRecord: ...

    @overload
    def __getitem__(self, index: slice) -> MaskRecords: ...

    def __getitem__(self, index: int | slice) -> MaskRecord | MaskRecords:
        if isinstance(index, slice):
            return MaskRecords(self.records[index], self.size_hw)
        return self.records[index]

    def masks(self) -> BoolArray:
        """bool [K, H, W], all masks decoded: a byte for each pixel of each mask."""
        stack = np.zeros((len(self), *self.size_hw), dtype=np.bool_)
        for place, record in zip(stack, self, strict=True):
            place[...] = record.mask
        return stack

    def to_label_map(self, order: LabelOrder = "area", *, fill: bool = False) -> LabelArray:
        """A map without overlaps: every pixel belongs to one mask at most.

        Args:
            order: which mask a pixel belongs to that several cover. "area": the smallest, so that parts
                lie over the whole; of equally large ones, and with "score", the one with the highest
                predicted IoU.
            fill: give every pixel that no mask covers to the mask nearest to it.

        Returns:
            int32 [H, W]: 0 where there is no mask, i + 1 for the mask of `self[i]`.

        Raises:
            ConfigError: there is no such order.
        """
        if order not in ("area", "score"):
            raise ConfigError(f"order must be 'area' or 'score', got {order!r}.")
        labels = self._painted(order)
        return fill_nearest(labels) if fill else labels

    def to_polygons(self) -> tuple[tuple[Polygon, ...], ...]:
        """The polygons of each mask."""
        return tuple(record.polygons for record in self)

    def overlay(self, image: ImageSource) -> PixelArray:
        """A picture of all masks over the image, smaller ones above larger ones.

        Args:
            image: the image the masks belong to: a path, a Pillow image or an array.

        Returns:
            uint8 [H, W, 3].

        Raises:
            ImageError: the image cannot be read, or is of another size than the masks.
        """
        pixels = read_image(image)
        if pixels.shape[:2] != self.size_hw:
            (height, width), (image_height, image_width) = self.size_hw, pixels.shape[:2]
            raise ImageError(
                f"The image is {image_width} wide and {image_height} high, but the masks are {width} wide and "
                f"{height} high. Give the image they were made from."
            )
        outlines = ((index + 1, self[index].polygons) for index in self._bottom_first("area"))
        return draw_mosaic(pixels, self.to_label_map(), outlines)

    def to_coco(self, file_name: str = "", image_id: int = 1) -> dict[str, Any]:
        """A COCO dictionary of this image alone.

        `bbox` counts pixels as COCO does: a mask of one pixel is 1 wide and 1 high. `score` is the
        predicted IoU, which `predicted_iou`, `stability_score`, `point_coords` and `crop_box` accompany
        under the names SA-1B has for them.
        """
        height, width = self.size_hw
        annotations = [
            {
                "id": index,
                "image_id": image_id,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": list(coco_bbox_xywh(record.rle)),
                "area": record.area,
                "score": record.predicted_iou,
                "segmentation": record.rle,
                **_generator_facts(record),
            }
            for index, record in enumerate(self, start=1)
        ]
        return {
            "info": {"description": "Masks made with segany"},
            "images": [{"id": image_id, "file_name": file_name, "width": width, "height": height}],
            "categories": [{"id": 1, "name": "object"}],
            "annotations": annotations,
        }

    def to_sa1b(self, file_name: str = "", image_id: int = 1) -> dict[str, Any]:
        """The dictionary of the JSON file that the SA-1B dataset has for each image."""
        height, width = self.size_hw
        annotations = [
            {
                "id": index,
                "segmentation": record.rle,
                "bbox": list(record.bbox_xywh),
                "area": record.area,
                **_generator_facts(record),
            }
            for index, record in enumerate(self, start=1)
        ]
        image = {"image_id": image_id, "width": width, "height": height, "file_name": file_name}
        return {"image": image, "annotations": annotations}

    @classmethod
    def from_coco(cls, data: Mapping[str, Any], image_id: int | None = None) -> MaskRecords:
        """Read what `to_coco` made, or a dictionary of many images that holds the same fields.

        Args:
            data: the dictionary.
            image_id: which image; may be left out where there is only one.

        Raises:
            InstancesError: the image is not there, a field is missing, or a mask is damaged.
        """
        from segany.data.formats.record_json import parse_coco

        return cls(*parse_coco(data, image_id))

    @classmethod
    def from_sa1b(cls, data: Mapping[str, Any]) -> MaskRecords:
        """Read the dictionary of a JSON file of the SA-1B dataset, or what `to_sa1b` made.

        Raises:
            InstancesError: a field is missing, or a mask is damaged.
        """
        from segany.data.formats.record_json import parse_sa1b

        return cls(*parse_sa1b(data))

    def to_supervision(self) -> Any:
        """The masks as `supervision.Detections`.

        Boxes are those of `bbox_xywh`, confidences predicted IoUs; `data` holds `stability_score` and
        `area`. There are no classes, as in that library's own `from_sam`.

        Raises:
            MissingExtraError: the library is not installed.
        """
        try:
            supervision = importlib.import_module("supervision")
        except ImportError as error:
            raise MissingExtraError("to_supervision needs the library. Install it: pip install supervision") from error
        boxes_xywh = np.array([record.bbox_xywh for record in self], dtype=np.float32).reshape(-1, 4)
        return supervision.Detections(
            xyxy=np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1),
            mask=self.masks(),
            confidence=np.array([record.predicted_iou for record in self], dtype=np.float32),
            data={
                "stability_score": np.array([record.stability_score for record in self], dtype=np.float32),
                "area": np.array([record.area for record in self], dtype=np.int64),
            },
        )

    def _painted(self, order: LabelOrder) -> LabelArray:
        height, width = self.size_hw
        columns = np.zeros((width, height), dtype=np.int32)  # the way masks lie in memory
        for index in self._bottom_first(order):
            part, (x, y) = decode_crop(self[index].rle)
            np.copyto(columns[x : x + part.shape[1], y : y + part.shape[0]], np.int32(index + 1), where=part.T)
        return np.ascontiguousarray(columns.T)

    def _bottom_first(self, order: LabelOrder) -> list[int]:
        """Indices in the order in which masks are painted over each other."""
        if order == "score":
            return list(range(len(self)))[::-1]
        return sorted(range(len(self)), key=lambda index: (-self[index].area, -index))


def _generator_facts(record: MaskRecord) -> dict[str, Any]:
    """What the generator knows of a mask, under the names the official code and SA-1B have for it."""
    return {
        "predicted_iou": record.predicted_iou,
        "point_coords": [list(record.point_xy)],
        "stability_score": record.stability_score,
        "crop_box": list(record.crop_box_xywh),
    }
