"""Proofs that training works: recipes run from nothing, and what came of them, in numbers and pictures.

    python -m benchmarks.training            # lungs and shapes, one after the other
    python -m benchmarks.training shapes --runs runs/

A recipe whose run is there already is not run again: its results are written anew.
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

from benchmarks.setting import REPOSITORY, Setting

RECIPES = ("lungs", "shapes")
RESULTS = REPOSITORY / "benchmarks" / "results" / "training"
TITLES = {"miou_1": "one click", "oracle_miou_1": "one click, best of three", "box_miou": "a box"}


def main() -> None:
    """Train, then write."""
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
    """A page with the scores of a run, its curves, and pictures from its beginning and its end."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    validations = [line for line in lines if "validation" in line]
    RESULTS.mkdir(parents=True, exist_ok=True)
    pictures = sorted((run / "samples").glob("*.png"), key=lambda path: (len(path.name), path.name))
    named = {"curves": run / "curves.png", "first": pictures[0], "last": pictures[-1]}
    for name, path in named.items():
        shutil.copy(path, RESULTS / f"{recipe}_{name}.png")
    page = RESULTS / f"{recipe}.md"
    page.write_text("\n".join([*_scores(recipe, run, steps, validations), *_pictures(recipe, validations)]))
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
        f"commit {setting.commit}. Training took {taken}, {whole:.1f} minutes with reading and validation.",
        "",
        "Mean IoU on held-out images, at the first validation, at the best by one click, and at the last:",
        "",
        "| | " + " | ".join(f"step {line['step']}" for line in columns) + " |",
        "|---" * (1 + len(columns)) + "|",
        *(
            f"| {TITLES.get(name, name)} | " + " | ".join(f"{line['validation'][name]:.3f}" for line in columns) + " |"
            for name in best["validation"]
        ),
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
