"""The values that pass between segany's parts: prompts, embeddings and predictions.

All are frozen and hold read-only NumPy arrays, so that they may be shared between threads and kept
for later. Public coordinates are pixels of the original image, x then y.

Shape legend, used everywhere: B images, P prompts, N points, M masks a prompt, C channels, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from segany.errors import ConfigError, EmbeddingError, PromptError

FloatArray: TypeAlias = npt.NDArray[np.float32]
IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
PixelArray: TypeAlias = npt.NDArray[np.uint8]
SizeHW: TypeAlias = tuple[int, int]
MaskMode: TypeAlias = Literal["auto", "multi", "single"]
EmbeddingPrecision: TypeAlias = Literal["fp32", "fp16"]

BACKGROUND, FOREGROUND = 0, 1
"""Labels of the points of a `Prompt`."""

PADDING_LABEL, BOX_TOP_LEFT_LABEL, BOX_BOTTOM_RIGHT_LABEL = -1, 2, 3
"""Labels that only the prompt encoder sees: no point at all, and the two corners of a box."""

IMAGES_AT_ONCE = 4
"""Images of a list that are held decoded, and that an accelerator encodes together.

On a CPU they are encoded one by one: one image already keeps all cores busy.
"""

MASK_THRESHOLD = 0.0
"""Mask logits above this are foreground."""


def frozen_view(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A read-only view, so that the arrays of frozen values cannot be changed either."""
    view: npt.NDArray[Any] = array.view()
    view.flags.writeable = False
    return view


def _float_array(value: Any, what: str) -> FloatArray:
    try:
        with np.errstate(over="ignore"):  # what overflows is infinite, and refused as that
            array = np.array(value, dtype=np.float32)  # a copy: the caller keeps the right to change theirs
    except (TypeError, ValueError, OverflowError) as error:
        raise PromptError(f"{what} must be numbers, got {value!r}.") from error
    if not np.isfinite(array).all():
        raise PromptError(f"{what} must be finite numbers, got {value!r}.")
    return array


@dataclass(frozen=True, eq=False)
class Prompt:
    """What to segment: points, a box, a rough mask, or any of these together, for one object.

    Attributes:
        points_xy: float32 [N, 2], pixels of the original image.
        labels: int64 [N], 1 for foreground and 0 for background; all foreground when left out.
        box_xyxy: float32 [4], left, top, right, bottom in pixels of the original image.
        mask_logits: float32 [h, w], low-res logits of an earlier prediction, in the square frame of the
            model's input (256 x 256 for an input size of 1024).

    Raises:
        PromptError: nothing is given, a label is not 0 or 1, labels and points differ in number, the
            box has no area, or a value is not finite.
    """

    points_xy: FloatArray | None = None
    labels: IntArray | None = None
    box_xyxy: FloatArray | None = None
    mask_logits: FloatArray | None = None

    def __init__(
        self,
        points_xy: npt.ArrayLike | None = None,
        labels: npt.ArrayLike | None = None,
        box_xyxy: npt.ArrayLike | None = None,
        mask_logits: npt.ArrayLike | None = None,
    ) -> None:
        points, point_labels = _checked_points(points_xy, labels)
        values = {
            "points_xy": points,
            "labels": point_labels,
            "box_xyxy": None if box_xyxy is None else _checked_box(box_xyxy),
            "mask_logits": None if mask_logits is None else _checked_mask(mask_logits),
        }
        if all(value is None for value in values.values()):
            raise PromptError("The prompt is empty. Give at least one of points_xy, box_xyxy and mask_logits.")
        for name, value in values.items():
            object.__setattr__(self, name, None if value is None else frozen_view(value))

    @property
    def is_ambiguous(self) -> bool:
        """Whether several objects fit the prompt: at most one point, no box and no mask (SAM, section 3)."""
        count = 0 if self.points_xy is None else len(self.points_xy)
        return count <= 1 and self.box_xyxy is None and self.mask_logits is None

    def check_fits(self, size_hw: SizeHW) -> None:
        """Raise `PromptError` when a point or a corner of the box lies outside an image of that size."""
        height, width = size_hw
        limit = np.array([width, height], dtype=np.float32)
        for what, coordinates in (("Point", self.points_xy), ("Box corner", self.box_xyxy)):
            if coordinates is None:
                continue
            pairs = coordinates.reshape(-1, 2)
            outside = ((pairs < 0) | (pairs > limit)).any(axis=1)
            if outside.any():
                x, y = pairs[outside][0]
                raise PromptError(
                    f"{what} ({x:g}, {y:g}) lies outside the image, which is {width} wide and {height} high. "
                    "Coordinates are pixels of the original image, x then y."
                )


