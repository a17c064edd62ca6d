"""Training runs of recipes from the start, and their results in numbers and images.

    python -m benchmarks.training            # lungs, then shapes
    python -m benchmarks.training shapes --runs runs/

A recipe whose run exists is not trained again; its results are written again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

import segany
from benchmarks.setting import REPOSITORY, Setting
from segany.evaluate.metrics import mask_iou
from segany.train.recipe import find_recipe

RECIPES = ("lungs", "shapes")
RESULTS = REPOSITORY / "benchmarks" / "results" / "training"
TITLES = {
    "miou_1": "mean IoU of one click",
    "oracle_miou_1": "mean IoU of one click, best of three",
    "box_miou": "mean IoU of a box",
    "predicted_iou_error": "mean absolute error of the predicted IoU",
    "above_pred_iou_thresh": "share of predictions above the predicted IoU threshold",
    "stability_score_p10": "10th percentile of the stability scores of good masks",
    "stability_score_thresh": "stability score threshold of the model",
    "automatic_masks": "automatic masks on one image, 16 x 16 points",
    "automatic_masks_before": "the same of the untouched model",
    "val_loss": "validation loss",
}
AUTOMATIC_IMAGES = 10
"""Held-out images on which `segany auto` is compared."""


def main() -> None:
    """Train, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="*", choices=[*RECIPES, []], help="all of them by default")
    parser.add_argument("--runs", type=Path, default=REPOSITORY / "out" / "runs", help="folder of the runs")
    options = parser.parse_args()
    for recipe in options.recipe or RECIPES:
        run = options.runs / recipe
        if not (run / "metrics.jsonl").exists():
            command = Path(sys.executable).with_name("segany")
            subprocess.run([command, "train", recipe, "--out", run], check=True)
        print(write_results(recipe, run))


def write_results(recipe: str, run: Path) -> Path:
    """Write a page with the scores of a run, its curves, and samples from its first and last validation."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    validations = [line for line in lines if "validation" in line]
    RESULTS.mkdir(parents=True, exist_ok=True)
    pictures = sorted((run / "samples").glob("*.png"), key=lambda path: (len(path.name), path.name))
    named = {"curves": run / "curves.png", "first": pictures[0], "last": pictures[-1]}
    for name, path in named.items():
        shutil.copy(path, RESULTS / f"{recipe}_{name}.png")
    page = RESULTS / f"{recipe}.md"
    page.write_text(
        "\n".join(
            [*_scores(recipe, run, steps, validations), *_automatic(recipe, run), *_pictures(recipe, validations)]
        )
    )
    return page


def _scores(recipe: str, run: Path, steps: list[dict[str, Any]], validations: list[dict[str, Any]]) -> list[str]:
    setting = Setting.current()
    start = json.loads((run / "environment.json").read_text())[0]
    ended = datetime.fromtimestamp((run / "last.safetensors").stat().st_mtime, timezone.utc)
    whole = (ended - datetime.fromisoformat(start["time"])).total_seconds() / 60
    best = max(validations, key=lambda line: next(iter(line["validation"].values())))
    taken = f"{sum(step['seconds'] for step in steps) / 60:.1f} minutes in {len(steps)} steps"
    columns = list({line["step"]: line for line in (validations[0], best, validations[-1])}.values())
    return [
        f"# segany train {recipe}",
        "",
        f"Made by `python -m benchmarks.training {recipe}`: {setting.cpu}, {setting.cores} cores, {start['time']}, "
        f"commit {setting.commit}, {start['threads']} threads. Training took {taken}, {whole:.1f} minutes with reading "
        "and validation.",
        "",
        "Scores on held-out images, at the first validation, at the best by one click, and at the last:",
        "",
        "| | " + " | ".join(f"step {line['step']}" for line in columns) + " |",
        "|---" * (1 + len(columns)) + "|",
        *(
            f"| {TITLES.get(name, name)} | "
            + " | ".join(_shown(line["validation"].get(name)) for line in columns)
            + " |"
            for name in best["validation"]
        ),
        "",
    ]


def _shown(value: float | None) -> str:
    if value is None:
        return "none"  # such as the stability score of good masks where there are none
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _automatic(recipe: str, run: Path) -> list[str]:
    """Make a row for `segany auto`: automatic masks on held-out images, of the untouched and the trained model."""
    trained = find_recipe(recipe)
    if not isinstance(trained.model, str) or trained.datasets is None:
        return []  # there is no model to compare with
    val = trained.datasets(None).val
    assert val is not None
    names = {f"{trained.model}, untouched": trained.model, "after training": str(run / "best.safetensors")}
    rows = []
    for title, name in names.items():
        model = segany.load(name)
        generator = segany.AutomaticMaskGenerator(model)
        counts, best_ious = [], []
        for index in range(AUTOMATIC_IMAGES):
            annotated = val.read(index)
            masks = generator.generate(annotated.image).masks()
            counts.append(len(masks))
            best_ious += [
                max((mask_iou(mask, target) for mask in masks), default=0.0) for target in annotated.objects.masks()
            ]
        rows.append(
            f"| {title} | {model.stability_score_thresh} | {', '.join(map(str, counts))} | {np.mean(best_ious):.3f} |"
        )
    return [
        f"`segany auto` with its defaults on the first {AUTOMATIC_IMAGES} held-out images. The last column is the mean "
        "IoU of the annotated objects with the automatic mask that fits best:",
        "",
        "| model | stability score threshold | automatic masks | best IoU |",
        "|---|---|---|---|",
        *rows,
        "",
    ]


def _pictures(recipe: str, validations: list[dict[str, Any]]) -> list[str]:
    return [
        f"![Loss and scores]({recipe}_curves.png)",
        "",
        f"Held-out images after one click at step {validations[0]['step']}:",
        "",
        f"![Held-out images at first]({recipe}_first.png)",
        "",
        f"and at step {validations[-1]['step']}:",
        "",
        f"![Held-out images at last]({recipe}_last.png)",
        "",
    ]


if __name__ == "__main__":
    main()
