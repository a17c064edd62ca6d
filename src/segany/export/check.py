"""Comparison of the masks of an exported model with those of PyTorch, for each kind of prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from segany.core.arrays import BoolArray, PixelArray, SizeHW
from segany.core.embedding import Embedding
from segany.core.errors import ExportError
from segany.core.progress import ProgressCallback, report
from segany.core.prompt import Prompt
from segany.export.check_memory import compare_memory, judge_memory
from segany.imaging.amg import build_point_grid
from segany.predict.image import ImagePredictor, labeled_points
from segany.runtime.manifest import CheckRecord, ExportPrecision, Manifest
from segany.runtime.model import ExportedModel, OnnxModel
from segany.runtime.torch_model import TorchModel

CHECKED_PRECISIONS: tuple[str, ...] = get_args(ExportPrecision)

MIN_IOU_FP32 = 0.999
"""Lowest IoU with PyTorch's mask that any mask may have in fp32."""

MIN_IOU_FP16 = 0.99
"""Lowest mean IoU with PyTorch's masks that a kind of prompt may have in fp16."""

ROUNDING_PIXELS = 2
"""Pixels that may differ in any mask: the sign of a logit near zero depends on the order of summation."""

SCENE_SIZES: tuple[SizeHW, ...] = ((640, 448), (420, 640), (512, 512))
"""Sizes of the drawn images: portrait, landscape, square."""

_GRID_SIDE = 2
"""Points per side of the point grid for automatic masks."""

_CENTERS = np.array([[0.32, 0.3], [0.66, 0.64], [0.3, 0.72]])
_RADII = np.array([[0.2, 0.14], [0.22, 0.2], [0.13, 0.16]])


def scenes() -> list[PixelArray]:
    """Draw test images, uint8 [H, W, 3]: shaded ellipses on a gradient, with noise."""
    images = []
    for seed, (height, width) in enumerate(SCENE_SIZES):
        random = np.random.default_rng(seed)
        y, x = np.mgrid[:height, :width] / np.array([height, width])[:, None, None]
        image = np.stack([90 + 60 * x, 110 + 50 * y, 130 - 50 * x], axis=-1)
        for (center_x, center_y), (radius_x, radius_y) in zip(_CENTERS, _RADII, strict=True):
            distance = np.hypot((x - center_x) / radius_x, (y - center_y) / radius_y)
            color = random.uniform(20, 235, 3)
            image = np.where((distance < 1)[..., None], color * (1 - 0.3 * distance[..., None]), image)
        image += random.normal(0, 4, image.shape)
        images.append(image.clip(0, 255).astype(np.uint8))
    return images


def prompts_of_kinds(size_hw: SizeHW, mask_logits: Prompt) -> dict[str, Prompt]:
    """Return a prompt of each kind for a drawn image; `mask_logits` is a prompt with points and mask logits."""
    scale = np.array(size_hw[::-1], dtype=np.float64)
    first, second = _CENTERS[:2] * scale
    box = np.concatenate([first - _RADII[0] * scale, first + _RADII[0] * scale]).clip(0)
    return {
        "point": Prompt(points_xy=[first]),
        "several points": Prompt(points_xy=[first, first + 0.3 * _RADII[0] * scale, second], labels=[1, 1, 0]),
        "box": Prompt(box_xyxy=box),
        "box and point": Prompt(points_xy=[first], box_xyxy=box),
        "mask and point": mask_logits,
        "mask": Prompt(mask_logits=mask_logits.mask_logits),
    }


def compare_masks(
    model: TorchModel,
    exported: ExportedModel,
    images: Sequence[PixelArray],
    progress: ProgressCallback | None = None,
) -> list[CheckRecord]:
    """Compare all four candidates of a model and its export for each kind of prompt on each image.

    The export uses its own image embedding and its own upscaling to the size of the image.
    """
    overlaps: dict[str, list[float]] = {}
    predictor = ImagePredictor(model)
    for number, image in enumerate(images):
        report(progress, "checking masks", number, len(images), "images")
        embedding = predictor.embed(image)
        features = exported.embed([image])[0]
        earlier = predictor.predict(embedding, Prompt(points_xy=[_CENTERS[1] * np.array(embedding.size_hw[::-1])]))
        overlaps.setdefault("grid", []).extend(_proposed_overlaps(model, exported, embedding, features))
        kinds = prompts_of_kinds(embedding.size_hw, earlier.refine())
        for kind, prompt in kinds.items():
            expected = predictor.predict(embedding, [prompt, prompt], masks="multi").masks[0]
            single = predictor.predict(embedding, prompt, masks="single").masks[0]
            found = _exported_masks(exported, features, embedding, prompt)
            pairs = zip(np.concatenate([single, expected]), found, strict=True)
            overlaps.setdefault(kind, []).extend(tolerant_mask_iou(ours, theirs) for ours, theirs in pairs)
    return [
        CheckRecord(kind=kind, masks=len(values), mean_iou=float(np.mean(values)), min_iou=min(values))
        for kind, values in overlaps.items()
    ]


