"""Calibration of the confidence of found objects on annotated images, and the threshold for a wanted precision.

The confidence is a logistic regression on three scores of a mask. Isotonic regression on their product would need no
assumption, but more masks than a validation set has: with a few dozen, most masks tie at its highest steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from segany.core.arrays import BoolArray, FloatArray
from segany.core.embedding import Embedding
from segany.core.errors import DataError, check
from segany.core.instances import Instances
from segany.core.progress import ProgressCallback, report
from segany.core.rle import pairwise_mask_iou
from segany.imaging.image import ImageSource
from segany.models.calibration import Calibration, score_logits
from segany.predict.objects import COLUMNS, ObjectPredictor

MIN_OBJECTS = 20
"""Fewest objects to calibrate on. With 20, a precision of 95% is one wrong mask."""

PRECISION, MIN_IOU = 0.95, 0.9
"""Default precision, and default IoU from which on a mask is right."""

NEWTON_STEPS, NEWTON_TOLERANCE = 50, 1e-9
"""Largest number of steps of Newton's method, and the step at which it has converged."""

RIDGE = 1.0
"""Ridge penalty of the standardized weights: with few objects, right and wrong masks are often separable."""


@dataclass(frozen=True, eq=False)
class ScoredMasks:
    """The masks that were found on annotated images.

    Attributes:
        scores: float32 [N, 3], detection score, predicted IoU and stability score of each mask.
        ious: float64 [N], IoU of each mask with its object; see `match_objects`.
        objects: number of objects in the images.
    """

    scores: FloatArray
    ious: npt.NDArray[np.float64]
    objects: int


def match_objects(found: Instances, objects: Instances) -> npt.NDArray[np.float64]:
    """Match found objects to annotated ones, one to one, and return their IoU, float64 [N].

    In the order of their scores, each mask is matched to the object with the highest IoU that has no mask yet. The IoU
    of a mask without an object is 0.
    """
    overlaps = pairwise_mask_iou(found.rles, objects.rles)
    ious, is_free = np.zeros(len(found)), np.ones(len(objects), dtype=np.bool_)
    for number in np.argsort(-found.scores, kind="stable").tolist():
        left = np.where(is_free, overlaps[number], 0.0)
        if left.any():
            best = int(left.argmax())
            ious[number], is_free[best] = left[best], False
    return ious


def score_masks(
    predictor: ObjectPredictor,
    images: Iterable[tuple[ImageSource | Embedding, Instances]],
    *,
    progress: ProgressCallback | None = None,
) -> ScoredMasks:
    """Find the objects of annotated images, and match the masks to the annotated objects.

    Args:
        predictor: the predictor.
        images: images, as for `ObjectPredictor.find`, or their embeddings, each with its annotated objects.
        progress: receives the number of images.
    """
    scores, ious, count = [np.zeros((0, len(COLUMNS)), dtype=np.float32)], [np.zeros(0)], 0
    for number, (image, objects) in enumerate(images, start=1):
        found = predictor.find(image)
        scores.append(np.stack([found.columns[name] for name in COLUMNS], axis=1))
        ious.append(match_objects(found, objects))
        count += len(objects)
        report(progress, "calibration", number, None, "images")
    return ScoredMasks(np.concatenate(scores), np.concatenate(ious), count)


def calibrate(
    predictor: ObjectPredictor,
    images: Iterable[tuple[ImageSource | Embedding, Instances]],
    *,
    precision: float = PRECISION,
    min_iou: float = MIN_IOU,
    progress: ProgressCallback | None = None,
) -> Calibration:
    """Fit the confidence of found objects, and find the threshold for a wanted precision.

    Neither the detector nor the mask decoder may have been trained on the images.

    Args:
        predictor: a predictor with `calibrated=False`.
        images, progress: as for `score_masks`.
        precision: the wanted share of right masks from the threshold on, in 0..1.
        min_iou: IoU with its object from which on a mask is right, in 0..1.

    Returns:
        The calibration, to be set as `ObjectDetector.calibration`.

    Raises:
        DataError: the images have fewer than `MIN_OBJECTS` objects.
        ConfigError: `precision` or `min_iou` is out of range, or the predictor is calibrated.
        ImageError, EmbeddingError: as for `ObjectPredictor.find`.
    """
    check(predictor.calibration is None, "Calibrate an ObjectPredictor(..., calibrated=False).")
    masks = score_masks(predictor, images, progress=progress)
    return fit_calibration(masks, predictor.model.weights_id, precision=precision, min_iou=min_iou)


