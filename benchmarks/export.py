"""Benchmark of exports: model x precision x runtime, with speed, and IoU with PyTorch's masks.

    python -m benchmarks.export --peer-python ~/peers/bin/python --calibrate photos/

Every row is a separate process; each round runs all rows once. The weights of ViT-B are seeded, so that its masks are
meaningless and its embeddings are compared instead.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from unittest.mock import patch

import numpy as np

from benchmarks.agreement import mask_iou
from benchmarks.cases import CASES, MOBILE_SAM, SEGMENT_ANYTHING
from benchmarks.measure import OUR_PYTHON, Inputs, make_job, run_worker
from benchmarks.protocol import Arrays, Job
from benchmarks.setting import REPOSITORY, Setting

WORKER = "benchmarks.exported"
RUNTIMES = {"fp32": ("onnx", "openvino", "openvino-bf16"), "fp16": ("onnx", "openvino"), "int8": ("onnx", "openvino")}
REPEATS = {"embed": 5, "encoder": 5, "predict": 20, "automatic": 1}
SLOW_REPEATS = 3
"""Calls of ViT-B, whose official encoder takes ten seconds. It has one round."""

CALIBRATED = {"mobile_sam": 20, "sam_vit_b": 8}
"""Images that int8 is calibrated with, at the most."""

RUNTIME_TITLES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO", "openvino-bf16": "OpenVINO, bf16"}
TITLES = {"embed": "embed an image", "predict": "one point, three masks", "automatic": "automatic masks"}


@dataclass
class Row:
    """A model in one precision and runtime, at one task.

    Attributes:
        worker: module of the worker; `python` is its interpreter.
        weights: the checkpoint or folder that the worker loads.
        runtime: name of the runtime for the worker.
        note: text that replaces the numbers, if there are none.
        seconds: median of each round; `processes` are the times of whole processes.
        outputs: outputs of the last round.
    """

    model: str
    task: str
    title: str
    worker: str
    python: Path
    weights: str
    runtime: str
    precision: str
    note: str = ""
    seconds: list[float] = field(default_factory=list)
    processes: list[float] = field(default_factory=list)
    outputs: Arrays = field(default_factory=dict)


def main() -> None:
    """Export, measure, and write the results."""
    options = _parse()
    setting = Setting.current()
    with tempfile.TemporaryDirectory() as scratch:
        inputs = Inputs(options.image, tuple(options.point), clip=None, weights=None, scratch=Path(scratch))
        rows: list[Row] = []
        for model in options.model:
            rows += _rows(model, inputs, options)
        for number in range(options.rounds):
            for row in rows:
                if not row.note and (number == 0 or (row.task != "automatic" and row.model == "mobile_sam")):
                    _measure(row, inputs)
                    print(f"{number + 1}: {row.model} {row.task}, {row.title}: {row.seconds[-1]:.3f} s", flush=True)
        agreement = _agreements(rows)
    path = REPOSITORY / "benchmarks" / "results" / "export.md"
    path.write_text(_table(rows, setting, options) + "\n" + agreement)
    print(path)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", type=Path, help="interpreter that has the official code")
    parser.add_argument("--image", type=Path, default=REPOSITORY / "examples" / "images" / "coffee.png")
    parser.add_argument("--point", type=float, nargs=2, default=(300.0, 200.0), help="x and y of an object")
    parser.add_argument("--calibrate", type=Path, help="folder of images for int8; without it there is no int8")
    parser.add_argument("--exports", type=Path, help="folder that exports are kept in, and taken from")
    parser.add_argument("--model", action="append", choices=("mobile_sam", "sam_vit_b"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--automatic", action="store_true", help="automatic masks too, once")
    options = parser.parse_args()
    options.model = options.model or ["mobile_sam", "sam_vit_b"]
    return options


def _rows(model: str, inputs: Inputs, options: argparse.Namespace) -> list[Row]:
    """Make the rows: PyTorch, the official code, and every export of a model, for every task."""
    case = CASES["mobile_sam/embed" if model == "mobile_sam" else "sam_vit_b/encoder"]
    weights = make_job(case, inputs).weights
    tasks = ["embed", "predict", *(["automatic"] if options.automatic else [])] if model == "mobile_sam" else ["embed"]
    folders = _export_all(model, weights, options.exports or inputs.scratch, options.calibrate)
    rows = []
    for task in tasks:
        rows.append(Row(model, task, "PyTorch, segany", WORKER, OUR_PYTHON, weights, "torch", "fp32"))
        if options.peer_python:
            peer = MOBILE_SAM if model == "mobile_sam" else SEGMENT_ANYTHING
            theirs = task if model == "mobile_sam" else "encoder"
            rows.append(Row(model, theirs, "PyTorch, official", peer, options.peer_python, weights, "cpu", "fp32"))
        for precision, (folder, note) in folders.items():
            for runtime in RUNTIMES[precision]:
                title = RUNTIME_TITLES[runtime]
                rows.append(Row(model, task, title, WORKER, OUR_PYTHON, str(folder), runtime, precision, note))
    return rows


def _export_all(model: str, weights: str, parent: Path, calibrate: Path | None) -> dict[str, tuple[Path, str]]:
    """Export a model in every precision. Returns a folder for each, or the reason why there is none."""
    import segany
    from segany.export import check, to_onnx
    from segany.runtime.manifest import MANIFEST_NAME

    images = sorted(calibrate.iterdir())[: CALIBRATED[model]] if calibrate else []
    loaded = segany.load(weights, device="cpu")
    folders = {}
    for precision in ("fp32", "fp16", *(["int8"] if images else [])):
        folder = parent / f"{model}-{precision}"
        if (folder / MANIFEST_NAME).is_file():
            folders[precision] = (folder, "")
            continue
        # Weights made from a seed draw masks of noise, by which nothing can be judged.
        judged = nullcontext() if model == "mobile_sam" else patch.object(check, "_judge")
        try:
            with judged:
                to_onnx(
                    loaded,
                    folder,
                    precision=precision,
                    calibrate=images if precision == "int8" else (),
                    min_iou=0.0,
                )
            note = ""
        except segany.ExportError as error:
            note = str(error)
        folders[precision] = (folder, note)
    return folders


def _measure(row: Row, inputs: Inputs) -> None:
    repeats = REPEATS[row.task] if row.model == "mobile_sam" else SLOW_REPEATS
    job = Job(
        task=row.task,
        weights=row.weights,
        image=str(inputs.image.resolve()),
        point_xy=inputs.point_xy,
        device=row.runtime,
        warmup=0 if row.task == "automatic" else min(2, repeats),
        repeats=repeats,
        outputs=str(inputs.scratch / "outputs.npz"),
    )
    report, row.outputs = run_worker(job, python=row.python, worker=row.worker)
    row.seconds.append(median(report.seconds))
    row.processes.append(report.process_seconds)


def _table(rows: Sequence[Row], setting: Setting, options: argparse.Namespace) -> str:
    lines = [
        "# Exports",
        "",
        f"Made by `python -m benchmarks.export`: {setting.cpu}, {setting.cores} cores, {setting.date}, commit "
        f"{setting.commit}, {options.image.name}, {options.rounds} rounds. Times are medians; the ratio is the time of",
        "the official code over the row's. IoU is the mean over the masks of the task with those of segany in PyTorch;",
        "embeddings have their largest relative difference instead.",
        "",
    ]
    for model, task in dict.fromkeys((row.model, "embed" if row.task == "encoder" else row.task) for row in rows):
        chosen = [
            row for row in rows if row.model == model and row.task in (task, "encoder" if task == "embed" else task)
        ]
        base = next((median(row.seconds) for row in chosen if "official" in row.title and row.seconds), None)
        lines += [
            f"## {model}: {TITLES[task]}",
            "",
            "| | precision | time | | process | agreement |",
            "|---|---|---|---|---|---|",
        ]
        lines += [_line(row, chosen[0], base) for row in chosen]
        lines.append("")
    return "\n".join(lines)


def _line(row: Row, reference: Row, base: float | None) -> str:
    if row.note:
        return f"| {row.title} | {row.precision} | {row.note} | | | |"
    seconds = median(row.seconds)
    ratio = "" if base is None else f"{base / seconds:.1f}x"
    is_other = row is not reference and row.task != "encoder"  # which works on noise
    agreement = _agreement(row.outputs, reference.outputs) if is_other else ""
    return (
        f"| {row.title} | {row.precision} | {1000 * seconds:.0f} ms | {ratio} | {median(row.processes):.2f} s "
        f"| {agreement} |"
    )


def _agreements(rows: Sequence[Row]) -> str:
    """Compute the IoU of exports in each runtime with PyTorch's masks, for every kind of prompt on the photographs."""
    import segany
    from segany.export.check import compare_masks
    from segany.imaging.image import read_image
    from segany.runtime import open_export

    photos = [read_image(path) for path in sorted((REPOSITORY / "examples" / "images").iterdir())]
    exports = [row for row in rows if row.model == "mobile_sam" and row.task == "embed" and row.worker == WORKER]
    model = segany.load(exports[0].weights, device="cpu") if exports else None
    lines = [
        "## mobile_sam: masks beside PyTorch's",
        "",
        f"IoU of the single mask and the three, on {len(photos)} photographs, at the size of the image.",
        "",
        "| | precision | mean | kind with the lowest mean | its mean | least of all |",
        "|---|---|---|---|---|---|",
    ]
    for row in exports[1:]:
        if row.note:
            lines.append(f"| {row.title} | {row.precision} | {row.note} | | | |")
            continue
        records = compare_masks(model, open_export(row.weights, row.runtime), photos)
        worst = min(records, key=lambda record: record.mean_iou)
        mean, least = np.mean([record.mean_iou for record in records]), min(record.min_iou for record in records)
        numbers = f"{mean:.4f} | {worst.kind} | {worst.mean_iou:.4f} | {least:.4f}"
        lines.append(f"| {row.title} | {row.precision} | {numbers} |")
    return "\n".join([*lines, ""])


def _agreement(ours: Arrays, reference: Arrays) -> str:
    if "masks" in ours:
        best = [max(mask_iou(mask, other) for other in ours["masks"]) for mask in reference["masks"]]
        return f"IoU {np.mean(best):.4f}, {len(ours['masks'])} of {len(reference['masks'])} masks"
    difference = np.abs(ours["embedding"] - reference["embedding"]).max() / np.abs(reference["embedding"]).max()
    return f"difference {difference:.1e}"


if __name__ == "__main__":
    main()
