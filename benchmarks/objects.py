"""The object detector on chest films and on drawn shapes: boxes, pre-filled masks, and automatic masks beside them.

    python -m benchmarks.objects                   # trains decoders and detectors for an hour or two
    python -m benchmarks.objects shapes --runs runs/

Of the films that are not held out by the recipe `lungs`, the last fifth is for validation and calibration: neither the
detector nor the decoder is trained on it. A run that exists is not trained again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

import segany
from benchmarks.setting import REPOSITORY, Setting
from segany.core.arrays import BoolArray, FloatArray
from segany.core.embedding import Embedding
from segany.core.instances import Instances
from segany.data.item import Dataset
from segany.data.shapes import Shapes
from segany.data.subsets import Subset
from segany.evaluate.average_precision import average_precision, matched_proposals
from segany.evaluate.calibration import ScoredMasks, fit_calibration, score_masks
from segany.evaluate.recall import RecallCounts, count_found, pairwise_box_iou
from segany.predict.objects import ObjectConfig
from segany.train.recipe import DataSplit, find_recipe
from segany.train.recipes.lungs import datasets as lungs
from segany.train.run_folder import RunFolder
from segany.train.run_recipe import RunOptions, run_recipe

RESULTS = REPOSITORY / "benchmarks" / "results" / "objects"
MIN_BOX_SCORE = 0.01
TARGETS = tuple((min_iou, precision) for min_iou in (0.9, 0.85) for precision in (0.9, 0.95))
"""IoU from which on a mask is right, and wanted precision of pre-filled masks."""

AUTOMATIC_IMAGES = 10
"""Held-out images on which automatic masks are generated, which takes seconds an image."""


@dataclass(frozen=True)
class Case:
    """Data to train and to measure on.

    Attributes:
        title: the row's title.
        train, val, test: the datasets.
        decoder_epochs: epochs of fine-tuning the decoder on the training set by the recipe `lungs`; 0 for none.
    """

    title: str
    train: Dataset
    val: Dataset
    test: Dataset
    decoder_epochs: int


def films(count: int, decoder_epochs: int) -> Case:
    """The first `count` films, of which the last fifth is for validation, and the films that `lungs` holds out."""
    split = lungs(None)
    assert split.val is not None
    train = count * 4 // 5
    parts = Subset(split.train, range(train)), Subset(split.train, range(train, count))
    return Case(f"{count} chest films, decoder of {decoder_epochs} epochs", *parts, split.val, decoder_epochs)


CASES = {
    "films_100": lambda: films(100, decoder_epochs=3),
    "films_199": lambda: films(199, decoder_epochs=6),
    "shapes": lambda: Case(
        "200 images of shapes", Shapes(160, 256, 11, 8), Shapes(40, 256, 12, 8), Shapes(100, 256, 13, 8), 0
    ),
}


def main() -> None:
    """Train, measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="*", choices=[*CASES, []], help="all of them by default")
    parser.add_argument("--runs", type=Path, default=REPOSITORY / "out" / "objects", help="folder of the runs")
    options = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in options.case or CASES:
        measured = measure(CASES[name](), options.runs / name, options.runs / "features")
        (RESULTS / f"{name}.json").write_text(json.dumps(measured, indent=2) + "\n")
        print(json.dumps(measured, indent=2))


