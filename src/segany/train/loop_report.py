"""What a training tells: each step while it goes on, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

End: TypeAlias = Literal["finished", "early", "interrupted"]


@dataclass(frozen=True)
class StepLog:
    """What is told of a step.

    Attributes:
        step: its number, from 1.
        epoch: the pass over the data it belongs to, from 0.
        loss: the mean over all items of the step.
        parts: of the loss; means too.
        lr: before the scales of groups.
        grad_norm: length of the gradients before clipping.
        items: how many there were.
        seconds: it took, with the time its items took to come.
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
    """Is told what the loop does, in the main process. This one does nothing about it."""

    def started(self, step: int, total: int) -> None:
        """The run starts, or goes on, after `step` of `total` steps."""

    def stepped(self, log: StepLog) -> None:
        """A step is done."""

    def validating(self, step: int) -> None:
        """A validation begins."""

    def validated(self, step: int, scores: Mapping[str, float], *, is_best: bool) -> None:
        """A validation is done."""

    def saved(self, step: int) -> None:
        """The run can be resumed from this step."""


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended.

    Attributes:
        end: "finished", "early" where it got no better, "interrupted" where it was stopped and can be resumed.
        step: steps done.
        total: steps it was to have.
        best_step: after which the best model was saved.
        best_score: its first score; None where there was no validation.
        scores: of the last validation of this start; empty where there was none.
        best: the best model; where there was no validation, the last.
        last: the model as it is now.
    """

    end: End
    step: int
    total: int
    best_step: int
    best_score: float | None
    scores: Mapping[str, float]
    best: Path
    last: Path
