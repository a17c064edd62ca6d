"""The cost of Ray beside the plain path, and killed workers: `python -m benchmarks.scale`.

Automatic masks of shifted photographs by MobileSAM, one thread each: in this process, by one worker of Ray, and by as
many as there are cores. The results are compared. Starting Ray and loading the model is shown apart, because it does
not depend on the number of images.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

RESULTS = Path(__file__).parent / "results" / "scale.json"


@dataclass(frozen=True)
class Timing:
    """How long the images took.

    Attributes:
        name: of the executor.
        start_seconds: from the call to the first part: start, model, and the images of that part.
        image_seconds: for each image after that.
        images: number of these.
    """

    name: str
    start_seconds: float
    image_seconds: float
    images: int


def measure(name: str, workers: int | None, folder: Path, out: Path, points_per_side: int) -> Timing:
    """Run over all images with parts of one image, and time the parts after the first of each worker."""
    from segany import AutomaticConfig, ModelRef
    from segany.core.progress import ProgressEvent
    from segany.jobs.executors import LocalExecutor, RayExecutor
    from segany.jobs.scale import ScaleTask, run_at_scale
    from segany.jobs.sources import list_sources

    ticks: list[tuple[float, int]] = []
    started = time.perf_counter()

    def tick(event: ProgressEvent) -> None:
        ticks.append((time.perf_counter() - started, event.done))

    task = ScaleTask(ModelRef("mobile_sam", device="cpu"), str(out), AutomaticConfig(points_per_side=points_per_side))
    executor = LocalExecutor() if workers is None else RayExecutor(workers=workers)
    results = run_at_scale(task, list_sources([str(folder)]), executor, part_images=1, progress=tick)
    assert all(result.status == "done" for result in results), results
    first, last = ticks[workers or 1], ticks[-1]
    return Timing(name, first[0], (last[0] - first[0]) / (last[1] - first[1]), last[1] - first[1])


def main(
    images: Annotated[int, typer.Option(min=8, help="Number of images.")] = 32,
    points_per_side: Annotated[int, typer.Option(min=1, help="Points along each side of the grid.")] = 8,
    results: Annotated[Path, typer.Option(help="File of the results.")] = RESULTS,
) -> None:
    """Measure, print, and write the results. Exits with 1 if the masks of two executors differ."""
    from benchmarks.setting import Setting
    from segany.jobs.parquet import read_parts

    cores = os.cpu_count() or 1
    runs: Sequence[tuple[str, int | None]] = (("plain", None), ("ray, 1 worker", 1), (f"ray, {cores} workers", cores))
    timings, masks = [], []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "photos"
        _make_images(folder, images)
        for number, (name, workers) in enumerate(runs):
            out = Path(place) / str(number)
            timings.append(measure(name, workers, folder, out, points_per_side))
            masks.append({row.url: row.instances.rle_counts for row in read_parts(str(out))})
            timing = timings[-1]
            print(
                f"{name}: {timing.image_seconds:.3f} s an image, first after {timing.start_seconds:.1f} s", flush=True
            )
    same = all(one == masks[0] for one in masks)
    overhead = timings[1].image_seconds / timings[0].image_seconds - 1
    print(f"overhead of Ray with one worker: {100 * overhead:.1f}% an image; masks {'equal' if same else 'DIFFER'}")
    facts = {
        "images": images,
        "points_per_side": points_per_side,
        "timings": [vars(one) for one in timings],
        "overhead": overhead,
        "same_masks": same,
        "setting": vars(Setting.current()),
    }
    results.write_text(json.dumps(facts, indent=2) + "\n")
    sys.exit(0 if same else 1)


def _make_images(folder: Path, count: int) -> None:
    import numpy as np
    from PIL import Image

    folder.mkdir()
    source = Path(__file__).parents[1] / "examples" / "images" / "astronaut.png"
    photo = np.asarray(Image.open(source).convert("RGB").resize((384, 384)))
    for number in range(count):
        Image.fromarray(np.roll(photo, 11 * number, axis=1)).save(folder / f"{number:04}.png")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a worker of Ray has one core, and so one thread
    typer.run(main)
