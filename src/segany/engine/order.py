"""Active order: which images people should annotate first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from segany.core.arrays import FloatArray
from segany.core.embedding import Embedding
from segany.core.errors import check
from segany.core.prompt import Prompt
from segany.imaging.amg import build_point_grid
from segany.predict.image import ImagePredictor

Order: TypeAlias = Literal["random", "uncertainty", "diversity"]

POINTS_PER_SIDE = 8
"""Side of the grid of prompts that uncertainty is measured with."""


def random_order(ids: Sequence[str], seed: int = 0) -> list[str]:
    """Ids in a random order, which depends on the ids and the seed, and not on the order in which they are given."""
    known = sorted(ids)
    return [known[index] for index in np.random.default_rng(seed).permutation(len(known))]


def uncertainty_order(uncertainties: Mapping[str, float]) -> list[str]:
    """Ids by their uncertainty, the highest first.

    Args:
        uncertainties: `uncertainty` of each image by its id.
    """
    return sorted(uncertainties, key=lambda one: (-uncertainties[one], one))


def diversity_order(features: Mapping[str, FloatArray], done: Sequence[FloatArray] = ()) -> list[str]:
    """Ids in the order of greedy k-center selection (Sener and Savarese, "Active Learning for CNNs", 2018).

    Each next image is the one whose features are farthest from those of all images that were chosen before or are
    done. Without images that are done, the first one is the one nearest to the mean.

    Args:
        features: `image_features` of each image by its id.
        done: those of images that are annotated already.
    """
    if not features:
        return []
    ids = sorted(features)
    left = np.stack([features[one] for one in ids]).astype(np.float64)
    if len(done):
        distances = np.min([_distances(left, np.asarray(one, dtype=np.float64)) for one in done], axis=0)
    else:
        distances = -_distances(left, left.mean(axis=0))  # for the first one only
    order: list[int] = []
    for number in range(len(ids)):
        chosen = int(distances.argmax())
        order.append(chosen)
        nearest = _distances(left, left[chosen])
        distances = nearest if number == 0 and not len(done) else np.minimum(distances, nearest)
        distances[order] = -1
    return [ids[index] for index in order]


def uncertainty(predictor: ImagePredictor, embedding: Embedding, points_per_side: int = POINTS_PER_SIDE) -> float:
    """How little the model trusts its masks of an image: 1 less the mean predicted IoU of a grid of prompts, in 0..1.

    Args:
        predictor: the predictor.
        embedding: embedding of the image.
        points_per_side: side of the grid of points; each is a prompt, of whose candidates the best one counts.

    Raises:
        ConfigError: `points_per_side` is not positive.
    """
    check(points_per_side >= 1, f"points_per_side must be at least 1, got {points_per_side}.")
    height, width = embedding.size_hw
    points = build_point_grid(points_per_side) * np.array([width, height], dtype=np.float32)
    _, scores, _ = predictor.predict_low_res(embedding, [Prompt([point], [1]) for point in points])
    return float(1 - scores.max(axis=1).clip(0, 1).mean(dtype=np.float64))


def image_features(embedding: Embedding) -> FloatArray:
    """Features of a whole image for `diversity_order`: the mean of its embedding over the image, of length 1.

    Args:
        embedding: embedding of the image.

    Returns:
        float32 [C].
    """
    features = embedding.arrays()[0]
    resized, side = embedding.preprocessing.resized_hw(embedding.size_hw), embedding.preprocessing.input_size
    rows, columns = (
        max(1, round(size * extent / side)) for size, extent in zip(features.shape[1:], resized, strict=True)
    )
    mean = features[:, :rows, :columns].mean(axis=(1, 2), dtype=np.float64)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), dtype=np.float32)


def _distances(ones: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    distances: npt.NDArray[np.float64] = np.linalg.norm(ones - other, axis=1)
    return distances
