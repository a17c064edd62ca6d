"""Weights that depend only on their key and shape, the same everywhere, so that no checkpoint need be stored."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np


def seeded_array(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Float32 numbers of a size that keeps activations sensible through a deep model.

    Matrices get variance 1 / fan-in, norm weights are near one, biases and position tables near zero,
    and variances of batch norms are positive.
    """
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    x = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape, dtype=np.float32)
    is_embedding = ("embed" in key and len(shape) == 2 and shape[0] == 1) or key.endswith(
        ("token.weight", "tokens.weight")
    )
    offset, scale = 0.0, 0.02
    if key.endswith(("gaussian_matrix", "positional_embedding")):
        scale = 1.0
    elif key.endswith("running_var"):
        x, offset, scale = np.abs(x), 1.0, 0.1
    elif key.endswith(("pos_embed", "rel_pos_h", "rel_pos_w")):
        scale = 0.02
    elif is_embedding:
        scale = 0.2
    elif len(shape) >= 2:
        scale = 1 / float(np.sqrt(np.prod(shape[1:])))
    elif key.endswith(".weight"):
        offset = 1.0
    return np.float32(offset) + np.float32(scale) * x


def seeded_state(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """`seeded_array` for every key but counters."""
    return {
        key: np.zeros(shape, np.int64) if key.endswith("num_batches_tracked") else seeded_array(key, tuple(shape))
        for key, shape in shapes.items()
    }
