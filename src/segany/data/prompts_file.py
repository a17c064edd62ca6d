"""Prompts files: JSON that describes the objects to segment in images. Its schema, and reading it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from segany.core.arrays import BoolArray, FloatArray, SizeHW
from segany.core.errors import PromptError
from segany.core.prompt import Prompt
from segany.imaging.image import read_image

PROMPTS_EXAMPLE = '[{"points_xy": [[120, 80], [300, 90]], "labels": [1, 0]}, {"box_xyxy": [10, 20, 200, 300]}]'
"""A prompts file with two objects; for several images, `{"a.jpg": [...], "b.jpg": [...]}`."""

MASK_ARRAY_SUFFIXES = (".npy", ".npz")

MaskInput: TypeAlias = "BoolArray | FloatArray"
"""A mask [H, W] at the size of the image (bool), or low-res logits [h, w] (float32)."""


class ObjectPrompt(BaseModel):
    """One object to segment, as a prompts file has it. At least one of points, box and mask.

    Attributes:
        points_xy: pixels of the original image.
        labels: 1 for a point on the object, 0 for one beside it; all 1 when left out.
        box_xyxy: left, top, right, bottom.
        mask: a picture of the image's size, or low-res logits as .npy or .npz; its path is taken from
            the folder of the prompts file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    points_xy: list[tuple[float, float]] | None = None
    labels: list[Literal[0, 1]] | None = None
    box_xyxy: tuple[float, float, float, float] | None = None
    mask: Path | None = None

    def without_mask(self) -> Prompt | None:
        """The points and the box, checked; None where there is only a mask."""
        if self.mask is not None and self.points_xy is None and self.labels is None and self.box_xyxy is None:
            return None
        return Prompt(self.points_xy, self.labels, self.box_xyxy)

    def read_mask(self, size_hw: SizeHW, max_pixels: int) -> MaskInput | None:
        """Read the mask for an image of that size; None where there is none."""
        return None if self.mask is None else read_mask(self.mask, size_hw, max_pixels)

    def to_prompt(self, mask: MaskInput | None) -> Prompt:
        """The prompt, with the mask that `read_mask` gave."""
        form = "mask" if mask is not None and mask.dtype == np.bool_ else "mask_logits"
        return Prompt(self.points_xy, self.labels, self.box_xyxy, **{form: mask})


AnyObjectPrompt = TypeVar("AnyObjectPrompt", bound=ObjectPrompt)


@dataclass(frozen=True)
class PromptPlan:
    """Which objects to look for in which image.

    Attributes:
        everywhere: the objects of every image that has none of its own.
        by_image: objects of single images, by path or by file name.
    """

    everywhere: tuple[ObjectPrompt, ...] = ()
    by_image: Mapping[str, tuple[ObjectPrompt, ...]] | None = None

    @property
    def mask_files(self) -> list[Path]:
        """The files of all masks."""
        plans = (self.everywhere, *(self.by_image or {}).values())
        return [item.mask for plan in plans for item in plan if item.mask is not None]

    def objects_in(self, image: Path) -> tuple[ObjectPrompt, ...]:
        """The objects to look for in an image.

        Raises:
            PromptError: the prompts file does not mention the image.
        """
        if self.by_image is None:
            return self.everywhere
        for key in (str(image), image.as_posix(), image.name):
            if key in self.by_image:
                return self.by_image[key]
        raise PromptError(
            f"The prompts file has nothing for {image}. It names {', '.join(self.by_image) or 'no image'}; "
            "an image is looked up by its path as given, then by its file name."
        )


def read_prompts_file(path: Path) -> PromptPlan:
    """Read a prompts file: a list of objects, or a dictionary from image names to such lists.

    Raises:
        PromptError: the file is missing, not JSON, or not of that form; the message tells the place.
    """
    content = load_json(path, PROMPTS_EXAMPLE)
    folder = path.parent
    if isinstance(content, dict):
        by_image = {name: _objects(value, f"{path}, image {name!r}", folder) for name, value in content.items()}
        return PromptPlan(by_image=by_image)
    return PromptPlan(_objects(content, str(path), folder))


