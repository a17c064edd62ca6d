"""What people write on the command line and in prompts files, as prompts on the frames of a video."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

import numpy as np
from pydantic import Field

from segany.cli.prompt_options import parse_numbers
from segany.core.arrays import BoolArray
from segany.core.errors import PromptError
from segany.core.prompt import FOREGROUND, Prompt
from segany.data.prompts_file import (
    MASK_ARRAY_SUFFIXES,
    ObjectPrompt,
    load_json,
    parse_objects,
    read_mask,
)
from segany.imaging.frames import FrameSource

TRACK_PROMPTS_EXAMPLE = (
    '[{"frame": 0, "object": 1, "points_xy": [[120, 80], [300, 90]], "labels": [1, 0]}, '
    '{"frame": 0, "object": 2, "box_xyxy": [10, 20, 200, 300]}]'
)
"""A prompts file with two objects on the first frame."""

DEFAULT_OBJECT = 1
"""The id of an object that has none."""

MAX_DIGITS = 18
"""Longer numbers of frames and objects are mistakes."""

POINT_FORM = "frame:x,y[,label][@id], as in 0:500,375 or 12:40,60,0@2"
BOX_FORM = "frame:x0,y0,x1,y1[@id], as in 0:10,20,200,300@2"
MASK_FORM = "frame:file[@id], as in 0:rough.png@2"

VideoPrompt: TypeAlias = "Prompt | BoolArray"
"""Points and a box, or a mask bool [H, W] of the size of the video."""


class FramePrompt(NamedTuple):
    """A prompt for one object on one frame."""

    frame: int
    object_id: int
    prompt: VideoPrompt


class TrackedObject(ObjectPrompt):
    """An object on a frame of a video, as a prompts file has it. Points, a box or both; or a mask.

    Attributes:
        frame: number of the frame, from 0.
        object: the id of the object; prompts with the same id on other frames refine it.
    """

    frame: Annotated[int, Field(ge=0, strict=True)]
    object: Annotated[int, Field(ge=0, strict=True)] = DEFAULT_OBJECT

    @property
    def place(self) -> tuple[int, int]:
        """Frame and object id: what a session takes one prompt for."""
        return self.frame, self.object


@dataclass(frozen=True)
class TrackPlan:
    """What to track: at most one item for each object on each frame, ordered by frame and then by id."""

    items: tuple[TrackedObject, ...]

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
        """On how many frames each object has a prompt."""
        ids = [item.object for item in self.items]
        return {object_id: ids.count(object_id) for object_id in self.object_ids}

    def read(self, source: FrameSource, max_pixels: int) -> list[FramePrompt]:
        """The prompts for that video, with the masks read.

        Raises:
            PromptError: a frame does not exist, a point lies outside, or a mask is not of the video's size.
            ImageError: the picture of a mask cannot be read.
        """
        prompts = []
        for item in self.items:
            try:
                prompts.append(FramePrompt(item.frame, item.object, _for_video(item, source, max_pixels)))
            except PromptError as error:
                raise PromptError(f"Frame {item.frame}, object {item.object}: {error}") from error
        return prompts


def plan_tracking(points: Sequence[str], boxes: Sequence[str], masks: Sequence[str], file: Path | None) -> TrackPlan:
    """Make sense of the options of the command line.

    Several points and a box of the same object on the same frame are one prompt.

    Args:
        points: "frame:x,y", "frame:x,y,label", and "@id" after it, each.
        boxes: "frame:x0,y0,x1,y1" and "@id" each.
        masks: "frame:file" and "@id" each.
        file: a prompts file, instead of all the others.

    Raises:
        PromptError: nothing is asked for, the options contradict each other, or one is malformed.
    """
    if file is not None:
        if points or boxes or masks:
            raise PromptError("--prompts cannot be combined with --point, --box or --mask. Put them into the file.")
        content = load_json(file, TRACK_PROMPTS_EXAMPLE)
        items = parse_objects(
            content, TrackedObject, str(file), file.parent, "a list of objects on frames", TRACK_PROMPTS_EXAMPLE
        )
        return TrackPlan(_merged(items))
    if not points and not boxes and not masks:
        raise PromptError(
            "There is nothing to track. Give --point frame:x,y, --box frame:x0,y0,x1,y1, --mask frame:file, or "
            "--prompts."
        )
    return TrackPlan(
        _merged([*map(_parse_point, points), *map(_parse_box, boxes), *(_parse_mask(text) for text in masks)])
    )


def _parse_point(text: str) -> TrackedObject:
    frame, rest, object_id = _parts("--point", text, POINT_FORM)
    triple = parse_numbers(f"--point {text}", rest, POINT_FORM, (2, 3))
    if len(triple) == 3 and triple[2] not in (0, 1):
        raise PromptError(f"--point {text}: the label must be 1 (on the object) or 0 (beside it).")
    labels: list[Any] = [triple[2] if len(triple) == 3 else FOREGROUND]
    return _item("--point", text, frame=frame, object=object_id, points_xy=[triple[:2]], labels=labels)


def _parse_box(text: str) -> TrackedObject:
    frame, rest, object_id = _parts("--box", text, BOX_FORM)
    box = parse_numbers(f"--box {text}", rest, BOX_FORM, (4,))
    return _item("--box", text, frame=frame, object=object_id, box_xyxy=box)


def _parse_mask(text: str) -> TrackedObject:
    frame, rest, object_id = _parts("--mask", text, MASK_FORM)
    return _item("--mask", text, frame=frame, object=object_id, mask=Path(rest))


def _parts(option: str, text: str, form: str) -> tuple[int, str, int]:
    """Frame, what is between, and object id. Names of files may hold colons and at signs too."""
    frame, colon, rest = text.partition(":")
    before, at, object_id = rest.rpartition("@")
    has_id = bool(at) and _is_number(object_id)
    if not colon or not _is_number(frame):
        raise PromptError(f"{option} {text}: it must begin with the number of a frame and a colon: {form}.")
    middle = before if has_id else rest
    if not middle:
        raise PromptError(f"{option} {text}: there is nothing after the frame. It must be {form}.")
    if at and not has_id and option != "--mask":
        raise PromptError(f"{option} {text}: what comes after @ must be the number of an object: {form}.")
    return int(frame), middle, int(object_id) if has_id else DEFAULT_OBJECT


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS


def _item(option: str, text: str, **values: Any) -> TrackedObject:
    item = TrackedObject(**values)
    try:
        item.without_mask()
    except PromptError as error:
        raise PromptError(f"{option} {text}: {error}") from error
    return item


def _merged(items: Iterable[TrackedObject]) -> tuple[TrackedObject, ...]:
    """One item for each object on each frame, ordered."""
    merged: dict[tuple[int, int], TrackedObject] = {}
    for item in items:
        merged[item.place] = _joined(merged[item.place], item) if item.place in merged else item
    for item in merged.values():
        if item.mask is not None and (item.points_xy or item.box_xyxy):
            raise PromptError(
                f"Object {item.object} has a mask and points or a box on frame {item.frame}. A mask says all; give "
                "points that improve the object on another frame."
            )
    return tuple(merged[place] for place in sorted(merged))


def _joined(one: TrackedObject, other: TrackedObject) -> TrackedObject:
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
        }
    )


def _points(item: TrackedObject) -> list[tuple[float, float]]:
    return item.points_xy or []


def _labels(item: TrackedObject) -> list[int]:
    """A label for each point; all are on the object where there are none."""
    return list(item.labels) if item.labels else [FOREGROUND] * len(_points(item))


def _for_video(item: TrackedObject, source: FrameSource, max_pixels: int) -> VideoPrompt:
    if source.count is not None and item.frame >= source.count:
        raise PromptError(f"there is no such frame: {source.name} has {source.count} frames, from 0.")
    if item.mask is None:
        prompt = Prompt(item.points_xy, item.labels, item.box_xyxy)
        prompt.check_fits(source.size_hw)
        return prompt
    if item.mask.suffix.lower() in MASK_ARRAY_SUFFIXES:
        raise PromptError(f"the mask {item.mask} is an array. Give a picture of the video's size, as PNG.")
    return np.asarray(read_mask(item.mask, source.size_hw, max_pixels), dtype=np.bool_)
