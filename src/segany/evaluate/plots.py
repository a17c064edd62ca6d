"""Plots of results: IoU against clicks, finished objects against clicks, recall against IoU, and tracks by score."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from segany.core.extras import import_extra
from segany.core.files import write_file
from segany.evaluate.protocols import AutomaticProtocol, BoxProtocol, ClickCountProtocol, ClickProtocol
from segany.evaluate.recall import LIMITS
from segany.evaluate.results import Results
from segany.evaluate.tracking import VideoProtocol
from segany.imaging.visualize.style import PALETTE

PANEL_INCHES = (5.0, 3.6)
DOTS_PER_INCH = 120

COLORS = [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in PALETTE]


def write_plot(results: Results, path: Path) -> Path | None:
    """Plot the curves of results as PNG, with a panel for each protocol that has a curve.

    Returns:
        The path; None if there is nothing to plot.

    Raises:
        MissingExtraError: Matplotlib is not installed.
        OutputError: the file could not be written.
    """
    # Records may have no scores, for example those of videos whose first frame only is annotated.
    scored = [one for one in results.protocols if results.numbers(one)["objects"]]
    drawn = [(draw, one) for one in scored if (draw := _PANELS.get(type(one)))]
    if not drawn:
        return None
    figure_module = import_extra("matplotlib.figure", "Plots need Matplotlib", "train")
    width, height = PANEL_INCHES
    # pyplot would keep a reference to the figure, and may need a display.
    figure = figure_module.Figure(figsize=(width * len(drawn), height), dpi=DOTS_PER_INCH, layout="constrained")
    for number, (draw, one) in enumerate(drawn, start=1):
        axes = figure.add_subplot(1, len(drawn), number)
        draw(axes, results, one)
        axes.grid(alpha=0.3)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.suptitle(f"{results.model.name} on {results.dataset}", fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return write_file(path, buffer.getvalue())


def _clicks(axes: Any, results: Results, protocol: ClickProtocol) -> None:
    curve = protocol.curve(results.flat_records(protocol))
    counts = range(1, len(curve) + 1)
    axes.plot(counts, curve, color=COLORS[0], marker="o", label="most confident mask")
    for count in protocol.counts:
        value = curve[count - 1]
        axes.annotate(f"{value:.3f}", (count, value), (0, -14), textcoords="offset points", ha="center", fontsize=8)
    oracle = results.numbers(protocol)["oracle_miou_1"]
    axes.plot([1], [oracle], color=COLORS[1], marker="D", linestyle="none", label="best of three")
    for other in results.protocols:
        if isinstance(other, BoxProtocol):
            axes.axhline(results.numbers(other)["box_miou"], color=COLORS[3], linestyle="--", label="box")
    axes.set(title="Mean IoU against clicks", xlabel="clicks", ylabel="mean IoU", xticks=list(counts))
    axes.set_ylim(max(0.0, axes.get_ylim()[0] - 0.05), 1.0)
    axes.legend(fontsize=8, loc="lower right")


def _click_counts(axes: Any, results: Results, protocol: ClickCountProtocol) -> None:
    records, numbers = results.flat_records(protocol), results.numbers(protocol)
    counts = range(1, protocol.max_clicks + 1)
    for quality, color in zip(protocol.qualities, COLORS * len(protocol.qualities), strict=False):
        label = f"IoU {quality}%: {numbers[f'noc_{quality}']:.2f} clicks"
        axes.plot(counts, protocol.curve(records, quality), color=color, marker=".", label=label)
    axes.set(title="Number of clicks (NoC)", xlabel="clicks", ylabel="share of objects done", ylim=(0, 1.02))
    axes.set_xticks([1, *range(5, protocol.max_clicks + 1, 5)])
    axes.legend(fontsize=8, loc="best")


def _automatic(axes: Any, results: Results, protocol: AutomaticProtocol) -> None:
    records, numbers = results.flat_records(protocol), results.numbers(protocol)
    for limit, color in zip(LIMITS, COLORS, strict=False):
        curve = protocol.curve(records, limit)
        if curve:
            label = f"AR@{limit}: {numbers[f'mask_ar_{limit}']:.3f}"
            axes.plot([x for x, _ in curve], [y for _, y in curve], color=color, marker=".", label=label)
    axes.set(title="Recall of automatic masks", xlabel="IoU", ylabel="share of objects found", ylim=(0, 1.02))
    axes.legend(fontsize=8, loc="upper right")


def _video(axes: Any, results: Results, protocol: VideoProtocol) -> None:
    scored = [record for record in results.flat_records(protocol) if record["frames"]]
    for key, color in (("j", COLORS[0]), ("f", COLORS[1])):
        values = sorted((record[key] for record in scored), reverse=True)
        mean = results.numbers(protocol)[key]
        axes.plot(range(1, len(values) + 1), values, color=color, marker=".", label=f"{key.upper()}: {mean:.3f}")
    axes.set(title="Tracked objects, best first", xlabel="objects", ylabel="mean over frames", ylim=(0, 1.02))
    axes.legend(fontsize=8, loc="lower left")


_PANELS: dict[type, Any] = {
    ClickProtocol: _clicks,
    ClickCountProtocol: _click_counts,
    AutomaticProtocol: _automatic,
    VideoProtocol: _video,
}
