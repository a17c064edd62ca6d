"""Configuration of the training loop, and the learning rate schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from segany.core.errors import check, check_numbers
from segany.data.workers import MAX_WORKERS

LrSchedule: TypeAlias = Literal["step", "cosine"]
TrainPrecision: TypeAlias = Literal["fp32", "bf16"]

MAX_WARMUP_SHARE = 0.1
"""Largest share of the steps for the warm-up, so that a short training is not all warm-up."""


@dataclass(frozen=True)
class LoopConfig:
    """Configuration of the training loop. The defaults are those of SAM's training (SAM, section A).

    Exactly one of `steps` and `epochs` sets the length of the training.

    Attributes:
        steps: number of optimizer steps.
        epochs: number of passes over the training set.
        batch_size: number of items in an optimizer step, over all processes.
        micro_batch_size: number of items in one forward and backward pass of a process, which bounds the memory.
            Gradients are accumulated over the micro-batches of a step. None is the process's whole share of the batch.
        lr: peak learning rate.
        betas: coefficients of AdamW, each at least 0 and below 1.
        warmup_steps: number of steps of the linear warm-up of the learning rate; at most a tenth of all steps.
        lr_schedule: learning rate schedule. "step" multiplies the learning rate by `decay_factor` at each of
            `decay_steps`; "cosine" is a cosine decay to zero at the last step.
        decay_steps: steps at which the learning rate is multiplied by `decay_factor`.
        decay_factor: factor of the step schedule, above 0 and at most 1.
        clip_norm: largest norm of the gradients, for gradient clipping; none does not clip.
        precision: "fp32", or "bf16" for PyTorch's autocast.
        compile: compile the blocks of the model, which takes minutes once and then makes steps faster.
        checkpoint_activations: activation checkpointing: the backward pass recomputes the activations of the model's
            blocks, which takes less memory and a third more time.
        validate_every: number of steps between validations, in addition to those at the end of each epoch and of the
            training; none validates only then.
        validate_first: validate before the first step too.
        save_every: number of steps between checkpoints, in addition to that at the end of the training; none saves
            only then.
        keep_last_n: number of models of earlier checkpoints to keep, besides the best and the last model.
        patience: number of validations without a better score after which training stops early; none does not stop.
        seed: random seed of the order of items, of augmentation and prompts, and of weight initialization.
        workers: number of worker processes of the data loader; 0 loads items in the training process.
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
        check_numbers(self)
        check((self.steps is None) != (self.epochs is None), "Give either steps or epochs, and leave the other out.")
        for name in ("steps", "epochs", "batch_size", "micro_batch_size", "validate_every", "save_every", "patience"):
            value = getattr(self, name)
            check(value is None or value > 0, f"{name} must be positive, got {value}.")
        for name in ("warmup_steps", "keep_last_n", "seed", "workers"):
            value = getattr(self, name)
            check(value >= 0, f"{name} must not be negative, got {value}.")
        check(self.workers <= MAX_WORKERS, f"workers must be at most {MAX_WORKERS}, got {self.workers}.")
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
            f"decay_steps must be positive and ascending, got {self.decay_steps}.",
        )
        check(0 < self.decay_factor <= 1, f"decay_factor must lie above 0 and at most at 1, got {self.decay_factor}.")
        check(
            self.clip_norm is None or 0 < self.clip_norm < math.inf,
            f"clip_norm must be positive, got {self.clip_norm}.",
        )
        check(self.precision in ("fp32", "bf16"), f"precision must be 'fp32' or 'bf16', got {self.precision!r}.")

    def total_steps(self, batches: int) -> int:
        """Number of steps of the whole training, given the number of batches in an epoch."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None  # checked on creation
        return self.epochs * batches

    def void_fields(self) -> Mapping[str, str]:
        """Fields that have no effect with the values of the others, each with the reason."""
        if self.lr_schedule == "cosine":
            return dict.fromkeys(("decay_steps", "decay_factor"), "lr_schedule is cosine")
        return {"decay_factor": "there are no decay_steps"} if not self.decay_steps else {}


def learning_rate(config: LoopConfig, step: int, total: int) -> float:
    """The learning rate of a step, before the scale of each parameter group (SAM, section A).

    Args:
        config: configuration of the loop.
        step: index of the step, 0 to `total` - 1. The last step of the warm-up has the peak learning rate.
        total: number of steps of the whole training.
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
"""Fields that may change when a run is resumed, because the steps before do not depend on them."""
