"""The schema of prompts files, JSON that describes the objects to segment in images, and their reader."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from segany.core.arrays import SizeHW
from segany.core.errors import PromptError
from segany.core.files import check_is_file
from segany.core.prompt import Prompt
from segany.core.rle import decode_mask
from segany.data.folders import nfc
from segany.data.mask_prompts import MaskFiles, MaskInput, shown_labels

if TYPE_CHECKING:
    from typing_extensions import Self

PROMPTS_EXAMPLE = '[{"points_xy": [[120, 80], [300, 90]], "labels": [1, 0]}, {"box_xyxy": [10, 20, 200, 300]}]'
"""A prompts file with two objects; for several images, `{"a.jpg": [...], "b.jpg": [...]}`."""


class ObjectPrompt(BaseModel):
    """The prompt of one object in a prompts file: at least one of points, box and mask.

    Attributes:
        points_xy: points in pixels of the original image.
        labels: 1 for a positive point, 0 for a negative one; all are positive by default.
        box_xyxy: left, top, right, bottom in pixels of the original image.
        mask: path of a mask prompt, relative to the folder of the prompts file: a mask image or label map with the
            size of the image, or low-res logits as .npy or .npz.
        label: label of the object if the mask is a label map. By default, each label is an object.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    points_xy: list[tuple[float, float]] | None = None
    labels: list[Literal[0, 1]] | None = None
    box_xyxy: tuple[float, float, float, float] | None = None
    mask: Path | None = None
    label: Annotated[int, Field(ge=1, strict=True)] | None = None

    def without_mask(self) -> Prompt | None:
        """Return the prompt of points and box; None if there is only a mask.

        Raises:
            PromptError: the prompt is empty or contradicts itself.
        """
        if self.label is not None and self.mask is None:
            raise PromptError("label is given without a mask: it says which object of a label map is meant.")
        if self.mask is not None and self.points_xy is None and self.labels is None and self.box_xyxy is None:
            return None
        return Prompt(self.points_xy, self.labels, self.box_xyxy)

    def by_label(self, files: MaskFiles) -> tuple[Self, ...]:
        """Return one prompt per label if the mask is a label map without a chosen label; otherwise this prompt.

        Raises:
            PromptError: there are several labels, and points or a box that could belong to any of them; or as for
                `MaskFiles`.
            ImageError: the mask image does not exist.
        """
        if self.mask is None or self.label is not None:
            return (self,)
        masks = files.masks(self.mask)
        if not isinstance(masks, Mapping) or len(masks) == 1:
            return (self,)
        if self.points_xy is not None or self.box_xyxy is not None:
            raise PromptError(
                f"{self.mask} holds {len(masks)} labels: {shown_labels(masks)}. It is unclear which of them the points "
                "and the box belong to. Say so in a prompts file: "
                f'{{"mask": "{self.mask.name}", "label": {min(masks)}, "points_xy": [[...]]}}.'
            )
        return tuple(self.model_copy(update={"label": label}) for label in masks)

    def read_mask(self, size_hw: SizeHW, files: MaskFiles) -> MaskInput | None:
        """Read the mask prompt for an image of this size; None without one. Errors as for `MaskFiles.mask`."""
        return None if self.mask is None else files.mask(self.mask, size_hw, self.label)

    def to_prompt(self, mask: MaskInput | None) -> Prompt:
        """Return the prompt with the mask prompt that `read_mask` returned."""
        if mask is None or isinstance(mask, np.ndarray):
            return Prompt(self.points_xy, self.labels, self.box_xyxy, mask_logits=mask)
        return Prompt(self.points_xy, self.labels, self.box_xyxy, mask=decode_mask(mask))


NAMES_SHOWN = 12
"""Number of image names in a message."""

AnyObjectPrompt = TypeVar("AnyObjectPrompt", bound=ObjectPrompt)


