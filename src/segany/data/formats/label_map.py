"""Label maps and images of one mask: readers of their objects and of the names of their labels, and the encoder."""

from __future__ import annotations

import io
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segany.core.arrays import BoolArray, SizeHW
from segany.core.errors import DataError
from segany.core.files import read_file
from segany.core.instance import NO_ID, Category
from segany.core.instances import Instances
from segany.core.label_map import LabelArray
from segany.core.rle import Rle, encode_masks
from segany.data.annotations import encode_runs, parse_json
from segany.data.formats.mask_image import MaskImage, MaskOptions
from segany.data.formats.writing import FormatOptions, json_bytes, png_bytes
from segany.data.item import AnnotatedImage
from segany.imaging.components import find_components
from segany.imaging.image import DEFAULT_MAX_PIXELS

_logger = logging.getLogger(__name__)

MAX_TRIED = 200
"""Number of label maps of a video or a dataset that `has_void` reads at most."""

NAME_FILES = ("labels.json", "classes.txt")
"""Files beside label maps that name their values; the first that exists is used."""


@dataclass(frozen=True)
class LabelNames:
    """The categories and object ids of the values of label maps.

    Attributes:
        categories: category by value; values without one are missing.
        object_ids: object id by value; values without one are missing.
    """

    categories: Mapping[int, Category]
    object_ids: Mapping[int, int]

    @classmethod
    def none(cls) -> LabelNames:
        """Return the names of values without categories and object ids."""
        return cls({}, {})

    @classmethod
    def read(cls, path: Path) -> LabelNames:
        """Read a file of names.

        Args:
            path: JSON that maps values to names, `{"1": "cat"}`, or to `{"name", "id", "supercategory", "object_id"}`
                as `encode_label_map` writes it; or text with one name per line, the first for value 0, the background.
                Without `id`, the id of a category is the lowest value with its name.

        Raises:
            DataError: the file cannot be read, or has another form.
        """
        return cls.parse(read_file(path, DataError), str(path))

    @classmethod
    def parse(cls, data: bytes, what: str) -> LabelNames:
        """Do what `read` does with the bytes of a file; `what`, its name, tells text from JSON and begins messages.

        Raises:
            DataError: as for `read`.
        """
        if what.lower().endswith(".txt"):
            try:
                lines = data.decode("utf-8-sig").splitlines()
            except UnicodeDecodeError as error:
                raise DataError(f"{what} is no text in UTF-8: {error}.") from error
            entries: Any = {value: line.strip() for value, line in enumerate(lines) if line.strip()}
        else:
            entries = parse_json(data, what)
        try:
            if not isinstance(entries, (dict, list)):
                raise TypeError(f"it holds a {type(entries).__name__}")  # noqa: TRY301
            facts = {
                int(value): {"name": entry} if isinstance(entry, str) else dict(entry)
                for value, entry in (entries.items() if isinstance(entries, dict) else enumerate(entries))
            }
            return cls._of_facts(facts)
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise DataError(
                f'{what} does not name the values of label maps, as {{"1": "cat"}} does: {error}.'
            ) from error

    @classmethod
    def _of_facts(cls, facts: Mapping[int, Mapping[str, Any]]) -> LabelNames:
        ids: dict[str, int] = {}
        categories = {}
        for value, fact in sorted(facts.items()):
            if value and "name" in fact:
                number = _checked_id(fact.get("id", ids.setdefault(fact["name"], value)))
                categories[value] = Category(number, str(fact["name"]), str(fact.get("supercategory", "")))
        return cls(
            categories, {value: _checked_id(fact["object_id"]) for value, fact in facts.items() if "object_id" in fact}
        )

    @classmethod
    def beside(cls, folders: Iterable[Path]) -> LabelNames:
        """Read the first of `NAME_FILES` that exists in the folders; `none()` without such a file.

        Raises:
            DataError: as for `read`.
        """
        files = (folder / name for folder in folders for name in NAME_FILES)
        found = next((file for file in files if file.is_file()), None)
        return cls.none() if found is None else cls.read(found)

    def to_instances(self, masks: Mapping[int, Rle], size_hw: SizeHW) -> Instances:
        """Convert masks by value to instances with categories and object ids.

        Raises:
            InstancesError: a mask has another size, or two categories have the same id.
        """
        by_id = {category.id: category for category in self.categories.values()}
        category_of = {value: category.id for value, category in self.categories.items()}
        return Instances.from_rles(
            masks.values(),
            size_hw,
            category_ids=np.array([category_of.get(value, NO_ID) for value in masks], dtype=np.int64),
            categories=[by_id[number] for number in sorted(by_id)],
            object_ids=np.array([self.object_ids.get(value, NO_ID) for value in masks], dtype=np.int64),
        )


