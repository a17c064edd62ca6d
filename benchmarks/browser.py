"""Benchmark of MobileSAM's exported decoder in Chromium beside ONNX Runtime and PyTorch, and the error of float16.

    make browser
    python -m benchmarks.browser

Writes results/browser.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

import segany
from benchmarks.setting import REPOSITORY, Setting
from benchmarks.web_decoder import WebDecoder
from benchmarks.web_page import RUNTIME, open_browser, open_page, what_is_missing
from segany.core.arrays import MASK_THRESHOLD, BoolArray
from segany.core.embedding import Embedding
from segany.core.prompt import Prompt
from segany.export import to_onnx
from segany.export.check import tolerant_mask_iou
from segany.predict.image import labeled_points
from segany.runtime import OnnxModel

if TYPE_CHECKING:
    from playwright.sync_api import Browser

IMAGES = REPOSITORY / "examples" / "images"
IMAGE, POINT_XY = IMAGES / "coffee.png", (300.0, 200.0)

LARGE_HW = (1200, 1800)
"""The size of masks of an ordinary photograph, in the proportions of `IMAGE`."""

WARMUP, REPEATS = 12, 20
"""Untimed decodes: browsers recompile WebAssembly while it runs, so that about the first dozen are slower."""

GRID = 5
"""Points per side of the grid on each photograph with which the error of float16 is measured."""

THREADS = (1, 2)


@dataclass(frozen=True)
class Timing:
    """Times of one runtime in one round in seconds: a decode, a decode with masks of `LARGE_HW`, and opening a page.

    Attributes:
        opening: time to fetch and prepare the decoder and an embedding.
        first: time of the first decode in the page.
    """

    click: float
    large: float
    opening: float | None = None
    first: float | None = None


@dataclass(frozen=True, eq=False)
class Place:
    """A folder with an export and embeddings of the photographs in float16, and the model in PyTorch."""

    folder: Path
    predictor: segany.ImagePredictor
    exact: dict[str, Embedding]

    @classmethod
    def prepare(cls, folder: Path) -> Place:
        model = segany.load("mobile_sam", device="cpu")
        to_onnx(model, folder)
        predictor = segany.ImagePredictor(model)
        exact = {path.stem: predictor.embed(path) for path in sorted(IMAGES.glob("*.png"))}
        for name, embedding in exact.items():
            embedding.save(folder / f"{name}.safetensors", precision="fp16")
        return cls(folder, predictor, exact)


def main() -> None:
    """Export, measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    if missing := what_is_missing():
        parser.error(missing)
    setting = Setting.current()
    with tempfile.TemporaryDirectory() as scratch, open_browser() as browser:
        place = Place.prepare(Path(scratch) / "export")
        timings: dict[str, list[Timing]] = {}
        for number in range(rounds):
            for title, timing in _round(browser, place).items():
                timings.setdefault(title, []).append(timing)
                print(f"round {number + 1}: {title}: {1000 * timing.click:.0f} ms", flush=True)
        text = _table(setting, browser.version, timings) + _cost_of_float16(browser, place)
    path = REPOSITORY / "benchmarks" / "results" / "browser.md"
    path.write_text(text)
    print(path)


def _round(browser: Browser, place: Place) -> dict[str, Timing]:
    found = {f"Chromium, {threads} thread{'s'[: threads - 1]}": _page(browser, place, threads) for threads in THREADS}
    return found | {"ONNX Runtime": _onnx(place), "PyTorch": _torch(place)}


def _page(browser: Browser, place: Place, threads: int) -> Timing:
    prompt = Prompt(points_xy=[POINT_XY])
    with open_page(browser, place.folder) as page:
        start = time.perf_counter()
        web = WebDecoder(page, "/files/manifest.json", f"/files/{IMAGE.stem}.safetensors", threads)
        opening = time.perf_counter() - start
        first, *_ = web.seconds(prompt, WARMUP)
        return Timing(
            click=median(web.seconds(prompt, REPEATS)),
            large=median(web.seconds(prompt, REPEATS, sizeHW=LARGE_HW)),
            opening=opening,
            first=first,
        )


def _onnx(place: Place) -> Timing:
    model, embedding = OnnxModel(place.folder), place.exact[IMAGE.stem]
    points, labels = labeled_points(Prompt(points_xy=[POINT_XY]), embedding, pads_boxes=model.pads_boxes)

    def masks(size_hw: tuple[int, int]) -> BoolArray:
        found = model.decode(embedding.features, points[None], labels[None], size_hw=size_hw)
        return found["mask_logits_at_size"] > MASK_THRESHOLD

    return Timing(_median(lambda: masks(embedding.size_hw)), _median(lambda: masks(LARGE_HW)))


