"""Plots of the loss and the validation scores of a run against its steps."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from segany.core.extras import import_extra

SMOOTHING = 50
"""Number of means that the smoothed loss curve is drawn through, at most."""


def draw_curves(lines: Iterable[Mapping[str, Any]]) -> bytes:
    """Plot the loss of every step, and the loss and scores of every validation, as PNG.

    Args:
        lines: the lines of `metrics.jsonl`.
    """
    import_extra("matplotlib", "Loss curves need matplotlib", "train")
    from matplotlib.figure import Figure

    losses: list[tuple[int, float]] = []
    scores: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        if "loss" in line:
            losses.append((line["step"], line["loss"]))
        for name, value in line.get("validation", {}).items():
            scores.setdefault(name, []).append((line["step"], value))
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.set(title="loss", xlabel="step")
    right.set(title="validation", xlabel="step")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    if losses:
        steps, values = np.array(losses).T
        left.plot(steps, values, color="#9ecae1", linewidth=0.8)
        left.plot(*_means(steps, values), color="#08519c", label="training")
    val_loss = scores.pop("val_loss", None)
    if val_loss is not None:
        left.plot(*np.array(val_loss).T, marker=".", color="#d94801", label="validation")
    if losses:
        left.legend()
    for name, points in scores.items():
        if not name.startswith("automatic_masks"):  # counts do not fit the axis of the other scores, 0..1
            right.plot(*np.array(points).T, marker=".", label=name)
    if scores:
        right.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def _means(steps: Any, values: Any) -> tuple[list[float], list[float]]:
    pieces = max(1, min(SMOOTHING, len(steps)))
    return (
        [float(piece.mean()) for piece in np.array_split(steps, pieces)],
        [float(piece.mean()) for piece in np.array_split(values, pieces)],
    )