def _checked_id(value: Any) -> int:
    number = int(value)
    if not 0 <= number < 1 << 63:
        raise ValueError(f"{number} is no id")
    return number


def encode_label_map(annotated: AnnotatedImage, options: FormatOptions) -> Iterator[tuple[str, bytes]]:
    """Encode a label map [H, W]: 0 for the background, i + 1 for the i-th instance.

    It is a uint16 PNG, or an int32 NumPy file if there are more instances. If instances have categories or object ids,
    a JSON file of the same name holds them by value; see `LabelNames`.
    """
    labels = annotated.instances.to_label_map(options.label_order, fill=options.label_fill)
    for ending, data in label_map_files(annotated.instances, labels):
        yield f"_labels{ending}", data


def label_map_files(
    instances: Instances, labels: LabelArray, *, names_all: bool = False
) -> Iterator[tuple[str, bytes]]:
    """The files of a label map, each as the ending of its name and its content.

    Args:
        instances: the instances.
        labels: the map that `Instances.to_label_map` makes of them.
        names_all: list all values in the JSON file, also those of instances without class or object id, so that
            readers need not guess whether the values are labels.
    """
    if len(instances) <= np.iinfo(np.uint16).max:
        yield ".png", png_bytes(labels.astype(np.uint16))
    else:
        buffer = io.BytesIO()
        np.save(buffer, labels)
        yield ".npy", buffer.getvalue()
    facts: dict[str, dict[str, Any]] = {}
    for value, instance in enumerate(instances, start=1):
        fact: dict[str, Any] = {}
        if instance.category is not None:
            fact = {"name": instance.category.name, "id": instance.category.id}
            if instance.category.supercategory:
                fact["supercategory"] = instance.category.supercategory
        if instance.object_id != NO_ID:
            fact["object_id"] = instance.object_id
        if fact or names_all:
            facts[str(value)] = fact
    if facts or names_all:
        yield ".json", json_bytes(facts)


