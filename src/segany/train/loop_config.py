"""The numbers of the training loop, and the learning rate that follows from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from segany.core.errors import check

LrSchedule: TypeAlias = Literal["step", "cosine"]
TrainPrecision: TypeAlias = Literal["fp32", "bf16"]

MAX_WARMUP_SHARE = 0.1
"""Share of the steps that the warm-up takes at most: a short training would be all warm-up otherwise."""


@dataclass(frozen=True)
class LoopConfig:
    """Numbers of the training loop. The defaults are those that SAM was trained with (SAM, section A).

    Exactly one of `steps` and `epochs` says how long training takes.

    Attributes:
        steps: number of optimizer steps.
        epochs: number of passes over the data.
        batch_size: items of a step, over all processes together.
        micro_batch_size: items that go through the model at once in a process, which bounds the memory; gradients
            are accumulated over as many of them as a step takes. None takes all at once.
        lr: the highest learning rate.
        betas: of AdamW, both from 0 to below 1.
        warmup_steps: steps over which the learning rate rises linearly from next to nothing; at most a tenth of
            all steps.
        lr_schedule: "step" multiplies the learning rate by `decay_factor` after each of `decay_steps`; "cosine"
            lets it fall to zero at the end along half a cosine.
        decay_steps: steps after which the learning rate is multiplied by `decay_factor`.
        decay_factor: above 0 and at most 1.
        clip_norm: largest norm of the gradients, to which longer ones are scaled; none leaves them as they are.
        precision: "fp32", or "bf16" for PyTorch's autocast.
        compile: compile the blocks of the model, which takes minutes and then saves time.
        checkpoint_activations: compute the activations of the model's blocks again in the backward pass instead
            of keeping them: less memory for a third more time.
        validate_every: steps from one validation to the next. There is one at the end of each epoch in any case,
            and one at the end of the training; none leaves it at these.
        validate_first: validate before the first step too.
        save_every: steps from one checkpoint to the next; there is one at the end anyway. None has that only.
        keep_last_n: how many of the models that were saved on the way to keep, besides the best and the last.
        patience: stop after so many validations in a row without a better score; none goes on.
        seed: of the order of items and everything random in them, and of randomly initialized weights.
        workers: processes that read and prepare items; 0 does it in the training process.
    """

    steps: int | None = None
    epochs: int | None = None
    batch_size: int = 256
    micro_batch_size: int | None = None
    lr: float = 8e-4
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_steps: int = 250
    lr_schedule: LrSchedule = "step"
    decay_steps: tuple[int, ...] = (60_000, 86_666)
    decay_factor: float = 0.1
    clip_norm: float | None = None
    precision: TrainPrecision = "fp32"
    compile: bool = False
    checkpoint_activations: bool = False
    validate_every: int | None = 1000
    validate_first: bool = False
    save_every: int | None = 1000
    keep_last_n: int = 0
    patience: int | None = None
    seed: int = 0
    workers: int = 0

    def __post_init__(self) -> None:
        check((self.steps is None) != (self.epochs is None), "Give either steps or epochs, and leave the other out.")
        for name in ("steps", "epochs", "batch_size", "micro_batch_size", "validate_every", "save_every", "patience"):
            value = getattr(self, name)
            check(value is None or value > 0, f"{name} must be positive, got {value}.")
        for name in ("warmup_steps", "keep_last_n", "seed", "workers"):
            value = getattr(self, name)
            check(value >= 0, f"{name} must not be negative, got {value}.")
        check(0 < self.lr < math.inf, f"lr must be positive, got {self.lr}.")
        check(
            len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
            f"betas must be two numbers from 0 to below 1, got {self.betas}.",
        )
        check(
            self.lr_schedule in ("step", "cosine"), f"lr_schedule must be 'step' or 'cosine', got {self.lr_schedule!r}."
        )
        check(
            all(earlier < later for earlier, later in zip((0, *self.decay_steps), self.decay_steps, strict=False)),
            f"decay_steps must be positive and rise, got {self.decay_steps}.",
        )
        check(0 < self.decay_factor <= 1, f"decay_factor must lie above 0 and at most at 1, got {self.decay_factor}.")
        check(
            self.clip_norm is None or 0 < self.clip_norm < math.inf,
            f"clip_norm must be positive, got {self.clip_norm}.",
        )
        check(self.precision in ("fp32", "bf16"), f"precision must be 'fp32' or 'bf16', got {self.precision!r}.")

    def total_steps(self, batches: int) -> int:
        """Steps of the whole training, with so many batches in an epoch."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None  # checked on creation
        return self.epochs * batches

    def void_fields(self) -> Mapping[str, str]:
        """Fields that have no effect beside the values of others, each with the reason."""
        if self.lr_schedule == "cosine":
            return dict.fromkeys(("decay_steps", "decay_factor"), "lr_schedule is cosine")
        return {"decay_factor": "there are no decay_steps"} if not self.decay_steps else {}


def learning_rate(config: LoopConfig, step: int, total: int) -> float:
    """The learning rate of a step, before the scale of a group of parameters (SAM, section A).

    Args:
        config: of the loop.
        step: from 0 to `total` - 1. The warm-up reaches the full rate in its last step.
        total: steps of the whole training.
    """
    warmup = min(config.warmup_steps, int(total * MAX_WARMUP_SHARE))
    warmth = min(1.0, (step + 1) / max(1, warmup))
    if config.lr_schedule == "cosine":
        share = max(0, step - warmup) / max(1, total - warmup)
        return config.lr * warmth * 0.5 * (1.0 + math.cos(math.pi * share))
    passed = sum(step >= boundary for boundary in config.decay_steps)
    return config.lr * warmth * config.decay_factor**passed


MAY_CHANGE = (
    "steps",
    "epochs",
    "micro_batch_size",
    "compile",
    "checkpoint_activations",
    "validate_every",
    "save_every",
    "keep_last_n",
    "patience",
    "workers",
)
"""Fields that may be others when a run is resumed: they do not change what has been learned so far."""