def _proposed_overlaps(
    model: TorchModel, exported: ExportedModel, embedding: Embedding, features: Sequence[np.ndarray]
) -> Iterator[float]:
    """Yield the IoU of the low-res masks that both predict for a grid of points, by `propose` in the export."""
    points_xy = build_point_grid(_GRID_SIDE) * np.array(embedding.size_hw[::-1], dtype=np.float32)
    prompts = [Prompt(points_xy=[point]) for point in points_xy]
    labeled = [labeled_points(prompt, embedding, pads_boxes=exported.pads_boxes) for prompt in prompts]
    points, labels = (np.stack(arrays) for arrays in zip(*labeled, strict=True))
    expected, _ = model.predict_low_res(embedding.features, points, labels, None, multimask=True)
    found = np.concatenate([some.low_res for some in exported.propose(features, points, labels, -np.inf)])
    expected = expected.reshape(found.shape)
    yield from (tolerant_mask_iou(ours > 0, theirs > 0) for ours, theirs in zip(expected, found, strict=True))


def _exported_masks(
    exported: ExportedModel, features: Sequence[np.ndarray], embedding: Embedding, prompt: Prompt
) -> Iterator[BoolArray]:
    """Yield the four candidates, bool [H, W]. A second prompt in the batch must not change them."""
    points, labels = labeled_points(prompt, embedding, pads_boxes=exported.pads_boxes)
    side = exported.low_res_size
    mask = np.zeros((side, side), dtype=np.float32) if prompt.mask_logits is None else prompt.mask_logits
    outputs = exported.decode(
        features,
        np.stack([points, points[::-1]]),
        np.stack([labels, labels[::-1]]),
        np.stack([mask, np.ones_like(mask)]),
        np.array([prompt.mask_logits is not None, prompt.mask_logits is None]),
        candidates=(0, 1, 2, 3),
        size_hw=embedding.size_hw,
    )
    yield from outputs["mask_logits_at_size"][0] > 0


def tolerant_mask_iou(ours: BoolArray, theirs: BoolArray) -> float:
    """Compute the IoU of two masks, bool [H, W]; 1 if at most `ROUNDING_PIXELS` differ."""
    if np.count_nonzero(ours != theirs) <= ROUNDING_PIXELS:
        return 1.0
    return float(np.count_nonzero(ours & theirs) / np.count_nonzero(ours | theirs))


def run_checks(
    model: TorchModel,
    exported: ExportedModel,
    images: Sequence[PixelArray],
    min_iou: float,
    progress: ProgressCallback | None = None,
) -> Manifest:
    """Run all checks on images, uint8 [H, W, 3], and on the drawn images. Returns the manifest with the results.

    Raises:
        ExportError: the masks do not agree well enough for the precision.
    """
    checks = compare_masks(model, exported, [*scenes(), *images], progress)
    memory = compare_memory(model, exported, scenes()[0]) if model.has_memory else None
    mean = sum(record.mean_iou for record in checks) / len(checks)
    manifest = exported.manifest.model_copy(update={"checks": checks, "mean_iou": mean, "memory": memory})
    _judge(manifest, min_iou)
    return manifest


def _judge(manifest: Manifest, min_iou: float) -> None:
    for record in manifest.checks:
        low = {"fp32": record.min_iou < MIN_IOU_FP32, "fp16": record.mean_iou < MIN_IOU_FP16}
        if low.get(manifest.precision, False):
            raise ExportError(
                f"The export is refused: masks of {record.kind} prompts agree with PyTorch's only to an IoU of "
                f"{record.mean_iou:.4f} (least {record.min_iou:.4f}) in {manifest.precision}. Choose another precision."
            )
    mean = manifest.mean_iou or 0.0
    if manifest.precision == "int8" and mean < min_iou:
        raise ExportError(
            f"The export is refused: in int8 masks agree with PyTorch's to a mean IoU of {mean:.3f}, under "
            f"{min_iou:g}. Give more images to calibrate with, lower --min-iou, or take fp16."
        )
    judge_memory(manifest)


def check_export(
    model: TorchModel,
    folder: str | Path,
    *,
    exported: ExportedModel | None = None,
    images: Sequence[PixelArray] = (),
    min_iou: float = 0.0,
    progress: ProgressCallback | None = None,
) -> Manifest:
    """Repeat the checks of an export.

    Args:
        model: the exported model in PyTorch.
        folder: the folder that `to_onnx` wrote.
        exported: the export, opened in another runtime; by default ONNX Runtime.
        images: additional images, uint8 [H, W, 3].
        min_iou: lowest mean IoU for int8, as in `to_onnx`.
        progress: receives the number of checked images.

    Returns:
        The manifest with the new results; the folder is not changed.

    Raises:
        ExportError: the folder is not an intact export, has other weights, or its masks differ from the model's.
    """
    exported = exported or OnnxModel(folder)
    manifest = exported.manifest
    if manifest.weights_id != model.encoder_id:
        raise ExportError(
            f"{folder} was exported from other weights of {manifest.model}. Give the checkpoint that it was made of."
        )
    return run_checks(model, exported, images, min_iou, progress)