class MaskReader:
    """Reads mask images with the same options. Soft edges are logged: the first as a warning, others at DEBUG level."""

    def __init__(self, options: MaskOptions | None = None) -> None:
        self.options = options or MaskOptions()
        self._has_warned = False

    def read(
        self,
        source: Path | bytes,
        what: str,
        *,
        void: bool | None = None,
        is_one_object: bool = False,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> dict[int, Rle]:
        """Read the masks of the objects in a mask image.

        Args:
            source: path of the file, or its content.
            what: start of error messages.
            void: whether `VOID` is void, and not an object, in an image with a palette. An image that holds no other
                label cannot show it; `has_void` decides for a video or a dataset. None: it is void beside other labels.
            is_one_object: whether the image holds the mask of one object, whatever the options are.
            max_pixels: larger images are refused.

        Returns:
            The masks by label, in ascending order. Connected components ("parts") are numbered from 1. The label of
            a "foreground" is 1; that of a mask with soft edges is its highest value, as without soft edges.

        Raises:
            DataError: the image is missing, damaged, not an image, or not a label map.
        """
        image = MaskImage.decode(source, what, max_pixels)
        objects = "foreground" if is_one_object else self.options.objects
        if objects == "parts":
            return encode_labels(label_parts(image.foreground(self.options.mask_threshold)))
        if objects == "auto" and image.soft_pixels is not None:
            assert image.levels is not None
            self._log_soft_edges(image)
            highest = int(image.levels.max()) if image.labels is not None else np.iinfo(np.uint8).max
            return _one_mask(image.foreground(self.options.mask_threshold), highest)
        if objects == "foreground":
            return _one_mask(image.foreground(self.options.mask_threshold), 1)
        if objects == "auto" and image.has_soft_colors:
            raise DataError(
                f"{what} has soft edges between several colors, which would be dozens of objects. Save it without "
                "antialiasing; or read each color as an object with objects='labels' (--objects labels)."
            )
        return encode_labels(_without_void(image, void))

    def _log_soft_edges(self, image: MaskImage) -> None:
        if not image.soft_pixels:
            return
        assert image.levels is not None
        threshold = self.options.mask_threshold
        more = "" if self._has_warned else " Other images like it are read in the same way."
        _logger.log(
            logging.DEBUG if self._has_warned else logging.WARNING,
            "%s has soft edges: %s pixels are between background and mask, as after antialiasing or in a JPEG file. It "
            "is read as one mask, cut at %g, which is %g of its highest value. mask_threshold (--mask-threshold) "
            "cuts elsewhere, and objects='labels' (--objects labels) takes each value for an object.%s",
            image.what, f"{image.soft_pixels:,}", threshold * float(image.levels.max()), threshold, more,
        )  # fmt: skip
        self._has_warned = True


def has_void(label_maps: Iterable[Path]) -> bool:
    """Whether `VOID` is void in the label maps of a video or dataset: one with a palette also has other labels.

    At most `MAX_TRIED` are read, until one has void and other labels. Unreadable ones are ignored.
    """
    for path in itertools.islice(label_maps, MAX_TRIED):
        try:
            image = MaskImage.decode(path, str(path))
        except DataError:
            continue
        if image.void is not None and image.labels is not None and image.labels[~image.void].any():
            return True
    return False


def _without_void(image: MaskImage, void: bool | None) -> LabelArray:
    labels = image.checked_labels()
    if image.void is None or void is False:
        return labels
    without_void = np.where(image.void, 0, labels).astype(np.int32)
    return without_void if void or without_void.any() else labels


def _one_mask(mask: BoolArray, label: int) -> dict[int, Rle]:
    return {label: encode_masks(mask)[0]} if mask.any() else {}


def encode_labels(labels: LabelArray) -> dict[int, Rle]:
    """Encode the masks of all labels except 0 of a label map, int32 [H, W], in ascending order, in one pass."""
    size_hw = (labels.shape[0], labels.shape[1])
    columns = labels.T.reshape(-1)
    start = np.append(0, np.flatnonzero(columns[1:] != columns[:-1]) + 1)
    stop = np.append(start[1:], len(columns))
    value = columns[start]
    by_value = np.argsort(value, kind="stable")
    found, first = np.unique(value[by_value], return_index=True)
    encodings = {}
    for label, runs in zip(found.tolist(), np.split(by_value, first[1:]), strict=True):
        if label == 0:
            continue
        edges = np.stack([start[runs], stop[runs]], axis=1).reshape(-1)
        lengths = np.diff(edges, prepend=0, append=len(columns))
        encodings[int(label)] = encode_runs(lengths if lengths[-1] else lengths[:-1], size_hw)
    return encodings


def label_parts(mask: BoolArray) -> LabelArray:
    """Label the connected components (8-connectivity) of a mask, bool [H, W], from 1. Returns int32 [H, W]."""
    parts = find_components(mask)
    labels = np.zeros(mask.shape, dtype=np.int32)
    labels[mask] = np.repeat(parts.component + 1, parts.stop - parts.start)
    return labels
