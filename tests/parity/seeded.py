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
    if key.endswith(("gaussian_matrix", "positional_embedding")):
        return x
    if key.endswith("running_var"):
        return 1 + np.float32(0.1) * np.abs(x)
    if key.endswith(("pos_embed", "rel_pos_h", "rel_pos_w")):
        return np.float32(0.02) * x
    if "embed" in key and len(shape) == 2 and shape[0] == 1 or key.endswith(("token.weight", "tokens.weight")):
        return np.float32(0.2) * x
    if len(shape) >= 2:
        return x / np.float32(np.sqrt(np.prod(shape[1:])))
    if key.endswith(".weight"):
        return 1 + np.float32(0.02) * x
    return np.float32(0.02) * x


def seeded_state(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """`seeded_array` for every key but counters."""
    return {
        key: np.zeros(shape, np.int64) if key.endswith("num_batches_tracked") else seeded_array(key, tuple(shape))
        for key, shape in shapes.items()
    }