@dataclass(frozen=True)
class PromptPlan:
    """The prompts of all images.

    Attributes:
        everywhere: prompts of every image, if `by_image` is None.
        by_image: prompts by path or file name of the image.
    """

    everywhere: tuple[ObjectPrompt, ...] = ()
    by_image: Mapping[str, tuple[ObjectPrompt, ...]] | None = None

    @property
    def mask_files(self) -> list[Path]:
        """Paths of all mask prompts."""
        plans = (self.everywhere, *(self.by_image or {}).values())
        return [item.mask for plan in plans for item in plan if item.mask is not None]

    def objects_in(self, image: Path) -> tuple[ObjectPrompt, ...]:
        """Return the prompts of an image, one per object.

        Raises:
            PromptError: the prompts file does not mention the image.
        """
        if self.by_image is None:
            return self.everywhere
        by_name = {nfc(name): objects for name, objects in self.by_image.items()}
        for key in (str(image), image.as_posix(), image.name):
            if nfc(key) in by_name:
                return by_name[nfc(key)]
        names = list(self.by_image)
        listed = ", ".join(names[:NAMES_SHOWN]) + (f" and {len(names) - NAMES_SHOWN} more" * (len(names) > NAMES_SHOWN))
        raise PromptError(
            f"The prompts file has nothing for {image}. It names {listed or 'no image'}; "
            "an image is looked up by its path as given, then by its file name."
        )


def read_prompts_file(path: Path) -> PromptPlan:
    """Read a prompts file: a list of objects, or a dictionary from image names to such lists.

    Raises:
        PromptError: the file is missing, not JSON, or has another form; the message names the object.
    """
    content = load_json(path, PROMPTS_EXAMPLE)
    folder = path.parent
    if isinstance(content, dict):
        forms: dict[str, str] = {}
        for name in content:
            other = forms.setdefault(nfc(name), name)
            if other != name:
                raise PromptError(f"{path} has two lists for the image {name!r}, in two Unicode forms. Leave one out.")
        by_image = {name: _objects(value, f"{path}, image {name!r}", folder) for name, value in content.items()}
        return PromptPlan(by_image=by_image)
    return PromptPlan(_objects(content, str(path), folder))


def load_json(path: Path, example: str) -> Any:
    """Read a prompts file as JSON. `example` is shown in the error message.

    Raises:
        PromptError: the file is missing or not JSON.
    """
    try:
        check_is_file(path, PromptError)
        return json.loads(path.read_text(encoding="utf-8-sig"))  # some editors write a byte order mark
    except FileNotFoundError:
        raise PromptError(f"There is no prompts file {path}. Check the path.") from None
    except OSError as error:
        raise PromptError(f"The prompts file {path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise PromptError(f"The prompts file {path} is not JSON: {error}.") from error
    except RecursionError:
        raise PromptError(f"The prompts file {path} is nested too deeply. It looks like {example}") from None


def check_prompt(prompt: ObjectPrompt) -> ObjectPrompt:
    """Raise `PromptError` if a prompt is empty or contradicts itself. Returns the prompt."""
    prompt.without_mask()
    return prompt


def _objects(content: Any, where: str, folder: Path) -> tuple[ObjectPrompt, ...]:
    forms = "a list of objects, or a dictionary from image names to such lists"
    return parse_objects(content, ObjectPrompt, where, folder, forms, PROMPTS_EXAMPLE)


def parse_objects(
    content: Any, kind: type[AnyObjectPrompt], where: str, folder: Path, forms: str, example: str
) -> tuple[AnyObjectPrompt, ...]:
    """Validate a list of prompts in a prompts file.

    Args:
        content: the list, as JSON values.
        kind: model of an item of the list.
        where: name of the list in error messages.
        folder: folder of the prompts file.
        forms: description of the valid forms of the file, for error messages.
        example: example of a prompts file, for error messages.

    Raises:
        PromptError: the content is not a list of prompts, or a prompt is invalid; the message names it.
    """
    try:
        prompts: list[AnyObjectPrompt] = TypeAdapter(list[kind]).validate_python(content)  # type: ignore[valid-type]
    except ValidationError as error:
        problems = "; ".join(_problem(problem["loc"], problem["msg"], forms) for problem in error.errors())
        raise PromptError(f"{where}: {problems}. A prompts file looks like {example}") from error
    if not prompts:
        raise PromptError(f"{where}: the list is empty. Describe at least one object.")
    for number, prompt in enumerate(prompts, start=1):
        try:
            check_prompt(prompt)
        except PromptError as error:
            raise PromptError(f"{where}, object {number}: {error}") from error
    # Paths are relative to the prompts file, so that it can be moved together with its masks.
    return tuple(p if p.mask is None else p.model_copy(update={"mask": folder / p.mask}) for p in prompts)


def _problem(location: Sequence[int | str], message: str, forms: str) -> str:
    if not location:
        return f"it must be {forms}"
    first, *rest = location
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in rest).lstrip(".")
    return f"object {int(first) + 1}{', ' + path if path else ''}: {message[0].lower()}{message[1:]}"