def fit_calibration(
    masks: ScoredMasks, weights_id: str, *, precision: float = PRECISION, min_iou: float = MIN_IOU
) -> Calibration:
    """Fit a calibration to masks that were found; see `calibrate`.

    Args:
        masks: the masks.
        weights_id: digest of the weights of the model that predicted them.
        precision, min_iou: as for `calibrate`.

    Raises:
        DataError, ConfigError: as for `calibrate`.
    """
    for name, value in (("precision", precision), ("min_iou", min_iou)):
        check(0 < value <= 1, f"{name} must lie above 0 and up to 1, got {value}.")
    check_enough(masks.objects)
    is_right, logits = masks.ious >= min_iou, score_logits(*masks.scores.T)
    weights, bias = fit_logistic(logits, is_right)
    fitted = Calibration(
        weights=weights,
        bias=bias,
        threshold=None,
        precision=precision,
        min_iou=min_iou,
        weights_id=weights_id,
        objects=masks.objects,
        masks=len(is_right),
        measured_precision=None,
        measured_share=0.0,
    )
    confidence = fitted.confidence(*masks.scores.T)
    threshold = threshold_for_precision(confidence, is_right, precision)
    if threshold is None:
        return fitted
    kept = is_right[confidence >= threshold]
    return replace(
        fitted,
        threshold=threshold,
        measured_precision=float(kept.mean()),
        measured_share=float(kept.sum() / masks.objects),
    )


def check_enough(objects: int) -> None:
    """Raise `DataError` if there are fewer objects than `MIN_OBJECTS`."""
    if objects < MIN_OBJECTS:
        raise DataError(
            f"{objects} annotated objects are too few to calibrate confidence on, which needs at least {MIN_OBJECTS}. "
            "Annotate more images, or hold out more of them for validation."
        )


def threshold_for_precision(confidence: FloatArray, is_right: BoolArray, precision: float) -> float | None:
    """The lowest threshold from which on masks have a precision, by the rule of succession.

    Of n masks from the threshold on, of which k are right, the precision is taken as (k + 1) / (n + 2), its posterior
    mean under a uniform prior. The share k / n itself would be too optimistic: the threshold is chosen by it, from few
    masks. A precision of 95% therefore takes at least 18 masks.

    Args:
        confidence: float [N].
        is_right: bool [N].
        precision: the wanted precision, in 0..1.

    Returns:
        The threshold; None if no threshold reaches the precision.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    expected = (np.cumsum(is_right[order]) + 1) / (np.arange(len(ranked)) + 3)
    ends = np.append(ranked[1:] < ranked[:-1], True)[: len(ranked)]  # of equal confidence, all or none are kept
    reached = np.flatnonzero((expected >= precision) & ends)
    return float(ranked[reached[-1]]) if len(reached) else None


def fit_logistic(features: npt.NDArray[np.float64], is_right: BoolArray) -> tuple[tuple[float, ...], float]:
    """Fit a logistic regression whose weights are not negative, by Newton's method.

    The weights of standardized features have a ridge penalty, and the targets are those of Platt (1999), slightly off 0
    and 1. Both bound the weights where few masks are given. A feature whose weight would be negative is left out.

    Args:
        features: float64 [N, K].
        is_right: bool [N].

    Returns:
        The K weights, and the bias.
    """
    right, wrong = np.count_nonzero(is_right), np.count_nonzero(~is_right)
    targets = np.where(is_right, (right + 1) / (right + 2), 1 / (wrong + 2))
    if not len(features):
        return (0.0,) * features.shape[1], 0.0
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    used = deviation > 0
    standardized = (features - mean) / np.where(used, deviation, 1.0)
    weights = np.zeros(features.shape[1])
    while True:
        weights[used], center = _newton(standardized[:, used], targets)
        weights[~used] = 0.0
        if weights.min() >= 0:
            break
        used[weights.argmin()] = False
    weights = np.divide(weights, deviation, out=np.zeros_like(weights), where=used)
    return tuple(weights.tolist()), float(center - weights @ mean)


def _newton(
    features: npt.NDArray[np.float64], targets: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], float]:
    """The weights and the bias of a logistic regression with a ridge penalty on the weights."""
    inputs = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    penalty = np.append(np.full(features.shape[1], RIDGE), 1e-6)  # which keeps the Hessian invertible
    solution = np.zeros(inputs.shape[1])
    for _ in range(NEWTON_STEPS):
        probability = 1 / (1 + np.exp(-inputs @ solution))
        gradient = inputs.T @ (probability - targets) + penalty * solution
        hessian = (inputs * (probability * (1 - probability))[:, None]).T @ inputs + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        solution -= step
        if np.abs(step).max() < NEWTON_TOLERANCE:
            break
    return solution[:-1], float(solution[-1])