def _torch(place: Place) -> Timing:
    model, embedding = place.predictor.model, place.exact[IMAGE.stem]
    points, labels = labeled_points(Prompt(points_xy=[POINT_XY]), embedding, pads_boxes=model.pads_boxes)

    def masks(size_hw: tuple[int, int]) -> BoolArray:
        low_res, _ = model.predict_low_res(embedding.features, points[None], labels[None], None, multimask=True)
        return model.processor.upscale_masks(low_res, size_hw)

    return Timing(_median(lambda: masks(embedding.size_hw)), _median(lambda: masks(LARGE_HW)))


def _median(call: Callable[[], object]) -> float:
    times = []
    for _ in range(WARMUP + REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times[WARMUP:])


def _table(setting: Setting, chromium: str, timings: dict[str, list[Timing]]) -> str:
    runtime = json.loads((RUNTIME / "package.json").read_text())["version"]
    height, width = LARGE_HW
    lines = [
        "# The decoder in a browser",
        "",
        f"Made by `python -m benchmarks.browser`: {setting.cpu}, {setting.cores} cores, {setting.date},",
        f"commit {setting.commit}, headless Chromium {chromium}, onnxruntime-web {runtime} (WebAssembly),",
        f"MobileSAM in fp32, {IMAGE.name} (600 x 400). A click is one point to three masks at image size. Times are",
        f"medians of {REPEATS} clicks after {WARMUP} to warm up, and of {len(timings['PyTorch'])} rounds, with",
        "their range. ONNX Runtime and PyTorch have all cores. Opening is to fetch and prepare decoder and embedding,",
        "from a server on the same machine.",
        "",
        f"| | a click | masks of {width} x {height} | first click | opening |",
        "|---|---|---|---|---|",
    ]
    for title, rounds in timings.items():
        first, opening = (
            "" if getattr(rounds[0], name) is None else _milliseconds([getattr(timing, name) for timing in rounds])
            for name in ("first", "opening")
        )
        click, large = (_milliseconds([getattr(timing, name) for timing in rounds]) for name in ("click", "large"))
        lines.append(f"| {title} | {click} | {large} | {first} | {opening} |")
    return "\n".join([*lines, ""])


def _milliseconds(seconds: list[float]) -> str:
    return f"{1000 * median(seconds):.0f} ms ({1000 * min(seconds):.0f} to {1000 * max(seconds):.0f})"


def _cost_of_float16(browser: Browser, place: Place) -> str:
    """Compare the page's masks, from embeddings in float16, with PyTorch's from these and from float32 embeddings."""
    overlaps: dict[str, list[float]] = {"PyTorch, the same embedding": [], "PyTorch, the embedding in float32": []}
    pixels: dict[str, list[int]] = {title: [] for title in overlaps}
    with open_page(browser, place.folder) as page:
        for name, exact in place.exact.items():
            rounded = Embedding.load(place.folder / f"{name}.safetensors")
            web = WebDecoder(page, "/files/manifest.json", f"/files/{name}.safetensors")
            for x, y in np.argwhere(np.ones((GRID, GRID))) + 0.5:
                prompt = Prompt(points_xy=[[x / GRID * exact.size_hw[1], y / GRID * exact.size_hw[0]]])
                found = web.decode(prompt, "multi").masks
                for title, embedding in zip(overlaps, (rounded, exact), strict=True):
                    expected = place.predictor.predict(embedding, prompt, masks="multi").masks[0]
                    overlaps[title] += [tolerant_mask_iou(a, b) for a, b in zip(found, expected, strict=True)]
                    pixels[title] += [int((a != b).sum()) for a, b in zip(found, expected, strict=True)]
    size = (place.folder / f"{IMAGE.stem}.safetensors").stat().st_size
    count = len(next(iter(overlaps.values())))
    lines = [
        "",
        "## What float16 costs",
        "",
        f"Masks of the page, whose embeddings are files of {size:,} bytes in float16: {count} masks, three for each of",
        f"{GRID} x {GRID} points on {len(place.exact)} photographs. One or two pixels count as none.",
        "",
        "| beside | mean IoU | least IoU | pixels that differ, mean | most |",
        "|---|---|---|---|---|",
    ]
    for title, values in overlaps.items():
        counts = pixels[title]
        lines.append(f"| {title} | {np.mean(values):.5f} | {min(values):.4f} | {np.mean(counts):.1f} | {max(counts)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
