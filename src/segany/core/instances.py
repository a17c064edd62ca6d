"""Objects with masks: what predictors that find several objects return, readers yield, and writers take.

Masks are COCO run lengths, decoded when asked for, so that a thousand of them are cheap. Boxes are half-open:
x1 and y1 lie one past the last column and row of the mask.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args, overload

import numpy as np
import numpy.typing as npt

from segany.core.arrays import BoolArray, FloatArray, IntArray, SizeHW, frozen_view
from segany.core.boxes import nms
from segany.core.errors import ConfigError, InstancesError, MissingExtraError
from segany.core.label_map import LabelArray, fill_nearest
from segany.core.polygons import Polygon, mask_to_polygons
from segany.core.rle import Rle, box_xyxy, decode_crop, decode_mask, encode_masks, mask_area, mask_iou, run_lengths

Source: TypeAlias = Literal["prompt", "automatic", "text", "track", "human", "import"]
"""How a mask came about."""

LabelOrder: TypeAlias = Literal["area", "score"]
"""Which mask a pixel of a label map belongs to that several cover: the smallest, or the one of the highest score."""

NO_ID = -1
"""In `category_ids` and `object_ids`, of an instance that has none."""

Index: TypeAlias = "slice | Sequence[int] | Sequence[bool] | npt.NDArray[Any]"


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


@dataclass(frozen=True, eq=False, repr=False)
class Instances(Sequence[Instance]):
    """N objects of one image, as columns. N may be 0. The arrays are read-only.

    `len`, iteration and `instances[i]` give rows. A slice, a list or array of indices, or a boolean array gives
    the chosen instances: `instances[instances.scores > 0.9]`. Optional columns are attributes too:
    `instances.predicted_iou`.

    Attributes:
        rle_counts: N compressed run lengths, COCO's.
        size_hw: size of the image in pixels.
        boxes_xyxy: float32 [N, 4], half-open. Those of the masks where none are given.
        scores: float32 [N], the number that ranks; NaN where there is none.
        category_ids: int64 [N], ids of `categories`; `NO_ID` for no class.
        categories: the classes that there are, used or not.
        object_ids: int64 [N], identities across frames or files; `NO_ID` for none.
        sources: str [N], a `Source` each.
        columns: optional columns that a source adds, arrays [N, ...]: `predicted_iou`, `stability_score`,
            `point_xy` and `crop_box_xyxy` of automatic masks, `iscrowd` and `annotation_id` of COCO.

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
        if boxes_xyxy is None:
            boxes_xyxy = [_checked_box(Rle(size=list(size_hw), counts=item)) for item in counts]
        values: dict[str, Any] = {
            "rle_counts": counts,
            "size_hw": (int(size_hw[0]), int(size_hw[1])),
            "boxes_xyxy": _column("boxes_xyxy", np.reshape(boxes_xyxy, (-1, 4)), np.float32, count),
            "scores": _column("scores", np.full(count, np.nan) if scores is None else scores, np.float32, count),
            "category_ids": _ids("category_ids", category_ids, count),
            "categories": tuple(categories),
            "object_ids": _ids("object_ids", object_ids, count),
            "sources": _sources(sources, count),
            "columns": {name: _column(name, array, None, count) for name, array in (columns or {}).items()},
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        _check_boxes(self.boxes_xyxy)
        _check_categories(self.category_ids, self.categories)

    @classmethod
    def from_masks(cls, masks: npt.ArrayLike, **columns: Any) -> Instances:
        """Instances of masks that are arrays.

        Args:
            masks: bool [N, H, W], or one [H, W].
            columns: as for `Instances`.

        Raises:
            InstancesError: `masks` is not boolean or of another rank, or as for `Instances`.
        """
        stack = np.asarray(masks)
        if stack.dtype != np.bool_ or stack.ndim not in (2, 3):
            raise InstancesError(f"masks must be bool [N, H, W] or [H, W], got {stack.dtype} {list(stack.shape)}.")
        size_hw = (stack.shape[-2], stack.shape[-1])
        return cls([rle["counts"] for rle in encode_masks(stack)], size_hw, **columns)

    @classmethod
    def from_rles(cls, rles: Iterable[Rle], size_hw: SizeHW, **columns: Any) -> Instances:
        """Instances of COCO's run lengths, compressed, of an image of that size; `columns` as for `Instances`.

        Raises:
            InstancesError: a mask is of another size, or as for `Instances`.
        """
        counts = []
        for rle in rles:
            if tuple(rle["size"]) != tuple(size_hw):
                raise InstancesError(f"A mask has the size {list(rle['size'])}, but the image {list(size_hw)}.")
            _checked_box(rle)
            counts.append(rle["counts"])
        return cls(counts, size_hw, **columns)

    @classmethod
    def empty(cls, size_hw: SizeHW, categories: Iterable[Category] = ()) -> Instances:
        """No instances, of an image of that size."""
        return cls((), size_hw, categories=categories)

    @classmethod
    def concatenate(cls, parts: Sequence[Instances]) -> Instances:
        """All instances of some, in order, with the categories of all. A column must be in all parts or none.

        Raises:
            InstancesError: there are no parts, they are of images of different sizes, two give a category's id
                different names, or a column is missing in one of them.
        """
        if not parts:
            raise InstancesError(
                "There is nothing to concatenate. Instances.empty(size_hw) makes instances of nothing."
            )
        sizes = {part.size_hw for part in parts}
        if len(sizes) > 1:
            raise InstancesError(f"Instances are of images of different sizes, height and width: {sorted(sizes)}.")
        categories = {category.id: category for part in parts for category in part.categories}
        for part in parts:
            for category in part.categories:
                if categories[category.id].name != category.name:
                    raise InstancesError(
                        f"Category {category.id} is both {category.name!r} and {categories[category.id].name!r}."
                    )
        filled = [part for part in parts if len(part)] or list(parts[:1])  # instances of nothing may lack columns
        names = set(filled[0].columns)
        for part in filled:
            if set(part.columns) != names:
                odd = ", ".join(sorted(names ^ set(part.columns)))
                raise InstancesError(f"Some of the instances have columns that others lack: {odd}.")
        return cls(
            [counts for part in parts for counts in part.rle_counts],
            parts[0].size_hw,
            boxes_xyxy=np.concatenate([part.boxes_xyxy for part in parts]),
            scores=np.concatenate([part.scores for part in parts]),
            category_ids=np.concatenate([part.category_ids for part in parts]),
            categories=categories.values(),
            object_ids=np.concatenate([part.object_ids for part in parts]),
            sources=np.concatenate([part.sources for part in parts]),
            columns={name: np.concatenate([part.columns[name] for part in filled]) for name in names},
        )

    # Rows.

    def __repr__(self) -> str:
        height, width = self.size_hw
        return f"<{len(self)} instances in an image {width} wide and {height} high>"

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
        chosen = np.arange(len(self))[np.asarray(index) if not isinstance(index, slice) else index]
        return Instances(
            [self.rle_counts[i] for i in chosen],
            self.size_hw,
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
        columns = self.__dict__.get("columns", {})  # not there yet while it is unpickled
        if name in columns:
            array: npt.NDArray[Any] = columns[name]
            return array
        raise AttributeError(f"The instances have no {name!r}; their optional columns: {', '.join(columns) or 'none'}.")

    # Columns.

    @property
    def rles(self) -> list[Rle]:
        """The masks as COCO has them in JSON."""
        return [self.rle(index) for index in range(len(self))]

    def rle(self, index: int) -> Rle:
        """One mask as COCO has it in JSON."""
        return Rle(size=list(self.size_hw), counts=self.rle_counts[index])

    @property
    def areas(self) -> IntArray:
        """int64 [N], pixels of each mask."""
        return np.array([mask_area(rle) for rle in self.rles], dtype=np.int64)

    def mask(self, index: int) -> BoolArray:
        """bool [H, W], one mask, decoded each time."""
        return decode_mask(self.rle(index))

    def masks(self) -> BoolArray:
        """bool [N, H, W], all masks decoded: a byte for each pixel of each mask."""
        stack = np.zeros((len(self), *self.size_hw), dtype=np.bool_)
        for index, mask in enumerate(stack):
            mask[...] = self.mask(index)
        return stack

    def polygons(self) -> tuple[tuple[Polygon, ...], ...]:
        """The parts of each mask with their holes; filling them gives exactly the mask."""
        return tuple(instance.polygons for instance in self)

    def category(self, category_id: int) -> Category | None:
        """The category of that id; None where there is none."""
        return self._categories_by_id.get(category_id)

    @cached_property
    def _categories_by_id(self) -> dict[int, Category]:
        return {category.id: category for category in self.categories}

    def index_of(self, object_id: int) -> int:
        """Where the object of that id stands.

        Raises:
            InstancesError: it is not there.
        """
        found = np.flatnonzero(self.object_ids == object_id)
        if not len(found):
            known = ", ".join(map(str, self.object_ids.tolist())) or "none"
            raise InstancesError(f"There is no object {object_id}. The objects: {known}.")
        return int(found[0])

    def with_columns(self, **columns: npt.ArrayLike) -> Instances:
        """The same instances with optional columns added or replaced, arrays [N, ...]."""
        return self._changed(columns={**self.columns, **columns})

    def with_categories(self, category_ids: npt.ArrayLike, categories: Iterable[Category]) -> Instances:
        """The same instances with other classes.

        Args:
            category_ids: int [N]; `NO_ID` for no class.
            categories: the classes that there are.
        """
        return self._changed(category_ids=category_ids, categories=tuple(categories))

    def _changed(self, **changes: Any) -> Instances:
        fields = ("boxes_xyxy", "scores", "category_ids", "categories", "object_ids", "sources", "columns")
        kept = {name: getattr(self, name) for name in fields}
        return Instances(self.rle_counts, self.size_hw, **{**kept, **changes})

    # Choosing among them.

    def sorted_by_score(self) -> Instances:
        """Highest score first, those without one last; equal ones keep their order."""
        return self[np.argsort(-self.scores, kind="stable")]  # NaN sorts last

    def nms(self, iou_thresh: float, *, by: Literal["box", "mask"] = "box", per_category: bool = False) -> Instances:
        """Greedy non-maximum suppression: of two instances that overlap more, the one of the higher score stays.

        Args:
            iou_thresh: IoU, in 0..1.
            by: what overlaps: boxes, as in the official automatic mask generator, or the masks themselves.
            per_category: instances of different categories do not suppress each other.

        Returns:
            What stays, highest score first.
        """
        if not 0 <= iou_thresh <= 1:
            raise ConfigError(f"iou_thresh must lie in 0..1, got {iou_thresh}.")
        if by not in ("box", "mask"):
            raise ConfigError(f"by must be 'box' or 'mask', got {by!r}.")
        scores = np.nan_to_num(self.scores, nan=-np.inf)
        groups = np.unique(self.category_ids) if per_category else np.array([NO_ID])
        kept: list[int] = []
        for group in groups:
            members = np.flatnonzero(self.category_ids == group) if per_category else np.arange(len(self))
            if by == "box":
                chosen = nms(self.boxes_xyxy[members], scores[members], iou_thresh)
            else:
                chosen = _mask_nms([self.rle(int(i)) for i in members], scores[members], iou_thresh)
            kept.extend(members[chosen].tolist())
        order = np.array(kept, dtype=np.int64)
        return self[order[np.argsort(-scores[order], kind="stable")]]

    # Other forms.

    def to_label_map(self, order: LabelOrder = "area", *, fill: bool = False) -> LabelArray:
        """A map without overlaps: every pixel belongs to one mask at most.

        Args:
            order: which mask a pixel belongs to that several cover. "area": the smallest, so that parts
                lie over the whole; of equally large ones the first, and with "score" always the first.
            fill: give every pixel that no mask covers to the mask nearest to it.

        Returns:
            int32 [H, W]: 0 where there is no mask, i + 1 for the mask of `self[i]`.

        Raises:
            ConfigError: there is no such order.
        """
        height, width = self.size_hw
        transposed = np.zeros((width, height), dtype=np.int32)  # run lengths go column by column
        for index in self.bottom_first(order):
            part, (x, y) = decode_crop(self.rle(index))
            np.copyto(transposed[x : x + part.shape[1], y : y + part.shape[0]], np.int32(index + 1), where=part.T)
        labels = np.ascontiguousarray(transposed.T)
        return fill_nearest(labels) if fill else labels

    def bottom_first(self, order: LabelOrder = "area") -> list[int]:
        """Indices in the order in which masks are painted over each other; see `to_label_map`."""
        if order not in get_args(LabelOrder):
            raise ConfigError(f"order must be 'area' or 'score', got {order!r}.")
        if order == "score":
            return list(range(len(self)))[::-1]
        areas = self.areas
        return sorted(range(len(self)), key=lambda index: (-areas[index], -index))

    def to_supervision(self) -> Any:
        """The same as `supervision.Detections`: boxes, masks, confidence, class ids, tracker ids and columns.

        Class names are in `data["class_name"]`, as in that library. Confidences, class ids and tracker ids are
        None where no instance has any.

        Raises:
            MissingExtraError: the library is not installed.
        """
        names = {category.id: category.name for category in self.categories}
        data: dict[str, npt.NDArray[Any]] = {name: np.array(array) for name, array in self.columns.items()}
        if len(self) and (self.category_ids != NO_ID).any():
            data["class_name"] = np.array([names.get(int(index), "") for index in self.category_ids])
        return _supervision("to_supervision").Detections(
            xyxy=np.array(self.boxes_xyxy),
            mask=self.masks(),
            confidence=None if np.isnan(self.scores).all() else np.array(self.scores),
            class_id=None if (self.category_ids == NO_ID).all() else np.array(self.category_ids),
            tracker_id=None if (self.object_ids == NO_ID).all() else np.array(self.object_ids),
            data=data,
        )

    @classmethod
    def from_supervision(cls, detections: Any, size_hw: SizeHW | None = None, source: Source = "import") -> Instances:
        """Instances of `supervision.Detections` that have masks.

        Args:
            detections: the detections. Names in `data["class_name"]` become those of the categories.
            size_hw: of the image, needed where there are no detections.
            source: of all of them.

        Raises:
            InstancesError: the detections have no masks, or there are none and `size_hw` is not given.
        """
        if detections.mask is None or not len(detections):
            if len(detections):
                raise InstancesError("The detections have no masks, only boxes. Prompt a model with the boxes first.")
            if size_hw is None:
                raise InstancesError("There are no detections: give the size of the image, size_hw.")
            return cls.empty(size_hw)
        data = dict(detections.data)
        names = data.pop("class_name", None)
        categories: dict[int, Category] = {}
        if detections.class_id is not None:
            for row, category_id in enumerate(np.asarray(detections.class_id).tolist()):
                name = str(category_id) if names is None else str(names[row])
                categories.setdefault(category_id, Category(category_id, name))
        return cls.from_masks(
            np.asarray(detections.mask, dtype=np.bool_),
            boxes_xyxy=detections.xyxy,
            scores=detections.confidence,
            category_ids=detections.class_id,
            categories=sorted((c for c in categories.values() if c.id != NO_ID), key=lambda category: category.id),
            object_ids=detections.tracker_id,
            sources=source,
            columns={name: np.asarray(values) for name, values in data.items()},
        )


def _checked_box(rle: Rle) -> tuple[float, float, float, float]:
    try:
        run_lengths(rle)
    except ValueError as error:
        raise InstancesError(f"A mask is damaged. {error}") from error
    return box_xyxy(rle)


def _column(name: str, values: npt.ArrayLike, dtype: type[np.generic] | None, count: int) -> npt.NDArray[Any]:
    try:
        array = np.array(values, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise InstancesError(f"{name} must be numbers, one an instance: {error}.") from error
    if array.ndim == 0 or len(array) != count:
        raise InstancesError(f"{name} has shape {list(array.shape)}, but there are {count} instances.")
    return frozen_view(array)


def _ids(name: str, values: npt.ArrayLike | None, count: int) -> IntArray:
    if values is None:
        return frozen_view(np.full(count, NO_ID, dtype=np.int64))
    given = np.asarray(values)
    if given.size and (given.ndim != 1 or given.dtype.kind not in "iu" or given.min() < NO_ID):
        raise InstancesError(f"{name} must be whole numbers from 0, or {NO_ID} for none, one an instance.")
    return _column(name, given, np.int64, count)


def _sources(sources: Source | Sequence[str] | npt.NDArray[np.str_], count: int) -> npt.NDArray[np.str_]:
    array = np.full(count, sources, dtype="<U9") if isinstance(sources, str) else np.array(sources, dtype="<U9")
    unknown = set(array.tolist()) - set(get_args(Source))
    if unknown:
        raise InstancesError(f"There is no source {unknown.pop()!r}. Sources: {', '.join(get_args(Source))}.")
    return _column("sources", array, np.str_, count)


def _check_boxes(boxes_xyxy: FloatArray) -> None:
    bad = ~np.isfinite(boxes_xyxy).all(axis=1) | (boxes_xyxy[:, 2:] < boxes_xyxy[:, :2]).any(axis=1)
    if bad.any():
        shown = ", ".join(f"{value:g}" for value in boxes_xyxy[bad][0])
        raise InstancesError(f"The box ({shown}) is not left, top, right, bottom.")


def _check_categories(category_ids: IntArray, categories: Sequence[Category]) -> None:
    known = [category.id for category in categories]
    if len(set(known)) != len(known):
        raise InstancesError(f"Two categories have the same id: {sorted(known)}.")
    unknown = set(category_ids.tolist()) - set(known) - {NO_ID}
    if unknown:
        raise InstancesError(f"There is no category {min(unknown)}. Known ids: {sorted(known)}.")


def _mask_nms(rles: Sequence[Rle], scores: FloatArray, iou_thresh: float) -> IntArray:
    overlaps = mask_iou(rles, rles)
    waiting = np.argsort(-scores, kind="stable")
    kept = []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        waiting = waiting[overlaps[best, waiting] <= iou_thresh]
    return np.array(kept, dtype=np.int64)


def _plain(value: Any) -> Any:
    """A number as Python has it, an array [K] as a tuple of those."""
    plain = value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
    return tuple(plain) if isinstance(plain, list) else plain


def _supervision(what: str) -> Any:
    try:
        return importlib.import_module("supervision")
    except ImportError as error:
        raise MissingExtraError(f"{what} needs the library. Install it: pip install supervision") from error
