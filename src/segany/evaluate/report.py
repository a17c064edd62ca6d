"""The report of an evaluation: metrics as JSON, a plot, and pictures of the objects with the lowest scores."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from segany.core.files import write_file
from segany.evaluate.failures import FAILURES, draw_failure, mosaic, worst_objects
from segany.evaluate.plots import write_plot
from segany.evaluate.protocols import ImageSubject
from segany.evaluate.results import Readable, Results

RESULTS_NAME, PLOT_NAME = "results.json", "curves.png"


def write_report(
    results: Results,
    dataset: Readable,
    subject_of: Callable[[Any], Any],
    folder: Path,
    *,
    failures: int = FAILURES,
) -> list[Path]:
    """Write `results.json`, `curves.png`, and for each protocol `PROTOCOL.jsonl`, with a line for each image or video.

    For protocols that score single objects, `PROTOCOL_failures.png` is written too.

    Args:
        results: the results.
        dataset: the dataset. The images of failures are read and embedded again.
        subject_of: makes the subject of an image, as `segany.jobs.evaluation.subject_maker` returns it.
        folder: folder of the report.
        failures: number of objects to show; 0 for no pictures.

    Returns:
        The files that were written.

    Raises:
        OutputError: a file could not be written.
        MissingExtraError: Matplotlib is not installed.
    """
    text = json.dumps(results.as_json(), indent=2, default=str) + "\n"
    files = [write_file(folder / RESULTS_NAME, text.encode())]
    for protocol, records in results.records.items():
        lines = [json.dumps({"name": name, "records": some}, default=str) for name, some in records.items()]
        files.append(write_file(folder / f"{protocol}.jsonl", "".join(f"{line}\n" for line in lines).encode()))
    plot = write_plot(results, folder / PLOT_NAME)
    if plot is not None:
        files.append(plot)
    if failures:
        files += _write_failures(results, dataset, subject_of, folder, failures)
    return files


def _write_failures(
    results: Results, dataset: Readable, subject_of: Callable[[Any], Any], folder: Path, count: int
) -> list[Path]:
    number_of = {name: number for number, name in enumerate(dataset.names)}
    subjects: dict[str, ImageSubject] = {}  # shared, so that an image is embedded once for all protocols
    files = []
    for protocol in results.protocols:
        worst = worst_objects(results, protocol, count)
        for one in worst:
            if one.name not in subjects:
                subjects[one.name] = subject_of(dataset.read(number_of[one.name]))
        if worst:
            tiles = [draw_failure(subjects[one.name], protocol, one) for one in worst]
            title = f"{results.model.name} on {results.dataset}: the worst objects of {protocol.name}"
            buffer = io.BytesIO()
            Image.fromarray(mosaic(tiles, title)).save(buffer, format="PNG", optimize=True)
            files.append(write_file(folder / f"{protocol.name}_failures.png", buffer.getvalue()))
    return files
