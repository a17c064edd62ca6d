"""The options of `segany track` that prompt objects, as prompts on frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segany.cli.prompt_options import parse_numbers
from segany.core.errors import PromptError
from segany.core.prompt import FOREGROUND
from segany.data.frame_prompts import FrameObject, FramePrompts, read_frame_prompts

MAX_DIGITS = 18
"""Longer numbers of frames and objects are mistakes."""

POINT_FORM = "frame:x,y[,label][@id], as in 0:500,375 or 12:40,60,0@2"
BOX_FORM = "frame:x0,y0,x1,y1[@id], as in 0:10,20,200,300@2"
MASK_FORM = "frame:file[@id], as in 0:rough.png@2"


def parse_track_prompts(
    points: Sequence[str], boxes: Sequence[str], masks: Sequence[str], file: Path | None
) -> FramePrompts:
    """Parse the options of the command line.

    Several points and a box of the same object on the same frame are one prompt.

    Args:
        points: "frame:x,y", "frame:x,y,label", and "@id" after it, each.
        boxes: "frame:x0,y0,x1,y1" and "@id" each.
        masks: "frame:file" and "@id" each.
        file: a prompts file, instead of all the others.

    Raises:
        PromptError: there is no prompt, the options contradict each other, or one is malformed.
    """
    if file is not None:
        if points or boxes or masks:
            raise PromptError("--prompts cannot be combined with --point, --box or --mask. Put them into the file.")
        return read_frame_prompts(file)
    if not points and not boxes and not masks:
        raise PromptError(
            "There is nothing to track. Give --point frame:x,y, --box frame:x0,y0,x1,y1, --mask frame:file, or "
            "--prompts."
        )
    return FramePrompts.of([*map(_parse_point, points), *map(_parse_box, boxes), *map(_parse_mask, masks)])


def _parse_point(text: str) -> FrameObject:
    frame, rest, ids = _parts("--point", text, POINT_FORM)
    triple = parse_numbers(f"--point {text}", rest, POINT_FORM, (2, 3))
    if len(triple) == 3 and triple[2] not in (0, 1):
        raise PromptError(f"--point {text}: the label must be 1 (foreground) or 0 (background).")
    labels: list[Any] = [triple[2] if len(triple) == 3 else FOREGROUND]
    return _item("--point", text, frame=frame, **ids, points_xy=[triple[:2]], labels=labels)


def _parse_box(text: str) -> FrameObject:
    frame, rest, ids = _parts("--box", text, BOX_FORM)
    box = parse_numbers(f"--box {text}", rest, BOX_FORM, (4,))
    return _item("--box", text, frame=frame, **ids, box_xyxy=box)


def _parse_mask(text: str) -> FrameObject:
    frame, rest, ids = _parts("--mask", text, MASK_FORM)
    return _item("--mask", text, frame=frame, **ids, mask=Path(rest))


def _parts(option: str, text: str, form: str) -> tuple[int, str, dict[str, int]]:
    """Frame, the part between, and the object id, if there is one. Names of files may hold colons and at signs too."""
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
    return int(frame), middle, {"object": int(object_id)} if has_id else {}


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS


def _item(option: str, text: str, **values: Any) -> FrameObject:
    item = FrameObject(**values)
    try:
        item.without_mask()
    except PromptError as error:
        raise PromptError(f"{option} {text}: {error}") from error
    return item