def _checked_points(
    points_xy: npt.ArrayLike | None, labels: npt.ArrayLike | None
) -> tuple[FloatArray | None, IntArray | None]:
    if points_xy is None:
        if labels is not None:
            raise PromptError("labels are given without points_xy.")
        return None, None
    points = _float_array(points_xy, "points_xy")
    if points.size == 0:
        raise PromptError("points_xy is empty. Leave it out, or give at least one point.")
    if points.ndim != 2 or points.shape[1] != 2:
        raise PromptError(f"points_xy must have shape [N, 2], got {list(points.shape)}.")
    if labels is None:
        return points, np.full(len(points), FOREGROUND, dtype=np.int64)
    try:
        given = np.asarray(labels)
    except ValueError as error:
        raise PromptError(f"labels must be one number a point, got {labels!r}.") from error
    if given.ndim != 1 or len(given) != len(points):
        raise PromptError(
            f"There are {len(points)} points but labels of shape {list(given.shape)}. Give one label a point."
        )
    if not np.isin(given, (BACKGROUND, FOREGROUND)).all():
        raise PromptError(f"labels must be 1 (foreground) or 0 (background), got {given.tolist()}.")
    return points, given.astype(np.int64)


def _checked_box(box_xyxy: npt.ArrayLike) -> FloatArray:
    box = _float_array(box_xyxy, "box_xyxy")
    if box.shape != (4,):
        raise PromptError(f"box_xyxy must be four numbers, x0 y0 x1 y1, got shape {list(box.shape)}.")
    x0, y0, x1, y1 = box
    if x1 <= x0 or y1 <= y0:
        raise PromptError(
            f"box_xyxy ({x0:g}, {y0:g}, {x1:g}, {y1:g}) has no area: it needs x1 > x0 and y1 > y0 "
            "(left, top, right, bottom; not width and height)."
        )
    return box


def _checked_mask(mask_logits: npt.ArrayLike) -> FloatArray:
    if np.asarray(mask_logits).dtype == np.bool_:
        raise PromptError(
            "mask_logits must be logits, not true and false: the low_res_logits of an earlier prediction."
        )
    mask = _float_array(mask_logits, "mask_logits")
    if mask.ndim != 2:
        raise PromptError(f"mask_logits must have shape [h, w], got {list(mask.shape)}.")
    return mask


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the input of a model.

    Attributes:
        input_size: side in pixels of the square input.
        resize: "longest_side" keeps the aspect ratio and pads bottom and right with zeros (SAM);
            "square" stretches (SAM 2).
        mean_rgb, std_rgb: the normalisation, in units of 0..255.
    """

    input_size: int = 1024
    resize: Literal["longest_side", "square"] = "longest_side"
    mean_rgb: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std_rgb: tuple[float, float, float] = (58.395, 57.12, 57.375)

    def __post_init__(self) -> None:
        if self.input_size < 1:
            raise ConfigError(f"input_size must be positive, got {self.input_size}.")
        if self.resize not in ("longest_side", "square"):
            raise ConfigError(f"resize must be 'longest_side' or 'square', got {self.resize!r}.")

    def resized_hw(self, size_hw: SizeHW) -> SizeHW:
        """Size of the image inside the input, before padding."""
        if self.resize == "square":
            return self.input_size, self.input_size
        scale = self.input_size / max(size_hw)
        # Halves round up, as in the official code. A sliver keeps at least one pixel.
        height, width = (max(1, int(side * scale + 0.5)) for side in size_hw)
        return height, width

    def to_input_xy(self, points_xy: FloatArray, size_hw: SizeHW) -> FloatArray:
        """Map points [..., 2] from an image of `size_hw` to pixels of the model's input."""
        resized_h, resized_w = self.resized_hw(size_hw)
        scale_xy = np.array([resized_w / size_hw[1], resized_h / size_hw[0]], dtype=np.float64)
        return (points_xy * scale_xy).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Embedding:
    """An image as a model sees it: computed once, prompted as often as wanted.

    Attributes:
        features: what the model's image encoder returned, float32 arrays without a batch axis; the
            first is the image embedding [C, h, w].
        size_hw: size of the original image in pixels, EXIF orientation applied.
        preprocessing: how the image was resized and normalised.
        model: name of the model that made it.
        encoder_id: digest of the weights of the image encoder that made it.
        image_id: sha256 of the image's size and RGB pixels.
    """

    features: tuple[FloatArray, ...]
    size_hw: SizeHW
    preprocessing: Preprocessing
    model: str
    encoder_id: str
    image_id: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(frozen_view(feature) for feature in self.features))

    def save(self, path: str | Path, *, precision: EmbeddingPrecision = "fp32") -> Path:
        """Write the embedding to a safetensors file, whole or not at all. Returns the path.

        Args:
            path: of the file.
            precision: "fp16" rounds the features for a file of half the size, such as one that travels to a
                browser: 2 MB for SAM. Masks change by a pixel here and there along their edges.

        Raises:
            ConfigError: there is no such precision.
            EmbeddingError: a value is too large for float16.
            OutputError: there is no space, no permission, or no such place.
        """
        from segany.embedding_file import write_embedding

        return write_embedding(self, Path(path), precision)

    @classmethod
    def load(cls, path: str | Path) -> Embedding:
        """Read an embedding that `save` wrote.

        Raises:
            EmbeddingError: the file is missing, damaged, or no embedding of segany's.
        """
        from segany.embedding_file import read_embedding

        return read_embedding(Path(path))

    def check_model(self, model: str, encoder_id: str, preprocessing: Preprocessing) -> None:
        """Raise `EmbeddingError` unless that model, with those image-encoder weights, made this embedding."""
        if self.model != model:
            raise EmbeddingError(
                f"This embedding was made by {self.model!r} and cannot be used with {model!r}. "
                "Embed the image again with the model you predict with."
            )
        if self.encoder_id != encoder_id:
            raise EmbeddingError(
                f"This embedding was made by {self.model!r} with other image-encoder weights "
                f"({self.encoder_id}, not {encoder_id}). Embed the image again."
            )
        if self.preprocessing != preprocessing:
            raise EmbeddingError(
                f"This embedding was made with {self.preprocessing}, but the model takes {preprocessing}. "
                "Embed the image again."
            )


