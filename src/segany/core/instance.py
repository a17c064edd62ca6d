"""One object with a mask, and its class: a row of `Instances`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from segany.core.arrays import BoolArray, SizeHW
from segany.core.polygons import Polygon, mask_to_polygons
from segany.core.rle import Rle, decode_crop, decode_mask, mask_area

Source: TypeAlias = Literal["prompt", "automatic", "text", "track", "human", "import"]
"""How a mask came about."""

NO_ID = -1
"""In `category_ids` and `object_ids`, of an instance that has none."""


@dataclass(frozen=True)
class Category:
    """A class of objects.

    Attributes:
        id: the number that annotations refer to.
        name: for people; unique within a dataset.
        supercategory: a wider class, as COCO has it; may be empty.
    """

    id: int
    name: str
    supercategory: str = ""


@dataclass(frozen=True, eq=False)
class Instance:
    """One object: a row of `Instances`. Optional columns are attributes too, such as `instance.predicted_iou`.

    Attributes:
        rle: the mask as COCO has it in JSON.
        box_xyxy: left, top, right, bottom in pixels of the image, half-open; zeros for an empty mask.
        score: the number that ranks; NaN where there is none.
        category: None where the object has no class.
        object_id: the object's identity across frames or files; `NO_ID` where it has none.
        source: how the mask came about.
        columns: values of the optional columns.
    """

    rle: Rle
    box_xyxy: tuple[float, float, float, float]
    score: float
    category: Category | None
    object_id: int
    source: Source
    columns: Mapping[str, Any]

    @property
    def size_hw(self) -> SizeHW:
        """Size of the image in pixels."""
        height, width = self.rle["size"]
        return height, width

    @property
    def mask(self) -> BoolArray:
        """bool [H, W], decoded each time."""
        return decode_mask(self.rle)

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return mask_area(self.rle)

    @property
    def polygons(self) -> tuple[Polygon, ...]:
        """The parts of the mask with their holes; filling them gives exactly the mask."""
        return mask_to_polygons(*decode_crop(self.rle))

    def __getattr__(self, name: str) -> Any:
        columns = self.__dict__.get("columns", {})  # not there yet while it is unpickled
        if name in columns:
            return columns[name]
        raise AttributeError(f"An instance has no {name!r}; its optional columns: {', '.join(columns) or 'none'}.")
