"""The image predictor: embeds an image once and predicts masks for any number of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, overload

import numpy as np

from segany.core.arrays import IMAGES_AT_ONCE, MASK_THRESHOLD, FloatArray, IntArray, PixelArray, SizeHW
from segany.core.embedding import Embedding, Feature
from segany.core.errors import EmbeddingError, OutOfMemoryError, PromptError
from segany.core.instances import Instances
from segany.core.prediction import MaskPrediction
from segany.core.prompt import BOX_BOTTOM_RIGHT_LABEL, BOX_TOP_LEFT_LABEL, PADDING_LABEL, MaskMode, Prompt
from segany.imaging.image import DEFAULT_MAX_PIXELS, ImageSource, content_id, read_image
from segany.imaging.pixels import AS_STORED, PixelOptions
from segany.imaging.processor import ImageProcessor
from segany.imaging.prompt_masks import prompt_mask_logits

MAX_RESULT_BYTES = 8 * 2**30
"""Largest size of the masks that `predict` returns; larger requests are refused before the computation."""

CHUNK_BYTES = 256 * 2**20
"""Size of the batch of masks that `predict_instances` keeps decoded."""


class ImageModel(Protocol):
    """The interface of a model for `ImagePredictor`, with arrays as inputs and outputs, independent of the runtime."""

    @property
    def name(self) -> str: ...

    @property
    def encoder_id(self) -> str: ...

    @property
    def pads_boxes(self) -> bool: ...

    @property
    def processor(self) -> ImageProcessor: ...

    @property
    def low_res_size(self) -> int: ...

    def embed(self, images: Sequence[PixelArray]) -> list[tuple[Feature, ...]]: ...

    def predict_low_res(
        self,
        features: Sequence[Feature],
        points: FloatArray,
        labels: IntArray,
        mask_logits: FloatArray | None,
        *,
        multimask: bool,
    ) -> tuple[FloatArray, FloatArray]: ...


class ImagePredictor:
    """Predicts masks for prompts on images. It keeps no state, so threads may share it.

    Example:
        >>> predictor = segany.ImagePredictor(segany.load("mobile_sam"))
        >>> embedding = predictor.embed("photo.jpg")
        >>> prediction = predictor.predict(embedding, segany.Prompt(points_xy=[[500, 375]]))
        >>> mask = prediction.best()[0]  # bool [H, W]
    """

    def __init__(
        self,
        model: ImageModel,
        *,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        pixel_options: PixelOptions = AS_STORED,
    ) -> None:
        """Wrap a model.

        Args:
            model: a model from `segany.load`.
            max_pixels: larger images are refused before they are decoded.
            pixel_options: value range, bands and page of images that do not determine them.
        """
        self.model = model
        self.max_pixels = max_pixels
        self.pixel_options = pixel_options

    @overload
    def embed(self, image: ImageSource) -> Embedding: ...

    @overload
    def embed(self, image: list[ImageSource] | tuple[ImageSource, ...]) -> list[Embedding]: ...

    def embed(self, image: ImageSource | list[ImageSource] | tuple[ImageSource, ...]) -> Embedding | list[Embedding]:
        """Compute the image embedding with the image encoder, which is the slow part.

        Args:
            image: a path, `bytes`, a binary file object, a Pillow image, an array, or a list of these with any sizes.
                Arrays are [H, W] or [H, W, 1 | 3 | 4], RGB, of dtype uint8, uint16, bool, or float in 0..1. EXIF
                orientation is applied.

        Returns:
            The embedding of the image, or a list of embeddings for a list.

        Raises:
            ImageError: as for `read_image`.
        """
        if not isinstance(image, (list, tuple)):
            return self._embed([image])[0]
        embeddings: list[Embedding] = []
        for first in range(0, len(image), IMAGES_AT_ONCE):
            embeddings += self._embed(image[first : first + IMAGES_AT_ONCE])
        return embeddings

    def _embed(self, images: Sequence[ImageSource]) -> list[Embedding]:
        pixels = [read_image(source, self.max_pixels, options=self.pixel_options) for source in images]
        return [
            Embedding(
                features=features,
                size_hw=(rgb.shape[0], rgb.shape[1]),
                preprocessing=self.model.processor.preprocessing,
                model=self.model.name,
                encoder_id=self.model.encoder_id,
                content_id=content_id(rgb),
            )
            for rgb, features in zip(pixels, self.model.embed(pixels), strict=True)
        ]

    def predict(
        self,
        embedding: Embedding,
        prompts: Prompt | Sequence[Prompt],
        *,
        masks: MaskMode = "auto",
        with_logits: bool = False,
    ) -> MaskPrediction:
        """Predict masks for one or several prompts. Different kinds of prompts may be mixed, and are independent.

        Args:
            embedding: an embedding from `embed` with the same model.
            prompts: one prompt per object.
            masks: number of candidates: "multi" for three, "single" for one, "auto" for three if the prompt is
                ambiguous (at most one point, no box, no mask) and one otherwise.
            with_logits: return the logits at the size of the image too (4 bytes per pixel and mask).

        Raises:
            EmbeddingError: the embedding was made by another model or other weights, or its values are not finite.
            PromptError: there is no prompt, a prompt lies outside the image, or a mask has the wrong shape.
            OutOfMemoryError: the masks need more than `MAX_RESULT_BYTES`; `predict_instances` needs less memory.
        """
        chosen, multi = self._checked(embedding, prompts, masks)
        _check_result_size(len(chosen), 3 if any(multi) else 1, embedding.size_hw)
        low_res, scores, candidates = self._decode(embedding, chosen, multi)
        logits = None
        if with_logits:
            logits = self.model.processor.upscale(low_res, embedding.size_hw)
            logits[np.isneginf(scores)] = -np.inf  # unused candidates, which interpolation would turn into NaN
        if logits is None:
            mask_array = self.model.processor.upscale_masks(low_res, embedding.size_hw)
        else:
            mask_array = logits > MASK_THRESHOLD
        return MaskPrediction(
            masks=mask_array,
            scores=scores,
            low_res_logits=low_res,
            candidates=candidates,
            prompts=chosen,
            logits=logits,
        )

    def predict_low_res(
        self, embedding: Embedding, prompts: Prompt | Sequence[Prompt], *, masks: MaskMode = "auto"
    ) -> tuple[FloatArray, FloatArray, IntArray]:
        """Predict masks as `predict` does, without upscaling them to the size of the image.

        Args:
            embedding, prompts, masks: as for `predict`.

        Returns:
            `low_res_logits`, `scores` and `candidates` of the `MaskPrediction` that `predict` returns.

        Raises:
            EmbeddingError, PromptError: as for `predict`.
        """
        return self._decode(embedding, *self._checked(embedding, prompts, masks))

    def predict_instances(self, embedding: Embedding, prompts: Sequence[Prompt]) -> Instances:
        """Predict the best mask of each prompt, run-length encoded, in batches that need little memory.

        Args:
            embedding: an embedding from `embed` with the same model.
            prompts: one prompt per object; at least one.

        Returns:
            One instance per prompt, in order, of source "prompt", with object ids from 1; see
            `MaskPrediction.to_instances`.

        Raises:
            EmbeddingError, PromptError: as for `predict`.
        """
        height, width = embedding.size_hw
        together = max(1, CHUNK_BYTES // (3 * height * width))
        parts = [
            self.predict(embedding, prompts[first : first + together]).to_instances()
            for first in range(0, max(1, len(prompts)), together)
        ]
        return Instances.concatenate(parts).with_object_ids(np.arange(1, len(prompts) + 1))

    def _checked(
        self, embedding: Embedding, prompts: Prompt | Sequence[Prompt], masks: MaskMode
    ) -> tuple[tuple[Prompt, ...], list[bool]]:
        """Check the arguments of `predict`. Returns the prompts, and which of them have several candidates."""
        embedding.check_model(self.model.name, self.model.encoder_id, self.model.processor.preprocessing)
        chosen = (prompts,) if isinstance(prompts, Prompt) else tuple(prompts)
        if not all(isinstance(prompt, Prompt) for prompt in chosen):
            raise PromptError("Prompts must be `segany.Prompt`s, one or a list of them.")
        if not chosen:
            raise PromptError("There are no prompts. Give one `Prompt` or a list of them.")
        for prompt in chosen:
            prompt.check_fits(embedding.size_hw)
        if masks not in ("auto", "multi", "single"):
            raise PromptError(f"masks must be 'auto', 'multi' or 'single', got {masks!r}.")
        return chosen, [prompt.is_ambiguous if masks == "auto" else masks == "multi" for prompt in chosen]

    def _decode(
        self, embedding: Embedding, prompts: tuple[Prompt, ...], multi: list[bool]
    ) -> tuple[FloatArray, FloatArray, IntArray]:
        low_res, scores, candidates = self._decode_groups(embedding, prompts, multi)
        if np.isnan(scores).any() or np.isnan(low_res).any():
            raise EmbeddingError(
                "The model returned values that are not numbers. The embedding or the weights are damaged: embed the "
                "image again, or load the model again."
            )
        return low_res, scores, candidates

    def _decode_groups(
        self, embedding: Embedding, prompts: tuple[Prompt, ...], multi: list[bool]
    ) -> tuple[FloatArray, FloatArray, IntArray]:
        """Decode prompts in batches of equal form: low-res logits [P, M, h, w], scores [P, M] and candidates [P].

        Prompts in a batch must have the same number of points, because attention has no padding mask.
        """
        model = self.model
        points = [labeled_points(prompt, embedding, pads_boxes=model.pads_boxes) for prompt in prompts]
        mask_logits = [
            prompt_mask_logits(prompt, model.processor.preprocessing, model.low_res_size) for prompt in prompts
        ]
        groups: dict[tuple[int, bool, bool], list[int]] = {}
        for index, prompt in enumerate(prompts):
            form = (len(points[index][1]), prompt.has_mask, multi[index])
            groups.setdefault(form, []).append(index)
        decoded: dict[int, tuple[FloatArray, FloatArray]] = {}
        for (_, has_mask, multimask), members in groups.items():
            masks = np.stack([logits for i in members if (logits := mask_logits[i]) is not None]) if has_mask else None
            outputs = model.predict_low_res(
                embedding.features,
                np.stack([points[i][0] for i in members]),
                np.stack([points[i][1] for i in members]),
                masks,
                multimask=multimask,
            )
            if len(groups) == 1:
                return *outputs, np.full(len(prompts), outputs[1].shape[1], dtype=np.int64)
            decoded.update(zip(members, zip(*outputs, strict=True), strict=True))
        return _side_by_side([decoded[index] for index in range(len(prompts))])


def _check_result_size(prompts: int, candidates: int, size_hw: SizeHW) -> None:
    needed = prompts * candidates * size_hw[0] * size_hw[1]
    if needed > MAX_RESULT_BYTES:
        raise OutOfMemoryError(
            f"The masks of {prompts} prompts would take {needed / 2**30:.0f} GB. Predict some prompts at a time, or "
            "use predict_instances, which keeps run lengths."
        )


def _side_by_side(rows: list[tuple[FloatArray, FloatArray]]) -> tuple[FloatArray, FloatArray, IntArray]:
    """Stack low-res logits and scores of prompts with different numbers of candidates, padded with -inf."""
    candidates = np.array([len(scores) for _, scores in rows], dtype=np.int64)
    most = int(candidates.max())
    low_res = np.full((len(rows), most, *rows[0][0].shape[1:]), -np.inf, dtype=np.float32)
    scores = np.full((len(rows), most), -np.inf, dtype=np.float32)
    for index, (row_low_res, row_scores) in enumerate(rows):
        low_res[index, : len(row_scores)] = row_low_res
        scores[index, : len(row_scores)] = row_scores
    return low_res, scores, candidates


def labeled_points(prompt: Prompt, embedding: Embedding, *, pads_boxes: bool) -> tuple[FloatArray, IntArray]:
    """Convert points and box of a prompt to points, float32 [N, 2] in pixels of the input, and labels, int64 [N]."""
    points: list[FloatArray] = []
    labels: list[int] = []
    if prompt.points_xy is not None and prompt.labels is not None:
        points.append(prompt.points_xy)
        labels.extend(prompt.labels.tolist())
    if prompt.box_xyxy is not None:
        points.append(prompt.box_xyxy.reshape(2, 2))
        labels.extend((BOX_TOP_LEFT_LABEL, BOX_BOTTOM_RIGHT_LABEL))
    if points and (pads_boxes or prompt.box_xyxy is None):  # as in training
        points.append(np.zeros((1, 2), dtype=np.float32))
        labels.append(PADDING_LABEL)
    xy = np.concatenate(points) if points else np.zeros((0, 2), dtype=np.float32)
    return embedding.preprocessing.to_input_xy(xy, embedding.size_hw), np.array(labels, dtype=np.int64)
