"""How training goes, whatever is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from segany.core.errors import check

Decay: TypeAlias = Literal["steps", "cosine"]
TrainPrecision: TypeAlias = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class LoopConfig:
    """Numbers of the training loop. The defaults are those SAM was trained with (SAM, section A).

    Attributes:
        steps: how many times the weights change.
        epochs: passes over the data instead of `steps`; none counts steps.
        batch: items of a step, over all processes together.
        micro_batch: items that go through the model at once in a process, which memory bounds; a step adds up
            as many of these as it takes. None takes all at once.
        lr: the highest learning rate.
        betas: of AdamW, both from 0 to below 1.
        warmup_steps: over which the learning rate rises evenly from next to nothing.
        decay: how the learning rate falls: "steps", at some of them, or "cosine", evenly to zero at the end.
        decay_steps: after which the learning rate is multiplied by `decay_factor`.
        decay_factor: of each of them, above 0 and at most 1.
        clip_norm: gradients longer than this are shortened to it; none leaves them.
        precision: of arithmetic: "fp32", or "bf16" where PyTorch's autocast holds that safe.
        compile: compile the blocks of the model, which takes minutes and then saves time.
        checkpoint_activations: compute the activations of the model's blocks anew on the way back instead of
            keeping them: less memory for a third more time.
        validate_every: steps from one validation to the next; there is one at the end anyway. None has that only.
        validate_first: validate before the first step too.
        save_every: steps from one saving to the next; there is one at the end anyway. None has that only.
        keep: how many of the models saved on the way to keep besides the best and the last.
        early_stop: stop after so many validations in a row that were no better; none goes on.
        seed: of the order of items and everything random in them, and of the weights of a model without any.
        workers: processes that read and prepare items; 0 does it in the training process.
    """

    steps: int = 90_000
    epochs: int | None = None
    batch: int = 256
    micro_batch: int | None = None
    lr: float = 8e-4
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_steps: int = 250
    decay: Decay = "steps"
    decay_steps: tuple[int, ...] = (60_000, 86_666)
    decay_factor: float = 0.1
    clip_norm: float | None = None
    precision: TrainPrecision = "fp32"
    compile: bool = False
    checkpoint_activations: bool = False
    validate_every: int | None = 1000
    validate_first: bool = False
    save_every: int | None = 1000
    keep: int = 0
    early_stop: int | None = None
    seed: int = 0
    workers: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "epochs", "micro_batch", "validate_every", "save_every", "early_stop"):
            value = getattr(self, name)
            check(value is None or value > 0, f"{name} must be positive, got {value}.")
        for name in ("warmup_steps", "keep", "seed", "workers"):
            value = getattr(self, name)
            check(value >= 0, f"{name} must not be negative, got {value}.")
        check(0 < self.lr < math.inf, f"lr must be positive, got {self.lr}.")
        check(
            len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
            f"betas must be two numbers from 0 to below 1, got {self.betas}.",
        )
        check(self.decay in ("steps", "cosine"), f"decay must be 'steps' or 'cosine', got {self.decay!r}.")
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
        return self.steps if self.epochs is None else self.epochs * batches


MAY_CHANGE = (
    "steps",
    "epochs",
    "micro_batch",
    "compile",
    "checkpoint_activations",
    "validate_every",
    "save_every",
    "keep",
    "early_stop",
    "workers",
)
"""Fields that may be others when a run is resumed: they do not change what has been learned so far."""