def measure(case: Case, folder: Path, features: Path) -> dict[str, Any]:
    """Train what is missing in a folder, and measure it on the test set."""
    decoder = "mobile_sam"
    if case.decoder_epochs:
        settings = ["loop.validate_first=false", "loop.validate_every=none", "loop.save_every=none"]
        settings += [f"loop.epochs={case.decoder_epochs}", "task.max_val_images=8"]
        decoder = str(train("lungs", case, folder / "decoder", features, settings).last)
    file = train("object_detector", case, folder / "detector", features, model=decoder).best
    detector, model = segany.load_object_detector(file), segany.load(decoder)
    predictor = segany.ObjectPredictor(model, detector, calibrated=False)
    any_box = segany.ObjectPredictor(model, detector, ObjectConfig(min_detection_score=MIN_BOX_SCORE), calibrated=False)
    generator, boxes, same_images, automatic = segany.AutomaticMaskGenerator(model), Boxes(), Boxes(), Boxes()
    embedded: list[tuple[Embedding, Instances]] = []
    for index in range(len(case.test)):
        annotated = case.test.read(index)
        embedding, truth = predictor.predictor.embed(annotated.image), annotated.objects
        embedded.append((embedding, truth))
        proposals = any_box.find_boxes(embedding)
        boxes.add(*proposals, truth)
        if index < AUTOMATIC_IMAGES:
            same_images.add(*proposals, truth)
            masks = generator.generate(embedding)
            automatic.add(masks.mask_boxes_xyxy, masks.predicted_iou + masks.stability_score, truth)
    start = time.perf_counter()
    found = score_masks(predictor, embedded)
    seconds = time.perf_counter() - start
    val = (case.val.read(index) for index in range(len(case.val)))
    calibrated_on = score_masks(predictor, ((annotated.image, annotated.objects) for annotated in val))
    return {
        "case": case.title,
        "setting": asdict(Setting.current()),
        "test": {"images": len(embedded), "objects": found.objects},
        "training": training_times(folder / "detector"),
        "find_seconds": round(seconds / len(embedded), 3),
        "boxes": boxes.numbers(),
        f"boxes_first_{AUTOMATIC_IMAGES}": same_images.numbers(),
        f"automatic_first_{AUTOMATIC_IMAGES}": automatic.numbers(),
        "prefilled": [prefilled(calibrated_on, found, *target) for target in TARGETS],
    }


def prefilled(calibrated_on: ScoredMasks, found: ScoredMasks, min_iou: float, precision: float) -> dict[str, Any]:
    """Calibrate on the masks of the validation set, and measure the masks of the test set from the threshold on."""
    calibration = fit_calibration(calibrated_on, "", min_iou=min_iou, precision=precision)
    threshold, is_right = calibration.threshold, found.ious >= min_iou
    is_kept = calibration.confidence(*found.scores.T) >= (np.inf if threshold is None else threshold)
    return {
        "min_iou": min_iou,
        "wanted_precision": precision,
        "validation_objects": calibration.objects,
        "threshold": threshold,
        "precision": float(is_right[is_kept].mean()) if is_kept.any() else None,
        "share": float(is_right[is_kept].sum() / found.objects),
        "objects_with_a_right_mask": float(is_right.sum() / found.objects),
    }


@dataclass
class Boxes:
    """The boxes that were found on images, and how they match the objects."""

    scores: list[FloatArray] = field(default_factory=list)
    matched: list[BoolArray] = field(default_factory=list)
    counts: RecallCounts = field(default_factory=RecallCounts.none)

    def add(self, boxes_xyxy: FloatArray, scores: FloatArray, objects: Instances) -> None:
        """Add the boxes of an image in any order, [K, 4], and their scores [K]."""
        order = np.argsort(-scores, kind="stable")
        overlaps = pairwise_box_iou(boxes_xyxy[order], objects.boxes_xyxy)
        self.scores.append(scores[order])
        self.matched.append(matched_proposals(overlaps))
        self.counts += count_found(overlaps, objects.areas)

    def numbers(self) -> dict[str, float | None]:
        """AP and AR of all images so far."""
        ap = average_precision(self.scores, self.matched, int(self.counts.objects[0]))
        return {"ap": ap, "ar_10": self.counts.average_recall(10), "ar_100": self.counts.average_recall(100)}


def train(
    recipe: str, case: Case, out: Path, features: Path, settings: Sequence[str] = (), model: str | None = None
) -> RunFolder:
    """Train by a recipe on the data of a case, unless it was done before. Returns the folder of the run."""
    run = RunFolder(out)
    if not run.state.exists():
        of_case = replace(find_recipe(recipe), datasets=lambda *_: DataSplit(case.train, case.val))
        changed = of_case.changed([f"task.cache={features}", *settings])
        run_recipe(changed, RunOptions(out, model=model, device="cpu"))
    return run


def training_times(run: Path) -> dict[str, float]:
    """The seconds of all steps of a run, and those from its start to its end, with reading and validation."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (start,) = json.loads((run / "environment.json").read_text())
    ended = datetime.fromtimestamp((run / "last.safetensors").stat().st_mtime, timezone.utc)
    return {
        "threads": start["threads"],
        "seconds_of_steps": round(sum(line.get("seconds", 0.0) for line in lines), 1),
        "seconds_of_training": round((ended - datetime.fromisoformat(start["time"])).total_seconds(), 1),
    }


if __name__ == "__main__":
    main()
