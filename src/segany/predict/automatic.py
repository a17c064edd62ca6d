"""Automatic mask generation: point grid prompts, filtering, and non-maximum suppression (SAM, section B)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from segany.core.arrays import BoolArray, FloatArray, IntArray, PixelArray, SizeHW
from segany.core.boxes import box_areas, is_box_near_crop_edge, mask_box, nms
from segany.core.embedding import Embedding, Feature
from segany.core.errors import check, check_numbers
from segany.core.instances import Instances
from segany.core.progress import ProgressCallback, report
from segany.core.prompt import FOREGROUND, PADDING_LABEL
from segany.core.rle import encode_masks
from segany.imaging.amg import Crop, Proposals, build_point_grid, generate_crop_boxes
from segany.imaging.components import remove_small_regions
from segany.imaging.image import DEFAULT_MAX_PIXELS, ImageSource, read_image
from segany.imaging.measure import Logits, MaskMeasures
from segany.imaging.pixels import AS_STORED, PixelOptions
from segany.predict.candidates import Candidates
from segany.predict.image import ImageModel, ImagePredictor

MAX_POINTS_PER_SIDE, MAX_CROP_LAYERS = 1024, 6
"""Upper limits, a million points and four thousand crops: more would take days per image."""


class ProposingModel(ImageModel, Protocol):
    """The interface of a model for `AutomaticMaskGenerator`: that of `ImageModel`, and `propose`."""

    @property
    def pred_iou_thresh(self) -> float: ...

    @property
    def stability_score_thresh(self) -> float: ...

    def propose(
        self,
        features: Sequence[Feature],
        points: FloatArray,
        labels: IntArray,
        min_score: float,
        together: int | None = None,
    ) -> Iterator[Proposals]: ...


@dataclass(frozen=True)
class AutomaticConfig:
    """Settings of the generator. Names, meanings and defaults are those of the official code, except for
    `points_per_batch`, which depends on the device, and the last two settings, which are new.

    Attributes:
        points_per_side: points of the grid along each side of the image.
        points_per_batch: batch size of the decoder in points, by default chosen for the device. It affects time and
            memory, but not the masks.
        pred_iou_thresh: masks must have a higher predicted IoU, in 0..1; by default that of the official code, 0.88 for
            SAM and 0.8 for SAM 2.
        stability_score_thresh: masks must have at least this stability score, in 0..1; by default that of the model:
            0.95 as in the official code, or what the validation of its training found.
        stability_score_offset: offset of the mask threshold for the stability score.
        box_nms_thresh: IoU threshold of non-maximum suppression on boxes, by predicted IoU.
        crop_n_layers: layers of crops in addition to the whole image: 2 x 2, 4 x 4, ...
        crop_nms_thresh: IoU threshold of non-maximum suppression between crops, where smaller crops are preferred.
        crop_overlap_ratio: overlap of crops as a fraction of the shorter side of the image.
        crop_n_points_downscale_factor: the grid of layer i has points_per_side / factor^i points per side.
        point_grids: custom point grids, one per layer: xy in 0..1, [N, 2].
        min_mask_region_area: holes and islands of masks with fewer pixels are removed. Unlike in the official code, a
            mask that consists only of such islands is dropped, not reduced to the largest.
        max_mask_fraction: masks that cover this fraction of the image or more are dropped (SA-1B: 0.95).
        min_mask_area: masks of fewer pixels are dropped.
    """

    points_per_side: int = 32
    points_per_batch: int | None = None
    pred_iou_thresh: float | None = None
    stability_score_thresh: float | None = None
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    point_grids: tuple[FloatArray, ...] | None = field(default=None, compare=False)
    min_mask_region_area: int = 0
    max_mask_fraction: float | None = None
    min_mask_area: int = 0

    def __post_init__(self) -> None:
        check_numbers(self)
        for name in ("pred_iou_thresh", "stability_score_thresh", "box_nms_thresh", "crop_nms_thresh"):
            value = getattr(self, name)
            check(value is None or 0 <= value <= 1, f"{name} must lie in 0..1, got {value}.")
        for name in ("crop_n_layers", "min_mask_region_area", "min_mask_area", "stability_score_offset"):
            check(getattr(self, name) >= 0, f"{name} must not be negative, got {getattr(self, name)}.")
        for name in ("points_per_side", "crop_n_points_downscale_factor"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}.")
        for name, most in (("points_per_side", MAX_POINTS_PER_SIDE), ("crop_n_layers", MAX_CROP_LAYERS)):
            check(getattr(self, name) <= most, f"{name} must be at most {most}, got {getattr(self, name)}.")
        batch = self.points_per_batch
        check(batch is None or batch >= 1, f"points_per_batch must be at least 1, got {batch}.")
        check(0 <= self.crop_overlap_ratio < 1, f"crop_overlap_ratio must lie in 0..1, got {self.crop_overlap_ratio}.")
        fraction = self.max_mask_fraction
        check(fraction is None or 0 < fraction <= 1, f"max_mask_fraction must lie in 0..1, got {fraction}.")
        if self.point_grids is not None:
            object.__setattr__(self, "point_grids", _checked_grids(self.point_grids, self.crop_n_layers))
        else:
            self.grid(self.crop_n_layers)

    @classmethod
    def sa1b(cls) -> AutomaticConfig:
        """Return the settings for SA-1B (SAM, section B): 32 x 32 points, 2 x 2 and 4 x 4 crops, cleanup."""
        return cls(
            pred_iou_thresh=0.88,
            crop_n_layers=2,
            crop_n_points_downscale_factor=2,
            min_mask_region_area=100,
            max_mask_fraction=0.95,
        )

    def grid(self, layer: int) -> FloatArray:
        """Return the point grid of a crop layer: xy in 0..1, float32 [N, 2]."""
        if self.point_grids is not None:
            return self.point_grids[layer]
        count = self.points_per_side // self.crop_n_points_downscale_factor**layer
        check(
            count >= 1,
            f"points_per_side {self.points_per_side} leaves no points for layer {layer}: lower crop_n_layers "
            f"({self.crop_n_layers}) or crop_n_points_downscale_factor ({self.crop_n_points_downscale_factor}).",
        )
        return build_point_grid(count)


def _checked_grids(grids: Sequence[npt.ArrayLike], layers: int) -> tuple[FloatArray, ...]:
    check(len(grids) == layers + 1, f"point_grids must be {layers + 1} grids, one a layer, got {len(grids)}.")
    checked = tuple(np.array(grid, dtype=np.float32) for grid in grids)
    for grid in checked:
        check(grid.ndim == 2 and grid.shape[1] == 2, f"A point grid must be [N, 2], got {list(grid.shape)}.")
        check(len(grid) > 0, "A point grid is empty.")
        check(
            bool(((grid >= 0) & (grid <= 1)).all()), "Points of a grid must lie in 0..1: they are shares of the image."
        )
    return checked


@dataclass(frozen=True)
class _Found:
    """The K masks of one crop after filtering and non-maximum suppression; boxes and points in pixels of the image."""

    crop: Crop
    low_res: tuple[Logits, ...]  # of K masks, [h, w]
    scores: FloatArray
    stability: FloatArray
    boxes_xyxy: FloatArray
    points_xy: FloatArray


@dataclass(frozen=True)
class _Encoded:
    """Mask `index` of `found`, encoded at the size of the image.

    Attributes:
        rle_counts: the run-length encoding.
        box_xyxy: box of the mask, half-open.
        was_cleaned: whether holes or islands were removed.
        found: the masks of the crop.
        index: index of the mask in `found`.
    """

    rle_counts: str
    box_xyxy: tuple[int, int, int, int]
    was_cleaned: bool
    found: _Found
    index: int


class AutomaticMaskGenerator:
    """Generates automatic masks: prompts a model with a grid of points, then filters and deduplicates the masks.

    Example:
        >>> instances = segany.AutomaticMaskGenerator(segany.load("mobile_sam")).generate("photo.jpg")
        >>> instances[0].mask, instances[0].predicted_iou  # bool [H, W]; the highest predicted IoU first
    """

    def __init__(
        self,
        model: ProposingModel,
        config: AutomaticConfig | None = None,
        *,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        pixel_options: PixelOptions = AS_STORED,
    ) -> None:
        """Wrap a model.

        Args:
            model: a model from `segany.load`.
            config: the settings; by default those of the official code.
            max_pixels: larger images are refused before they are decoded.
            pixel_options: value range, bands and page of images that do not determine them.
        """
        self.model = model
        self.config = config or AutomaticConfig()
        chosen, stability = self.config.pred_iou_thresh, self.config.stability_score_thresh
        self._pred_iou_thresh = model.pred_iou_thresh if chosen is None else chosen
        self._stability_score_thresh = model.stability_score_thresh if stability is None else stability
        self.predictor = ImagePredictor(model, max_pixels=max_pixels, pixel_options=pixel_options)

    def generate(self, image: ImageSource | Embedding, *, progress: ProgressCallback | None = None) -> Instances:
        """Generate automatic masks.

        Args:
            image: an image, as for `ImagePredictor.embed`; or its embedding, unless crops are configured, which need
                embeddings of their own.
            progress: receives the number of decoded points.

        Returns:
            Instances of source "automatic", highest score first. The scores are the predicted IoU. Columns:
            `predicted_iou`, float32 [N]; `stability_score`, float32 [N], the IoU of the masks at a raised and a lowered
            threshold; `point_xy`, float32 [N, 2], the point prompt of the mask; `crop_box_xyxy`, int64 [N, 4], the crop
            in which it was found. Points and crops are in pixels of the image.

        Raises:
            ImageError: as for `read_image`.
            EmbeddingError: the embedding was made by another model or other weights.
            ConfigError: an embedding is given although there are crops.
        """
        config = self.config
        if isinstance(image, Embedding):
            check(config.crop_n_layers == 0, "Crops need the image itself: an embedding holds only the whole.")
            image.check_model(self.model.name, self.model.encoder_id, self.model.processor.preprocessing)
            size_hw = image.size_hw
            crops = self._crops(size_hw)
            embeddings: Iterable[Embedding] = (image,)
        else:
            pixels = read_image(image, self.predictor.max_pixels, options=self.predictor.pixel_options)
            size_hw = (pixels.shape[0], pixels.shape[1])
            crops = self._crops(size_hw)
            embeddings = (self._embed(pixels, crop) for crop in crops)  # one at a time
        points = _PointCount(progress, sum(len(config.grid(crop.layer)) for crop in crops))
        pairs = zip(embeddings, crops, strict=True)
        found = [self._search(embedding, crop, size_hw, points) for embedding, crop in pairs]
        masks = list(self._encoded(_best_of_crops(found, config.crop_nms_thresh), size_hw))
        if config.min_mask_region_area:
            masks = _without_duplicates(masks, max(config.box_nms_thresh, config.crop_nms_thresh))
        return _to_instances(masks, size_hw).sorted_by_score()

    def _crops(self, size_hw: SizeHW) -> list[Crop]:
        crops = generate_crop_boxes(size_hw, self.config.crop_n_layers, self.config.crop_overlap_ratio)
        check(all(min(crop.size_hw) > 0 for crop in crops), "The image is too small for that many layers of crops.")
        return crops

    def _embed(self, pixels: PixelArray, crop: Crop) -> Embedding:
        left, top, right, bottom = crop.box_xyxy
        return self.predictor.embed(np.ascontiguousarray(pixels[top:bottom, left:right]))

    def _search(self, embedding: Embedding, crop: Crop, size_hw: SizeHW, count: _PointCount) -> _Found:
        """Predict, filter and deduplicate the masks of one crop."""
        config, preprocessing = self.config, embedding.preprocessing
        points_xy = config.grid(crop.layer) * np.array(embedding.size_hw[::-1], dtype=np.float32)
        points, labels = _one_point_prompts(preprocessing.to_input_xy(points_xy, embedding.size_hw))
        candidates = Candidates(self.model.processor, embedding.size_hw, config.stability_score_offset)
        prompts: list[IntArray] = []
        scores: list[FloatArray] = []
        for proposals in self.model.propose(
            embedding.features, points, labels, self._pred_iou_thresh, config.points_per_batch
        ):
            candidates.add(proposals.low_res, proposals.scores)
            prompts.append(proposals.prompts)
            scores.append(proposals.scores)
            count.advance(len(points), proposals.done)
        count.finish(len(points))
        offset_xy = np.array(crop.box_xyxy[:2], dtype=np.float32)

        def accept(measures: MaskMeasures) -> BoolArray:
            largest = np.inf if config.max_mask_fraction is None else config.max_mask_fraction * size_hw[0] * size_hw[1]
            boxes = measures.boxes_xyxy + np.tile(offset_xy, 2)
            good = (measures.stability >= self._stability_score_thresh) & (measures.areas < largest)
            good &= measures.areas >= max(config.min_mask_area, 1)
            return np.asarray(good & ~is_box_near_crop_edge(boxes, crop.box_xyxy, size_hw))

        chosen = candidates.choose(accept, config.box_nms_thresh)
        return _Found(
            crop,
            chosen.low_res,
            np.concatenate(scores)[chosen.index],
            chosen.stability,
            chosen.boxes_xyxy + np.tile(offset_xy, 2),
            points_xy[np.concatenate(prompts)[chosen.index]] + offset_xy,
        )

    def _encoded(self, found: list[_Found], size_hw: SizeHW) -> Iterator[_Encoded]:
        """Upscale, clean and encode masks at the size of the image, and drop empty ones."""
        limit = self.config.min_mask_region_area
        for one in found:
            for index, found_mask in enumerate(self._masks(one, size_hw)):
                mask, has_holes, has_islands = found_mask, False, False
                if limit:
                    filled, has_holes = remove_small_regions(found_mask, limit, "holes")
                    mask, has_islands = remove_small_regions(filled, limit, "islands")
                box = mask_box(mask)
                if box is not None:
                    yield _Encoded(encode_masks(mask)[0]["counts"], box, has_holes or has_islands, one, index)

    def _masks(self, found: _Found, size_hw: SizeHW) -> Iterator[BoolArray]:
        """Yield each mask at the size of the image, bool [H, W], column-major as for run-length encoding."""
        left, top, right, bottom = found.crop.box_xyxy
        crop_w, crop_h = right - left, bottom - top
        for logits in found.low_res:
            turned: Any = logits.T
            low_res = turned if isinstance(turned, np.ndarray) else turned.cpu().numpy()
            mask = self.model.processor.upscale_masks(np.ascontiguousarray(low_res)[None, None], (crop_w, crop_h))[0, 0]
            if (crop_h, crop_w) == size_hw:
                yield mask.T
            else:
                whole = np.zeros(size_hw[::-1], dtype=np.bool_)
                whole[left:right, top:bottom] = mask
                yield whole.T


def _without_duplicates(masks: list[_Encoded], iou_thresh: float) -> list[_Encoded]:
    """Drop masks that became duplicates by cleaning, by non-maximum suppression that prefers unchanged masks."""
    # As in the official code, these boxes are inclusive: from the first to the last pixel.
    boxes = np.array([mask.box_xyxy for mask in masks], dtype=np.float32).reshape(-1, 4)
    boxes[:, 2:] -= 1
    untouched = 1 - np.array([mask.was_cleaned for mask in masks], dtype=np.float32)
    return [masks[index] for index in nms(boxes, untouched, iou_thresh)]


def _to_instances(masks: list[_Encoded], size_hw: SizeHW) -> Instances:
    scores = np.array([mask.found.scores[mask.index] for mask in masks], dtype=np.float32)
    columns: dict[str, npt.NDArray[Any]] = {
        "predicted_iou": scores,
        "stability_score": np.array([mask.found.stability[mask.index] for mask in masks], dtype=np.float32),
        "point_xy": np.array([mask.found.points_xy[mask.index] for mask in masks], dtype=np.float32).reshape(-1, 2),
        "crop_box_xyxy": np.array([mask.found.crop.box_xyxy for mask in masks], dtype=np.int64).reshape(-1, 4),
    }
    return Instances(
        [mask.rle_counts for mask in masks],
        size_hw,
        boxes_xyxy=np.array([mask.box_xyxy for mask in masks], dtype=np.float32).reshape(-1, 4),
        scores=scores,
        sources="automatic",
        columns=columns,
    )


class _PointCount:
    """Reports the number of decoded points over all crops."""

    def __init__(self, progress: ProgressCallback | None, total: int) -> None:
        self.progress, self.total, self.before = progress, total, 0

    def advance(self, of: int, done: int) -> None:
        report(self.progress, "automatic masks", self.before + min(done, of), self.total, "points")

    def finish(self, of: int) -> None:
        self.before += of


def _one_point_prompts(points_xy: FloatArray) -> tuple[FloatArray, IntArray]:
    """Convert points [K, 2] to K prompts of one point and one padding point: points [K, 2, 2] and labels [K, 2]."""
    points = np.stack([points_xy, np.zeros_like(points_xy)], axis=1)
    return points, np.tile(np.array([FOREGROUND, PADDING_LABEL], dtype=np.int64), (len(points), 1))


def _best_of_crops(found: list[_Found], iou_thresh: float) -> list[_Found]:
    """Drop duplicates between crops by non-maximum suppression that prefers smaller crops.

    Smaller crops come first in the result, so that they are also preferred among duplicates that cleaning creates.
    """
    if len(found) == 1:
        return found
    boxes = np.concatenate([one.boxes_xyxy for one in found])
    crop_areas = box_areas(np.array([one.crop.box_xyxy for one in found], dtype=np.float32))
    preference = np.repeat(1 / crop_areas, [len(one.scores) for one in found]).astype(np.float32)
    kept = np.zeros(len(boxes), dtype=np.bool_)
    kept[nms(boxes, preference, iou_thresh)] = True
    ends = np.cumsum([len(one.scores) for one in found])[:-1]
    left = [_subset(one, np.flatnonzero(flags)) for one, flags in zip(found, np.split(kept, ends), strict=True)]
    return [left[index] for index in np.argsort(crop_areas, kind="stable")]


def _subset(found: _Found, index: npt.NDArray[np.intp]) -> _Found:
    return _Found(
        found.crop,
        tuple(found.low_res[i] for i in index),
        found.scores[index],
        found.stability[index],
        found.boxes_xyxy[index],
        found.points_xy[index],
    )
