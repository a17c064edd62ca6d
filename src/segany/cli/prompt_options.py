"""Options that describe prompts: `--point`, `--box`, `--mask` and `--prompts`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segany.core.errors import PromptError
from segany.core.prompt import FOREGROUND
from segany.data.prompts_file import ObjectPrompt, PromptPlan, check_prompt, read_prompts_file


def plan_prompts(points: Sequence[str], boxes: Sequence[str], mask: Path | None, file: Path | None) -> PromptPlan:
    """Convert the prompt options of the command line to a plan.

    All points belong to one object, which may also have one box and one mask. Several boxes without points are
    several objects.

    Args:
        points: "x,y" or "x,y,label" each.
        boxes: "x0,y0,x1,y1" each.
        mask: file of a mask prompt.
        file: a prompts file, instead of all other options.

    Raises:
        PromptError: there is no prompt, the options contradict each other, or one is malformed.
    """
    if file is not None:
        if points or boxes or mask is not None:
            raise PromptError("--prompts cannot be combined with --point, --box or --mask. Put them into the file.")
        return read_prompts_file(file)
    if not points and not boxes and mask is None:
        raise PromptError("There is nothing to segment. Give --point x,y, --box x0,y0,x1,y1, --mask or --prompts.")
    if len(boxes) > 1 and (points or mask is not None):
        raise PromptError(
            f"It is unclear which of the {len(boxes)} boxes the {'points' if points else 'mask'} belong to. "
            "Give one --box, or describe the objects in a file: --prompts prompts.json."
        )
    boxes_xyxy = [parse_numbers(f"--box {text}", text, "x0,y0,x1,y1", (4,)) for text in boxes]
    if len(boxes_xyxy) > 1:
        return PromptPlan(tuple(check_prompt(ObjectPrompt(box_xyxy=box)) for box in boxes_xyxy))
    triples = [parse_numbers(f"--point {text}", text, "x,y or x,y,label", (2, 3)) for text in points]
    for triple, text in zip(triples, points, strict=True):
        if len(triple) == 3 and triple[2] not in (0, 1):
            raise PromptError(f"--point {text}: the label must be 1 (foreground) or 0 (background).")
    labels: list[Any] = [triple[2] if len(triple) == 3 else FOREGROUND for triple in triples]
    points_xy = [triple[:2] for triple in triples]
    box = boxes_xyxy[0] if boxes_xyxy else None
    single = ObjectPrompt(points_xy=points_xy or None, labels=labels or None, box_xyxy=box, mask=mask)
    return PromptPlan((check_prompt(single),))


def parse_numbers(option: str, text: str, form: str, counts: tuple[int, ...]) -> Any:
    """Parse numbers that are separated by commas.

    Args:
        option: the option with its value, for the error.
        text: the numbers.
        form: the expected form, for the error.
        counts: the allowed numbers of numbers.

    Raises:
        PromptError: a part is no number, or there are too few or too many.
    """
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in counts:
        raise PromptError(f"{option}: it must be {form}, numbers separated by commas, without spaces.")
    return numbers
