"""Inputs and weights that are generated from a seed, for cases without a real image or checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

SEED = 0

WEIGHT_NOISE = 0.02
"""Standard deviation of the noise that is added to initial weights, so that none stays zero."""

OBJECT_SCORE_BIAS = "sam_mask_decoder.pred_obj_score_head.layers.2.bias"
VISIBLE = 10.0
"""Added to the object score: objects that are not visible have empty masks, which would prove nothing."""


def noise_pixels(size: int) -> npt.NDArray[np.float32]:
    """Normal noise in the shape of a model's input, float32 [1, 3, size, size]."""
    return np.random.default_rng(SEED).standard_normal((1, 3, size, size), dtype=np.float32)


def write_noise_checkpoint(model: str, path: Path) -> None:
    """Write a checkpoint with the official names and shapes of a segany model, and seeded values."""
    import torch
    from tests.parity.seeded import seeded_state

    from segany.models.registry import find_spec

    torch.manual_seed(SEED)
    spec = find_spec(model)
    state = spec.build().state_dict()
    if OBJECT_SCORE_BIAS in state:
        values = seeded_state({key: tuple(value.shape) for key, value in state.items()})
        values[OBJECT_SCORE_BIAS] += VISIBLE
        torch.save({"model": {key: torch.from_numpy(value) for key, value in values.items()}}, path)
        return
    torch.save({key: value + WEIGHT_NOISE * torch.randn_like(value) for key, value in state.items()}, path)


if __name__ == "__main__":
    write_noise_checkpoint(sys.argv[1], Path(sys.argv[2]))
