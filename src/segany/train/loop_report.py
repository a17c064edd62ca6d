"""The observer of the training loop, the log of a step, and the result of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

End: TypeAlias = Literal["finished", "early", "interrupted"]


@dataclass(frozen=True)
class StepLog:
    """The log of an optimizer step.

    Attributes:
        step: number of the step, from 1.
        epoch: number of the epoch, from 0.
        loss: mean loss over all items of the batch.
        parts: means of the parts of the loss.
        lr: learning rate, before the scales of parameter groups.
        grad_norm: norm of the gradients before clipping.
        items: number of items in the batch, over all processes.
        seconds: duration of the step, including the time to load its items.
    """

    step: int
    epoch: int
    loss: float
    parts: Mapping[str, float]
    lr: float
    grad_norm: float
    items: int
    seconds: float


class Observer:
    """Callbacks of the training loop, called in the main process. The methods of this base class do nothing."""

    def started(self, step: int, total: int) -> None:
        """The run starts, or resumes after `step` of `total` steps."""

    def stepped(self, log: StepLog) -> None:
        """An optimizer step is done."""

    def validating(self, step: int) -> None:
        """A validation starts."""

    def validated(self, step: int, scores: Mapping[str, float], *, is_best: bool) -> None:
        """A validation is done."""

    def saved(self, step: int) -> None:
        """A checkpoint is written, from which the run can be resumed."""


@dataclass(frozen=True)
class TrainingResult:
    """The result of a call of `train`.

    Attributes:
        end: "finished", "early" after early stopping, or "interrupted" if the run was canceled and can be resumed.
        step: number of steps done.
        total: number of steps of the whole training.
        best_step: step of the best model.
        best_score: first score of the best model; None without a validation.
        scores: scores of the last validation of this call; empty if there was none.
        best: file of the best model; without a validation, of the last.
        last: file of the last model.
    """

    end: End
    step: int
    total: int
    best_step: int
    best_score: float | None
    scores: Mapping[str, float]
    best: Path
    last: Path
