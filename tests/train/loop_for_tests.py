"""A task and batches so small that the loop around them is all there is to test."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from segany.data.item import SkippedItem, TrainingItem
from segany.data.loader import LoadReport
from segany.train.task import ItemLoss


def make_item(number: int, epoch: int = 0) -> TrainingItem:
    pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return TrainingItem(
        name=f"item-{number}",
        image=pixels,
        masks=np.ones((1, 4, 4), dtype=np.bool_),
        boxes_xyxy=np.array([[0, 0, 4, 4]], dtype=np.float32),
        seed=1000 * epoch + number,
    )


class MemoryBatches:
    """Items that are numbers, shuffled anew in every epoch, of which each process gets every world-th."""

    def __init__(
        self, count: int = 10, batch: int = 4, process: tuple[int, int] = (0, 1), bad: Sequence[int] = ()
    ) -> None:
        self.count, self.batch, self.process, self.bad = count, batch, process, bad
        self.epoch = self.taken = 0

    def __len__(self) -> int:
        return math.ceil(self.count / self.batch)

    def __iter__(self) -> Iterator[list[TrainingItem]]:
        order = np.random.default_rng([7, self.epoch]).permutation(self.count).tolist()
        rank, world = self.process
        while self.taken < len(self):
            chosen = order[self.taken * self.batch : (self.taken + 1) * self.batch]
            self.taken += 1
            yield [make_item(number, self.epoch) for number in chosen[rank::world] if number not in self.bad]
        self.epoch, self.taken = self.epoch + 1, 0

    def state(self) -> dict[str, object]:
        return {"epoch": self.epoch, "taken": self.taken}

    def restore(self, state: Mapping[str, object]) -> None:
        self.epoch, self.taken = int(str(state["epoch"])), int(str(state["taken"]))

    @property
    def report(self) -> LoadReport:
        damaged = tuple(SkippedItem(f"item-{number}", "damaged") for number in self.bad)
        return LoadReport(items=self.taken, damaged=damaged, without_masks=("item-4",))


class Mean(nn.Module):
    """Tells the mean of an image, from its pixels, by two layers."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(48, 8), nn.Linear(8, 8)])
        self.head = nn.Linear(8, 1)
        self.dropout = nn.Dropout(dropout)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            pixels = self.dropout(torch.tanh(layer(pixels)))
        return self.head(pixels)[:, 0]


class MeanTask:
    """The squared error of `Mean`. Scores are taken from a list, else the negative loss on ten items."""

    def __init__(self, dropout: float = 0.0, scores: Sequence[float] | None = None, weight_decay: float = 0.1) -> None:
        self.module = Mean(dropout)
        self.scores = None if scores is None else list(scores)
        self.weight_decay = weight_decay
        self.runs: list[list[str]] = []
        self.was_training: list[bool] = []
        self.nan_for = ""

    def losses(self, items: Sequence[TrainingItem]) -> list[ItemLoss]:
        self.runs.append([item.name for item in items])
        self.was_training.append(self.module.training)
        if self.module.training:
            self.module.seen += len(items)
        pixels = torch.stack([torch.from_numpy(item.image).float().flatten() / 255 for item in items])
        errors = (self.module(pixels) - pixels.mean(dim=1) * 10).float() ** 2
        factors = [math.nan if item.name == self.nan_for else 1.0 for item in items]
        return [
            ItemLoss(error * factor, {"error": float(error.detach())})
            for error, factor in zip(errors, factors, strict=True)
        ]

    def parameter_groups(self) -> list[dict[str, object]]:
        return [
            {"params": list(self.module.layers.parameters()), "lr_scale": 0.5, "weight_decay": self.weight_decay},
            {"params": list(self.module.head.parameters()), "lr_scale": 1.0, "weight_decay": 0.0},
        ]

    def validate(self) -> dict[str, float]:
        if self.scores is not None:
            return {"score": self.scores.pop(0)}
        torch.rand(3)  # what validation draws must not matter
        losses = self.losses([make_item(100 + number) for number in range(10)])
        return {"score": -sum(float(loss.total) for loss in losses) / 10, "other": 1.0}
