"""One object with a mask, a row of `Instances`, and its category."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from segany.core.arrays import BoolArray, SizeHW
from segany.core.polygons import Polygon, mask_to_polygons
from segany.core.rle import Rle, decode_crop, decode_mask, mask_area

Source: TypeAlias = Literal["prompt", "automatic", "text", "track", "human", "import"]
"""Origin of a mask: a prompt, automatic mask generation, a text prompt, tracking, a person, or a file."""

NO_ID = -1
"""Value in `category_ids` and `object_ids` of an instance without category or object id."""


@dataclass(frozen=True)
class Category:
    """A class of objects.

    Attributes:
        id: the id that annotations refer to.
        name: the name, unique within a dataset.
        supercategory: the supercategory of COCO; may be empty.
    """

    id: int
    name: str
    supercategory: str = ""


@dataclass(frozen=True, eq=False)
class Instance:
    """One object: a row of `Instances`. Optional columns are attributes too, such as `instance.predicted_iou`.

    Attributes:
        rle: the mask as a COCO run-length encoding.
        box_xyxy: left, top, right, bottom in pixels of the image, half-open; zeros for an empty mask.
        score: the score by which instances are ranked; NaN if there is none.
        category: the category; None if there is none.
        object_id: identity of the object across frames or files; `NO_ID` if there is none.
        source: origin of the mask.
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
        """The mask, bool [H, W]; decoded on each access."""
        return decode_mask(self.rle)

    @property
    def area(self) -> int:
        """Area of the mask in pixels."""
        return mask_area(self.rle)

    @property
    def polygons(self) -> tuple[Polygon, ...]:
        """Polygons with holes of the connected components of the mask; filling them gives exactly the mask."""
        return mask_to_polygons(*decode_crop(self.rle))

    def __getattr__(self, name: str) -> Any:
        columns = self.__dict__.get("columns", {})  # not set yet during unpickling
        if name in columns:
            return columns[name]
        raise AttributeError(f"An instance has no {name!r}; its optional columns: {', '.join(columns) or 'none'}.")
