"""Prompts on the frames of a video: the schema of a prompts file, reading it, and checking it against a video."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

import numpy as np
from pydantic import Field

from segany.core.arrays import BoolArray
from segany.core.errors import PromptError
from segany.core.instance import Category
from segany.core.prompt import FOREGROUND, Prompt
from segany.core.rle import decode_mask
from segany.data.mask_prompts import LABELS_SHOWN, MaskFiles
from segany.data.prompts_file import ObjectPrompt, load_json, parse_objects
from segany.imaging.frames import FrameSource

FRAME_PROMPTS_EXAMPLE = (
    '[{"frame": 0, "object": 1, "points_xy": [[120, 80], [300, 90]], "labels": [1, 0]}, '
    '{"frame": 0, "object": 2, "box_xyxy": [10, 20, 200, 300]}]'
)
"""A prompts file with two objects on the first frame."""

DEFAULT_OBJECT = 1
"""The default object id."""

VideoPrompt: TypeAlias = "Prompt | BoolArray"
"""Points and a box, or a mask bool [H, W] at the size of the video."""


class FramePrompt(NamedTuple):
    """A prompt for one object on one frame, as `VideoSession.prompt` takes it."""

    frame: int
    object_id: int
    prompt: VideoPrompt
    category: Category | None = None


class FrameObject(ObjectPrompt):
    """An object on a frame in a prompts file: points, a box or both; or a mask.

    Attributes:
        frame: number of the frame, from 0.
        object: id of the object; prompts with the same id on other frames refine it. The default is the label for a
            mask with a label, and 1 otherwise.
        category: name of the category of the object, for formats that store it.
    """

    frame: Annotated[int, Field(ge=0, strict=True)]
    object: Annotated[int, Field(ge=0, strict=True)] = DEFAULT_OBJECT
    category: Annotated[str, Field(min_length=1)] | None = None

    @property
    def place(self) -> tuple[int, int]:
        """Frame and object id. A session takes one prompt for each place."""
        return self.frame, self.object


@dataclass(frozen=True)
class FramePrompts:
    """The prompts of a video: at most one item for each object on each frame, ordered by frame and then by id."""

    items: tuple[FrameObject, ...]

    @classmethod
    def of(cls, objects: Iterable[FrameObject]) -> FramePrompts:
        """Join the points and the box of the same object on the same frame into one item.

        Raises:
            PromptError: an object has two boxes, two masks, or a mask and points or a box on one frame; or it has
                two categories.
        """
        joined: dict[tuple[int, int], FrameObject] = {}
        for item in objects:
            joined[item.place] = _joined(joined[item.place], item) if item.place in joined else item
        categories: dict[int, str] = {}
        for item in joined.values():
            if item.mask is not None and (item.points_xy or item.box_xyxy):
                raise PromptError(
                    f"Object {item.object} has a mask and points or a box on frame {item.frame}. A mask says all; give "
                    "points that improve the object on another frame."
                )
            if item.category and categories.setdefault(item.object, item.category) != item.category:
                raise PromptError(
                    f"Object {item.object} is {categories[item.object]!r} and {item.category!r}. It has one category."
                )
        return cls(tuple(joined[place] for place in sorted(joined)))

    @property
    def mask_files(self) -> list[Path]:
        """The files of all masks."""
        return [item.mask for item in self.items if item.mask is not None]

    @property
    def object_ids(self) -> list[int]:
        """All objects, ascending."""
        return sorted({item.object for item in self.items})

    @property
    def first_frame(self) -> int:
        """The first frame with a prompt."""
        return self.items[0].frame

    @property
    def prompted(self) -> dict[int, int]:
        """The number of frames with prompts, by object id."""
        ids = [item.object for item in self.items]
        return {object_id: ids.count(object_id) for object_id in self.object_ids}

    @property
    def categories(self) -> dict[int, Category]:
        """The category of each object that has one, by object id. Category ids count from 1, by name."""
        names = {item.object: item.category for item in self.items if item.category}
        ids = {name: number for number, name in enumerate(sorted(set(names.values())), start=1)}
        return {object_id: Category(ids[name], name) for object_id, name in names.items()}

    def by_label(self, max_pixels: int) -> FramePrompts:
        """Expand masks that are label maps to an object for each label, whose id is the label.

        Raises:
            PromptError: an object id is given to a mask with several labels; or as for `read`.
            ImageError: as for `read`.
        """
        items: list[FrameObject] = []
        files = MaskFiles(max_pixels)
        for item in self.items:
            parts = item.by_label(files)
            if len(parts) > 1 and "object" in item.model_fields_set:
                labels = ", ".join(str(part.label) for part in parts[:LABELS_SHOWN])
                more = ", ..." if len(parts) > LABELS_SHOWN else ""
                raise PromptError(
                    f"Frame {item.frame}, object {item.object}: {item.mask} holds {len(parts)} labels: {labels}{more}. "
                    'Leave out the id, and each is an object of its own; or say which, "label": 2 in a prompts file.'
                )
            ids = [{} if len(parts) == 1 else {"object": part.label} for part in parts]
            items += [part.model_copy(update=update) for part, update in zip(parts, ids, strict=True)]
        return FramePrompts.of(items)

    def read(self, source: FrameSource, max_pixels: int) -> list[FramePrompt]:
        """Read the masks, and check the prompts against a video. A mask with several labels needs a chosen one.

        Args:
            source: the video.
            max_pixels: masks with more pixels are refused.

        Raises:
            PromptError: a frame does not exist, a point lies outside, or a mask is not of the size of the video.
            ImageError: the image of a mask cannot be read.
        """
        prompts, categories, files = [], self.categories, MaskFiles(max_pixels)
        for item in self.items:
            try:
                prompt = _for_video(item, source, files)
            except PromptError as error:
                raise PromptError(f"Frame {item.frame}, object {item.object}: {error}") from error
            prompts.append(FramePrompt(item.frame, item.object, prompt, categories.get(item.object)))
        return prompts


def read_frame_prompts(path: Path) -> FramePrompts:
    """Read a prompts file of a video. Paths of masks are relative to its folder.

    Raises:
        PromptError: the file is missing, is not JSON, or has another form. The message states where.
    """
    return parse_frame_prompts(load_json(path, FRAME_PROMPTS_EXAMPLE), str(path), path.parent)


def parse_frame_prompts(content: Any, where: str, folder: Path) -> FramePrompts:
    """Parse a list of objects on frames, decoded from JSON.

    Args:
        content: the list.
        where: name of the list in error messages.
        folder: the folder that paths of masks are relative to.

    Raises:
        PromptError: the list has another form. The message states where.
    """
    form = "a list of objects on frames"
    items = parse_objects(content, FrameObject, where, folder, form, FRAME_PROMPTS_EXAMPLE)
    return FramePrompts.of(
        item.model_copy(update={"object": item.label})
        if item.label is not None and "object" not in item.model_fields_set
        else item
        for item in items
    )


def _joined(one: FrameObject, other: FrameObject) -> FrameObject:
    for field, what in (("box_xyxy", "boxes"), ("mask", "masks")):
        if getattr(one, field) is not None and getattr(other, field) is not None:
            raise PromptError(
                f"There are two {what} for object {one.object} on frame {one.frame}. "
                "Give another object its own id: @2 at the end."
            )
    points_xy, labels = [*_points(one), *_points(other)], [*_labels(one), *_labels(other)]
    return one.model_copy(
        update={
            "points_xy": points_xy or None,
            "labels": labels or None,
            "box_xyxy": one.box_xyxy or other.box_xyxy,
            "mask": one.mask or other.mask,
            "label": one.label or other.label,
            "category": one.category or other.category,
        }
    )


def _points(item: FrameObject) -> list[tuple[float, float]]:
    return item.points_xy or []


def _labels(item: FrameObject) -> list[int]:
    """A label for each point; foreground where there are none."""
    return list(item.labels) if item.labels else [FOREGROUND] * len(_points(item))


def _for_video(item: FrameObject, source: FrameSource, files: MaskFiles) -> VideoPrompt:
    if source.count is not None and item.frame >= source.count:
        raise PromptError(f"there is no such frame: {source.name} has {source.count} frames, from 0.")
    if item.mask is None:
        prompt = Prompt(item.points_xy, item.labels, item.box_xyxy)
        prompt.check_fits(source.size_hw)
        return prompt
    mask = files.mask(item.mask, source.size_hw, item.label)
    if isinstance(mask, np.ndarray):
        raise PromptError(f"the mask {item.mask} holds logits. Give an image of the size of the video, as PNG.")
    return decode_mask(mask)