def load_json(path: Path, example: str) -> Any:
    """The content of a prompts file.

    Raises:
        PromptError: the file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))  # some editors put a mark before the text
    except FileNotFoundError:
        raise PromptError(f"There is no prompts file {path}. Check the path.") from None
    except OSError as error:
        raise PromptError(f"The prompts file {path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise PromptError(f"The prompts file {path} is not JSON: {error}.") from error
    except RecursionError:
        raise PromptError(f"The prompts file {path} is nested too deeply. It looks like {example}") from None


def read_mask(path: Path, size_hw: SizeHW, max_pixels: int) -> MaskInput:
    """Read the file of a mask prompt.

    Args:
        path: a picture of the image's size, where everything that is not black is the object; or low-res
            logits as .npy, or as .npz that holds one array or a prediction in the npz format.
        size_hw: size of the image.
        max_pixels: refuse pictures of more pixels.

    Raises:
        PromptError: the mask is of another size, empty, or its file is damaged.
        ImageError: the picture cannot be read.
    """
    if path.suffix.lower() in MASK_ARRAY_SUFFIXES:
        return _read_logits(path)
    mask = np.asarray(read_image(path, max_pixels).any(axis=2), dtype=np.bool_)
    if mask.shape != size_hw:
        raise PromptError(
            f"The mask {path} is {mask.shape[1]} wide and {mask.shape[0]} high, but the image is {size_hw[1]} wide "
            f"and {size_hw[0]} high. A mask picture must be of the image's size."
        )
    if not mask.any():
        raise PromptError(f"The mask {path} is all black. Paint the object in any other color.")
    return mask


def _read_logits(path: Path) -> FloatArray:
    try:
        arrays = _load_arrays(path)
    except FileNotFoundError:
        raise PromptError(f"There is no mask file {path}. Check the path.") from None
    except Exception as error:  # zipfile, zlib and NumPy each have errors of their own for damaged files
        raise PromptError(f"The mask file {path} cannot be read: {error}.") from error
    if "low_res_logits" in arrays and "scores" in arrays:
        logits, scores = arrays["low_res_logits"], arrays["scores"]
        if len(logits) != 1:
            raise PromptError(f"{path} holds masks of {len(logits)} objects. Save the logits of one of them as .npy.")
        return np.asarray(logits[0, int(scores[0].argmax())], dtype=np.float32)
    if len(arrays) != 1:
        raise PromptError(f"{path} holds the arrays {', '.join(arrays)}. Save the low-res logits alone, as .npy.")
    (array,) = arrays.values()
    array = array.reshape(array.shape[-2:]) if array.ndim > 2 and array.size == np.prod(array.shape[-2:]) else array
    if array.ndim != 2 or array.dtype.kind != "f":
        raise PromptError(
            f"{path} holds {array.dtype} of shape {list(array.shape)}. It must be low-res logits: floats [h, w], "
            "as in the low_res_logits of a prediction. Give a mask of the image's size as a PNG picture."
        )
    return np.asarray(array, dtype=np.float32)


def _load_arrays(path: Path) -> dict[str, Any]:
    loaded = np.load(path, allow_pickle=False)
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        return {"": loaded}
    with loaded:
        return dict(loaded)


def check_prompt(prompt: ObjectPrompt) -> ObjectPrompt:
    """Raise `PromptError` where a prompt contradicts itself or is empty. Returns the prompt."""
    prompt.without_mask()
    return prompt


def _objects(content: Any, where: str, folder: Path) -> tuple[ObjectPrompt, ...]:
    forms = "a list of objects, or a dictionary from image names to such lists"
    return parse_objects(content, ObjectPrompt, where, folder, forms, PROMPTS_EXAMPLE)


def parse_objects(
    content: Any, kind: type[AnyObjectPrompt], where: str, folder: Path, forms: str, example: str
) -> tuple[AnyObjectPrompt, ...]:
    """The objects of a list in a prompts file.

    Args:
        content: the list.
        kind: what each of its items is.
        where: what errors call the list.
        folder: of the prompts file.
        forms: what the file may be, for the error when it is something else.
        example: of a prompts file.

    Raises:
        PromptError: it is no such list, or an object is wrong; the message tells the place.
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
    # Paths are relative to the file, so that it may be moved together with its masks.
    return tuple(p if p.mask is None else p.model_copy(update={"mask": folder / p.mask}) for p in prompts)


def _problem(location: Sequence[int | str], message: str, forms: str) -> str:
    if not location:
        return f"it must be {forms}"
    first, *rest = location
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in rest).lstrip(".")
    return f"object {int(first) + 1}{', ' + path if path else ''}: {message[0].lower()}{message[1:]}"
