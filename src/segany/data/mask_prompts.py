"""Files of mask prompts: images of one mask, label maps of several objects, and low-res logits."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from segany.core.arrays import FloatArray, SizeHW
from segany.core.errors import DataError, PromptError
from segany.core.files import check_is_file
from segany.core.rle import Rle
from segany.data.formats.label_map import MaskReader, encode_labels
from segany.data.numpy_files import array_names, read_array, read_member
from segany.imaging.image import missing_image

ARRAY_SUFFIXES = (".npy", ".npz")

MaskInput: TypeAlias = "Rle | FloatArray"
"""A run-length encoded mask at the size of the image, or low-res logits, float32 [h, w]."""

MAX_LOGIT_BYTES = 1 << 27
"""Largest size of low-res logits that a file may state; those of one mask have 256 KiB."""

LABELS_SHOWN = 12


class MaskFiles:
    """Reads files of mask prompts, each once.

    A file is a mask image or a label map with the size of the image to segment, which `MaskReader` reads; a label map
    as an integer array in .npy; or low-res logits in .npy, or in an .npz with one array or a prediction.

    Methods raise `PromptError` if a file is empty or damaged, and `ImageError` if the image does not exist.
    """

    def __init__(self, max_pixels: int) -> None:
        """Create a reader that refuses masks with more than `max_pixels` pixels."""
        self._max_pixels = max_pixels
        self._read: dict[Path, dict[int, Rle] | FloatArray] = {}

    def masks(self, path: Path) -> dict[int, Rle] | FloatArray:
        """Return the masks of a file by label, at least one; or its low-res logits, float32 [h, w]."""
        if path not in self._read:
            self._read[path] = _read_masks(path, self._max_pixels)
        return self._read[path]

    def mask(self, path: Path, size_hw: SizeHW, label: int | None = None) -> MaskInput:
        """Return the mask of a file for an image of size `size_hw`.

        Raises:
            PromptError: the mask has another size, or several labels and `label` is not one of them.
        """
        masks = self.masks(path)
        if not isinstance(masks, Mapping):
            if label is not None:
                raise PromptError(f"{path} holds logits and no labels. Leave the label out.")
            return masks
        if label is None and len(masks) > 1:
            raise PromptError(
                f"{path} holds {len(masks)} labels: {shown_labels(masks)}. Say which one is meant, in a prompts file: "
                f'{{"mask": "{path.name}", "label": {min(masks)}}}.'
            )
        if label is not None and label not in masks:
            raise PromptError(f"{path} has no label {label}. Its labels: {shown_labels(masks)}.")
        mask = masks[next(iter(masks)) if label is None else label]
        height, width = mask["size"]
        if (height, width) != tuple(size_hw):
            raise PromptError(
                f"The mask {path} is {width} wide and {height} high, but the image is {size_hw[1]} wide and "
                f"{size_hw[0]} high. A mask must be of the image's size."
            )
        return mask


def _read_masks(path: Path, max_pixels: int) -> dict[int, Rle] | FloatArray:
    if path.suffix.lower() in ARRAY_SUFFIXES:
        array = _read_array(path, max_pixels)
        if array.dtype.kind == "f":
            return array
        masks = encode_labels(array)
    else:
        try:
            if not path.exists():
                raise missing_image(path)
            masks = MaskReader().read(path, str(path), max_pixels=max_pixels)
        except (DataError, OSError, ValueError) as error:
            raise PromptError(f"The mask {error}") from error
    if not masks:
        raise PromptError(f"The mask {path} is all black. Paint the object in any other color.")
    return masks


def shown_labels(masks: Mapping[int, Rle]) -> str:
    """List the first labels, for messages."""
    more = f" and {len(masks) - LABELS_SHOWN} more" if len(masks) > LABELS_SHOWN else ""
    return ", ".join(str(label) for label in list(masks)[:LABELS_SHOWN]) + more


def _read_array(path: Path, max_pixels: int) -> npt.NDArray[Any]:
    """Read low-res logits, float32 [h, w], or a label map, int32 [H, W]."""
    try:
        check_is_file(path, PromptError)
        return _checked_array(path, max_pixels)
    except PromptError:
        raise
    except FileNotFoundError:
        raise PromptError(f"There is no mask file {path}. Check the path.") from None
    except Exception as error:  # zipfile, zlib and NumPy raise different errors for damaged files
        raise PromptError(f"The mask file {path} cannot be read: {error}.") from error


def _checked_array(path: Path, max_pixels: int) -> npt.NDArray[Any]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = array_names(archive)
            if {"low_res_logits", "scores"} <= set(names):
                return _best_logits(path, archive)
            if len(names) != 1:
                listed = ", ".join(names[:LABELS_SHOWN])[:200]
                raise PromptError(f"{path} holds the arrays {listed}. Save the low-res logits alone, as .npy.")
            array = read_member(archive, names[0], max(MAX_LOGIT_BYTES, 8 * max_pixels))
    else:
        with path.open("rb") as file:
            array = read_array(file, max(MAX_LOGIT_BYTES, 8 * max_pixels))
    if array.ndim > 2 and array.size and array.size == array.shape[-2] * array.shape[-1]:
        array = array.reshape(array.shape[-2:])
    if array.ndim == 2 and array.dtype.kind in "iub" and array.size:
        if array.min() < 0 or array.max() > np.iinfo(np.int32).max:
            raise PromptError(f"{path} holds integers that are no labels, from {array.min()} to {array.max()}.")
        return array.astype(np.int32)
    if array.ndim != 2 or array.dtype.kind != "f" or not array.size:
        raise PromptError(
            f"{path} holds {array.dtype} of shape {list(array.shape)}. It must be low-res logits: floats [h, w], as in "
            "the low_res_logits of a prediction; or a label map, integers [H, W]."
        )
    return _float32(array)


def _best_logits(path: Path, archive: zipfile.ZipFile) -> FloatArray:
    """Return the logits, float32 [h, w], of the candidate with the highest score, in a prediction for one object."""
    logits, scores = (read_member(archive, name, MAX_LOGIT_BYTES) for name in ("low_res_logits", "scores"))
    is_prediction = logits.ndim == 4 and logits.dtype.kind == scores.dtype.kind == "f"
    if not is_prediction or logits.shape[:2] != scores.shape or not logits.size:
        raise PromptError(
            f"{path} holds low_res_logits {logits.dtype} {list(logits.shape)} and scores {scores.dtype} "
            f"{list(scores.shape)}, which are not those of a prediction: floats [P, M, h, w] and [P, M]."
        )
    if len(logits) != 1:
        raise PromptError(f"{path} holds masks of {len(logits)} objects. Save the logits of one of them as .npy.")
    return _float32(logits[0, int(scores[0].argmax())])


def _float32(array: npt.NDArray[Any]) -> FloatArray:
    with np.errstate(over="ignore", invalid="ignore"):  # values that overflow are infinite, which `Prompt` refuses
        return array.astype(np.float32)
