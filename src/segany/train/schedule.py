"""The learning rate over time."""

from __future__ import annotations

import math

from segany.train.loop_config import LoopConfig


def learning_rate(config: LoopConfig, step: int, total: int) -> float:
    """The learning rate of a step, before the scale of a group of parameters (SAM, section A).

    Args:
        config: of the loop.
        step: from 0 to `total` - 1. The warm-up reaches the full rate in its last step.
        total: steps of the whole training.
    """
    warmth = min(1.0, (step + 1) / max(1, config.warmup_steps))
    if config.decay == "cosine":
        share = max(0, step - config.warmup_steps) / max(1, total - config.warmup_steps)
        return config.lr * warmth * 0.5 * (1.0 + math.cos(math.pi * share))
    passed = sum(step >= boundary for boundary in config.decay_steps)
    return config.lr * warmth * config.decay_factor**passed
