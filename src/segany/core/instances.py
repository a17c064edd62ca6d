"""Objects with masks, the value that predictors return, dataset readers yield and file writers take.

Masks are COCO run-length encodings, decoded on demand, so that a thousand masks need little memory. Boxes are
half-open: x1 and y1 lie one past the last column and row of the mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args, overload

import numpy as np
import numpy.typing as npt

from segany.core.arrays import BoolArray, FloatArray, IntArray, ReadOnlyArrays, SizeHW, check_unmasked
from segany.core.boxes import nms
from segany.core.columns import box_column, check_categories, column, id_column, score_column, source_column
from segany.core.errors import ConfigError, InstancesError
from segany.core.instance import Category, Instance, Source
from segany.core.label_map import LabelArray, fill_nearest, paint_labels
from segany.core.polygons import Polygon
from segany.core.rle import Rle, box_xyxy, decode_mask, encode_masks, mask_area, mask_nms, run_lengths

LabelOrder: TypeAlias = Literal["area", "score"]
"""Which mask is on top where masks overlap in a label map: the smallest, or the first in the order of scores."""

Index: TypeAlias = "slice | Sequence[int] | Sequence[bool] | npt.NDArray[Any]"


@dataclass(frozen=True, eq=False, repr=False)
class Instances(ReadOnlyArrays, Sequence[Instance]):
    """N objects of one image, as columns. N may be 0. The arrays are read-only.

    `len`, iteration and `instances[i]` give rows. Indexing with a slice, an index list or array, or a boolean array
    selects instances: `instances[instances.scores > 0.9]`. Optional columns are attributes too:
    `instances.predicted_iou`.

    Attributes:
        rle_counts: N compressed COCO run-length encodings.
        size_hw: size of the image in pixels.
        boxes_xyxy: float32 [N, 4], half-open; by default the bounding boxes of the masks.
        scores: float32 [N], the scores by which instances are ranked; NaN for none.
        category_ids: int64 [N], ids of `categories`; `NO_ID` for none.
        categories: all categories of the dataset, used or not.
        object_ids: int64 [N], identities across frames or files; `NO_ID` for none.
        sources: str [N], a `Source` each.
        columns: optional columns that a source adds, arrays [N, ...]: `predicted_iou`, `stability_score`, `point_xy`
            and `crop_box_xyxy` of automatic masks, `iscrowd`, `annotation_id` and `annotated_area` of COCO.

    Raises:
        InstancesError: columns differ in length, a category is unknown, a mask is damaged, or a box is not finite.
    """

    rle_counts: tuple[str, ...]
    size_hw: SizeHW
    boxes_xyxy: FloatArray
    scores: FloatArray
    category_ids: IntArray
    categories: tuple[Category, ...]
    object_ids: IntArray
    sources: npt.NDArray[np.str_]
    columns: Mapping[str, npt.NDArray[Any]]

    def __init__(
        self,
        rle_counts: Iterable[str],
        size_hw: SizeHW,
        *,
        boxes_xyxy: npt.ArrayLike | None = None,
        scores: npt.ArrayLike | None = None,
        category_ids: npt.ArrayLike | None = None,
        categories: Iterable[Category] = (),
        object_ids: npt.ArrayLike | None = None,
        sources: Source | Sequence[str] | npt.NDArray[np.str_] = "import",
        columns: Mapping[str, npt.ArrayLike] | None = None,
    ) -> None:
        counts = tuple(rle_counts)
        count = len(counts)
        size_hw = (int(size_hw[0]), int(size_hw[1]))
        for item in counts:  # always, since pycocotools reads past the end of damaged run lengths
            _check_mask(item, size_hw)
        if boxes_xyxy is None:
            boxes_xyxy = [box_xyxy(Rle(size=list(size_hw), counts=item)) for item in counts]
        values: dict[str, Any] = {
            "rle_counts": counts,
            "size_hw": size_hw,
            "boxes_xyxy": box_column(boxes_xyxy, count),
            "scores": score_column(scores, count),
            "category_ids": id_column("category_ids", category_ids, count),
            "categories": tuple(categories),
            "object_ids": id_column("object_ids", object_ids, count),
            "sources": source_column(sources, count),
            "columns": {name: column(name, array, count) for name, array in (columns or {}).items()},
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        check_categories(self.category_ids, self.categories)
        for name in self.columns:
            if (
                name in values
                or name in Instance.__annotations__
                or hasattr(Instances, name)
                or hasattr(Instance, name)
            ):
                raise InstancesError(f"An optional column cannot be called {name}: instances have that already.")

    @classmethod
    def from_masks(cls, masks: npt.ArrayLike, **columns: Any) -> Instances:
        """Make instances from mask arrays.

        Args:
            masks: bool [N, H, W], or one [H, W].
            columns: as for `Instances`.

        Raises:
            InstancesError: `masks` is not boolean or of another rank, or as for `Instances`.
        """
        check_unmasked(masks, "masks", InstancesError)
        stack = np.asarray(masks)
        if stack.dtype != np.bool_ or stack.ndim not in (2, 3):
            raise InstancesError(f"masks must be bool [N, H, W] or [H, W], got {stack.dtype} {list(stack.shape)}.")
        size_hw = (stack.shape[-2], stack.shape[-1])
        return cls([rle["counts"] for rle in encode_masks(stack)], size_hw, **columns)

    @classmethod
    def from_rles(cls, rles: Iterable[Rle], size_hw: SizeHW, **columns: Any) -> Instances:
        """Make instances from compressed COCO run-length encodings of one size; `columns` as for `Instances`.

        Raises:
            InstancesError: a mask has another size, or as for `Instances`.
        """
        counts = []
        for rle in rles:
            if tuple(rle["size"]) != tuple(size_hw):
                raise InstancesError(f"A mask has the size {list(rle['size'])}, but the image {list(size_hw)}.")
            counts.append(rle["counts"])
        return cls(counts, size_hw, **columns)

    @classmethod
    def empty(cls, size_hw: SizeHW, categories: Iterable[Category] = ()) -> Instances:
        """Make instances with N = 0."""
        return cls((), size_hw, categories=categories)

    @classmethod
    def concatenate(cls, parts: Sequence[Instances], *, drop_unshared: bool = False) -> Instances:
        """Concatenate instances of one image in order, with the union of their categories.

        Args:
            parts: at least one.
            drop_unshared: drop optional columns that some of the parts lack, instead of raising an error.

        Raises:
            InstancesError: there are no parts, their image sizes differ, two of them have different names for a
                category id, or a column is missing in one of them.
        """
        if not parts:
            raise InstancesError("There is nothing to concatenate. Instances.empty(size_hw) has no instances.")
        sizes = {part.size_hw for part in parts}
        if len(sizes) > 1:
            raise InstancesError(f"Instances are of images of different sizes, height and width: {sorted(sizes)}.")
        categories: dict[int, Category] = {}
        for category in (category for part in parts for category in part.categories):
            known = categories.setdefault(category.id, category)
            if known.name != category.name:
                raise InstancesError(f"Category {category.id} is both {known.name!r} and {category.name!r}.")
        filled = [part for part in parts if len(part)] or list(parts[:1])  # parts without instances may lack columns
        names = [name for name in filled[0].columns if all(name in part.columns for part in filled)]
        unshared = {name for part in filled for name in part.columns} - set(names)
        if unshared and not drop_unshared:
            raise InstancesError(f"Some instances have columns that others lack: {', '.join(sorted(unshared))}.")
        return cls._of_checked(
            rle_counts=tuple(counts for part in parts for counts in part.rle_counts),
            size_hw=parts[0].size_hw,
            boxes_xyxy=np.concatenate([part.boxes_xyxy for part in parts]),
            scores=np.concatenate([part.scores for part in parts]),
            category_ids=np.concatenate([part.category_ids for part in parts]),
            categories=tuple(categories.values()),
            object_ids=np.concatenate([part.object_ids for part in parts]),
            sources=np.concatenate([part.sources for part in parts]),
            columns={name: np.concatenate([part.columns[name] for part in filled]) for name in names},
        )

    # Rows.

    def __repr__(self) -> str:
        height, width = self.size_hw
        return f"<{len(self)} instances in an image {width} wide and {height} high>"

    def __eq__(self, other: object) -> bool:
        """Tell whether all columns are equal; NaN equals NaN, and dtypes of optional columns may differ."""
        if not isinstance(other, Instances):
            return NotImplemented
        ours, theirs = (
            {**one._values(), **one.columns, "columns": tuple(sorted(one.columns))} for one in (self, other)
        )
        return ours.keys() == theirs.keys() and all(_equal(value, theirs[name]) for name, value in ours.items())

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self.rle_counts)

    def __iter__(self) -> Iterator[Instance]:
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Instance: ...

    @overload
    def __getitem__(self, index: Index) -> Instances: ...

    def __getitem__(self, index: int | Index) -> Instance | Instances:
        if isinstance(index, (int, np.integer)):
            return self._row(int(index))
        if not isinstance(index, slice):
            index = np.asarray(index)
            index = index if index.size else index.astype(np.int64)  # an empty list becomes a float array
        chosen = np.arange(len(self))[index]
        return self._of_checked(
            rle_counts=tuple(self.rle_counts[i] for i in chosen),
            size_hw=self.size_hw,
            boxes_xyxy=self.boxes_xyxy[chosen],
            scores=self.scores[chosen],
            category_ids=self.category_ids[chosen],
            categories=self.categories,
            object_ids=self.object_ids[chosen],
            sources=self.sources[chosen],
            columns={name: array[chosen] for name, array in self.columns.items()},
        )

    def _row(self, index: int) -> Instance:
        if not -len(self) <= index < len(self):
            raise IndexError(f"instance {index} of {len(self)}")
        x0, y0, x1, y1 = self.boxes_xyxy[index].tolist()
        return Instance(
            rle=self.rle(index),
            box_xyxy=(x0, y0, x1, y1),
            score=float(self.scores[index]),
            category=self.category(int(self.category_ids[index])),
            object_id=int(self.object_ids[index]),
            source=self.sources[index].item(),
            columns={name: _plain(array[index]) for name, array in self.columns.items()},
        )

    def __getattr__(self, name: str) -> npt.NDArray[Any]:
        columns = self.__dict__.get("columns", {})  # not set yet during unpickling
        if name in columns:
            array: npt.NDArray[Any] = columns[name]
            return array
        raise AttributeError(f"The instances have no {name!r}; their optional columns: {', '.join(columns) or 'none'}.")

    # Columns.

    @property
    def rles(self) -> list[Rle]:
        """The masks as COCO run-length encodings."""
        return [self.rle(index) for index in range(len(self))]

    def rle(self, index: int) -> Rle:
        """Return one mask as a COCO run-length encoding."""
        return Rle(size=list(self.size_hw), counts=self.rle_counts[index])

    @property
    def areas(self) -> IntArray:
        """Areas of the masks in pixels, int64 [N]."""
        return np.array([mask_area(rle) for rle in self.rles], dtype=np.int64)

    @property
    def mask_boxes_xyxy(self) -> FloatArray:
        """Bounding boxes of the masks, float32 [N, 4], independent of `boxes_xyxy`; zeros for an empty mask."""
        return np.array([box_xyxy(rle) for rle in self.rles], dtype=np.float32).reshape(-1, 4)

    def mask(self, index: int) -> BoolArray:
        """Decode one mask: bool [H, W]."""
        return decode_mask(self.rle(index))

    def masks(self) -> BoolArray:
        """Decode all masks: bool [N, H, W], one byte per pixel and mask."""
        stack = np.zeros((len(self), *self.size_hw), dtype=np.bool_)
        for index, mask in enumerate(stack):
            mask[...] = self.mask(index)
        return stack

    def polygons(self) -> tuple[tuple[Polygon, ...], ...]:
        """Return polygons with holes for the connected components of each mask; filling them gives the exact mask."""
        return tuple(instance.polygons for instance in self)

    def category(self, category_id: int) -> Category | None:
        """Return the category with an id; None if there is none."""
        return self._categories_by_id.get(category_id)

    @cached_property
    def _categories_by_id(self) -> dict[int, Category]:
        return {category.id: category for category in self.categories}

    def index_of(self, object_id: int) -> int:
        """Return the index of an object by its id. Raises `InstancesError` if there is none."""
        found = np.flatnonzero(self.object_ids == object_id)
        if not len(found):
            known = ", ".join(map(str, self.object_ids.tolist())) or "none"
            raise InstancesError(f"There is no object {object_id}. The objects: {known}.")
        return int(found[0])

    def with_columns(self, **columns: npt.ArrayLike) -> Instances:
        """Return the instances with optional columns, arrays [N, ...], added or replaced."""
        return self._changed(columns={**self.columns, **columns})

    def with_categories(self, category_ids: npt.ArrayLike, categories: Iterable[Category]) -> Instances:
        """Return the instances with other categories; arguments as for `Instances`."""
        return self._changed(category_ids=category_ids, categories=tuple(categories))

    def with_object_ids(self, object_ids: npt.ArrayLike) -> Instances:
        """Return the instances with other object ids, int [N]; `NO_ID` for none."""
        return self._changed(object_ids=object_ids)

    @classmethod
    def _of_checked(cls, **values: Any) -> Instances:
        """Make instances from columns of others, which are not checked again."""
        made = cls.__new__(cls)
        made.__setstate__(values)
        return made

    def _changed(self, **changes: Any) -> Instances:
        return Instances(**{**self._values(), **changes})

    def _values(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    # Choosing among them.

    def sorted_by_score(self) -> Instances:
        """Sort by descending score, instances without a score last. The sort is stable."""
        return self[np.argsort(-self.scores, kind="stable")]  # NaN sorts last

    def nms(self, iou_thresh: float, *, by: Literal["box", "mask"] = "box", per_category: bool = False) -> Instances:
        """Greedy non-maximum suppression.

        Args:
            iou_thresh: of two instances with a higher IoU, the one with the higher score is kept; in 0..1.
            by: compute the IoU of boxes, as the official automatic mask generator does, or of masks.
            per_category: instances of different categories do not suppress each other.

        Returns:
            The kept instances, highest score first.
        """
        if not 0 <= iou_thresh <= 1:
            raise ConfigError(f"iou_thresh must lie in 0..1, got {iou_thresh}.")
        if by not in ("box", "mask"):
            raise ConfigError(f"by must be 'box' or 'mask', got {by!r}.")
        scores = np.nan_to_num(self.scores, nan=-np.inf)
        groups = self.category_ids if per_category else np.zeros(len(self), dtype=np.int64)
        kept = np.zeros(0, dtype=np.int64)
        for group in np.unique(groups):
            members = np.flatnonzero(groups == group)
            if by == "box":
                chosen = nms(self.boxes_xyxy[members], scores[members], iou_thresh)
            else:
                chosen = mask_nms([self.rle(index) for index in members.tolist()], scores[members], iou_thresh)
            kept = np.append(kept, members[chosen])
        return self[kept].sorted_by_score()

    # Other forms.

    def to_label_map(self, order: LabelOrder = "area", *, fill: bool = False) -> LabelArray:
        """Convert to a label map, in which every pixel belongs to at most one mask.

        Args:
            order: which of several overlapping masks a pixel belongs to. "area": the smallest, so that parts lie on
                top of the whole, and of equal areas the first. "score": the first.
            fill: assign pixels outside all masks to the nearest mask.

        Returns:
            int32 [H, W]: 0 outside all masks, i + 1 in the mask of `self[i]`.
        """
        labels = paint_labels(((i + 1, self.rle(i)) for i in self.bottom_first(order)), self.size_hw)
        return fill_nearest(labels) if fill else labels

    def bottom_first(self, order: LabelOrder = "area") -> list[int]:
        """Return the indices in painting order, the topmost mask last; see `to_label_map`."""
        if order not in get_args(LabelOrder):
            raise ConfigError(f"order must be 'area' or 'score', got {order!r}.")
        if order == "score":
            return list(range(len(self)))[::-1]
        areas = self.areas
        return sorted(range(len(self)), key=lambda index: (-areas[index], -index))


def _plain(value: Any) -> Any:
    """Convert a NumPy scalar to a Python scalar, and an array [K] to a tuple of them."""
    plain = value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
    return tuple(plain) if isinstance(plain, list) else plain


def _check_mask(counts: Any, size_hw: SizeHW) -> None:
    if not isinstance(counts, str):
        raise InstancesError(f"The run lengths of a mask are compressed text (str), not {type(counts).__name__}.")
    try:
        run_lengths(Rle(size=list(size_hw), counts=counts))
    except ValueError as error:
        raise InstancesError(f"A mask is damaged. {error}") from error


def _equal(one: Any, other: Any) -> bool:
    if not isinstance(one, np.ndarray):
        return bool(one == other)
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f" == other.dtype.kind)
