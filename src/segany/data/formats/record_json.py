"""Reading the JSON that holds mask records: COCO and the files of the SA-1B dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from segany.core.arrays import SizeHW
from segany.core.errors import InstancesError
from segany.core.rle import Rle, coco_bbox_xywh, run_lengths
from segany.data.formats.records import MaskRecord

_Model = TypeVar("_Model", bound=BaseModel)
_Side = Annotated[int, Field(ge=1)]


class _Segmentation(BaseModel):
    size: tuple[int, int]
    counts: str


class _Annotation(BaseModel):
    segmentation: _Segmentation
    predicted_iou: float
    stability_score: float
    point_coords: Annotated[list[tuple[float, float]], Field(min_length=1, max_length=1)]
    crop_box: tuple[int, int, int, int]


class _Image(BaseModel):
    width: _Side
    height: _Side

    @property
    def size_hw(self) -> SizeHW:
        return self.height, self.width


class _Sa1b(BaseModel):
    image: _Image
    annotations: list[Any]


class _CocoImage(_Image):
    id: int


class _Coco(BaseModel):
    images: list[_CocoImage]
    annotations: list[Any]


def parse_sa1b(data: Mapping[str, Any]) -> tuple[tuple[MaskRecord, ...], SizeHW]:
    """The masks of a file of SA-1B, and the size of its image.

    Raises:
        InstancesError: a field is missing, or a mask is damaged.
    """
    content = _validated(_Sa1b, data, "The SA-1B dictionary")
    return _records(content.annotations, content.image.size_hw), content.image.size_hw


def parse_coco(data: Mapping[str, Any], image_id: int | None) -> tuple[tuple[MaskRecord, ...], SizeHW]:
    """The masks of one image of a COCO dictionary, of the only one where none is chosen, and the image's size.

    Raises:
        InstancesError: the image is not there, a field is missing, or a mask is damaged.
    """
    content = _validated(_Coco, data, "The COCO dictionary")
    if image_id is None and len(content.images) != 1:
        raise InstancesError(f"The COCO dictionary has {len(content.images)} images. Choose one: give its image_id.")
    image = next((image for image in content.images if image_id in (None, image.id)), None)
    if image is None:
        raise InstancesError(f"The COCO dictionary has no image with the id {image_id}.")
    annotations = (item for item in content.annotations if isinstance(item, dict) and item.get("image_id") == image.id)
    return _records(annotations, image.size_hw), image.size_hw


def _records(annotations: Iterable[Any], size_hw: SizeHW) -> tuple[MaskRecord, ...]:
    return tuple(_record(item, f"Annotation {number}", size_hw) for number, item in enumerate(annotations, start=1))


def _record(data: Any, where: str, size_hw: SizeHW) -> MaskRecord:
    annotation = _validated(_Annotation, data, where)
    encoding = Rle(size=list(annotation.segmentation.size), counts=annotation.segmentation.counts)
    if annotation.segmentation.size != size_hw:
        raise InstancesError(f"{where} has a mask of the size {encoding['size']}, but the image is {list(size_hw)}.")
    try:
        area = int(run_lengths(encoding)[1::2].sum())
    except ValueError as error:
        raise InstancesError(f"{where} has a damaged mask. {error}") from error
    x, y, width, height = coco_bbox_xywh(encoding)
    return MaskRecord(
        size_hw=size_hw,
        rle_counts=annotation.segmentation.counts,
        area=area,
        bbox_xywh=(x, y, max(0.0, width - 1), max(0.0, height - 1)),
        predicted_iou=annotation.predicted_iou,
        stability_score=annotation.stability_score,
        point_xy=annotation.point_coords[0],
        crop_box_xywh=annotation.crop_box,
    )


def _validated(model: type[_Model], data: Any, where: str) -> _Model:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise InstancesError(f"{where} cannot be read: {place}: {problem['msg'].lower()}.") from error