@dataclass(frozen=True, eq=False)
class MaskPrediction:
    """Masks for P prompts, up to M candidates each. The rank is fixed: no axis is ever squeezed.

    Where one call mixes prompts with three candidates and prompts with one, M is three and the unused
    places hold empty masks with a score of -inf; `prediction[i]` has only the candidates of prompt i.

    Attributes:
        masks: bool [P, M, H, W] at the size of the original image.
        scores: float32 [P, M], the model's own estimate of each mask's IoU. It is the raw output of
            the IoU head, which may slightly exceed 1.
        low_res_logits: float32 [P, M, h, w] in the square frame of the model's input; feed one back as the
            `mask_logits` of the next prompt.
        candidates: int64 [P], how many of the M places each prompt uses.
        prompts: the P prompts, in order.
        logits: float32 [P, M, H, W], masks before thresholding at `MASK_THRESHOLD`; None unless asked for.
    """

    masks: BoolArray
    scores: FloatArray
    low_res_logits: FloatArray
    candidates: IntArray
    prompts: tuple[Prompt, ...]
    logits: FloatArray | None = None

    def __post_init__(self) -> None:
        for name in ("masks", "scores", "low_res_logits", "candidates", "logits"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, frozen_view(value))

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, index: int) -> MaskPrediction:
        """The prediction for one prompt, still with its axis: P = 1, M = its own candidates."""
        if not -len(self) <= index < len(self):  # also what ends iteration
            raise IndexError(f"prompt {index} of {len(self)}")
        index %= len(self)
        count = int(self.candidates[index])
        one = slice(index, index + 1)
        return MaskPrediction(
            masks=self.masks[one, :count],
            scores=self.scores[one, :count],
            low_res_logits=self.low_res_logits[one, :count],
            candidates=self.candidates[one],
            prompts=self.prompts[one],
            logits=None if self.logits is None else self.logits[one, :count],
        )

    @property
    def best_index(self) -> IntArray:
        """int64 [P], the candidate with the highest score for each prompt."""
        return np.asarray(self.scores.argmax(axis=1), dtype=np.int64)

    def best(self) -> BoolArray:
        """bool [P, H, W], the mask with the highest score for each prompt."""
        return self.masks[np.arange(len(self)), self.best_index]

    def refine(
        self,
        points_xy: npt.ArrayLike | None = None,
        labels: npt.ArrayLike | None = None,
        box_xyxy: npt.ArrayLike | None = None,
        *,
        prompt: int = 0,
        candidate: int | None = None,
    ) -> Prompt:
        """The next prompt for the same object: earlier clicks, new ones, and the mask so far.

        Args:
            points_xy, labels: clicks to add to those of the prompt; [N, 2] and [N].
            box_xyxy: replaces the prompt's box.
            prompt: which of the P prompts to refine.
            candidate: which mask to start from; the one with the highest score by default.
        """
        if not 0 <= prompt < len(self):
            raise PromptError(f"There are {len(self)} prompts, so {prompt} is none of them.")
        earlier = self.prompts[prompt]
        chosen = int(self.best_index[prompt]) if candidate is None else candidate
        if not 0 <= chosen < int(self.candidates[prompt]):
            raise PromptError(f"Prompt {prompt} has {self.candidates[prompt]} candidates, so {chosen} is none of them.")
        points, point_labels = _checked_points(points_xy, labels)
        if points is None or point_labels is None:
            points, point_labels = earlier.points_xy, earlier.labels
        elif earlier.points_xy is not None and earlier.labels is not None:
            points = np.concatenate([earlier.points_xy, points])
            point_labels = np.concatenate([earlier.labels, point_labels])
        return Prompt(
            points_xy=points,
            labels=point_labels,
            box_xyxy=earlier.box_xyxy if box_xyxy is None else box_xyxy,
            mask_logits=self.low_res_logits[prompt, chosen],
        )
