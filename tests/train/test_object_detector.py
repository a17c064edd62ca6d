"""Training of the object detector: on a few drawn shapes, with the features of a tiny encoder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.models_for_tests import small_sam
from tests.train.test_sam_task import small_model

import segany
from segany.cli.train_report import TrainReporter
from segany.core.errors import ConfigError, DataError
from segany.core.instances import Instances
from segany.data.item import AnnotatedImage, Dataset
from segany.data.shapes import Shapes
from segany.data.transforms import make_item
from segany.models.model_file import save_model
from segany.models.promptable import PromptableModel
from segany.train.embeddings import EmbeddingStore
from segany.train.loop_report import TrainingResult
from segany.train.object_detector_task import ObjectDetectorRecipe, ObjectDetectorTask
from segany.train.recipe import DataSplit, find_recipe
from segany.train.run_recipe import RunOptions, run_recipe

SIDE = 256
RECIPE = find_recipe("object_detector")
ITEMS = replace(RECIPE.items, side=SIDE)
SMALL = ObjectDetectorRecipe(width=32, depth=2, levels=3)


class Scenes:
    """Images of three squares, of which one lies in the middle of another one. Half of the images are narrow."""

    def __init__(self, count: int, seed: int = 0) -> None:
        self.count, self.seed = count, seed

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"scene-{self.seed}-{index}" for index in range(self.count))

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> AnnotatedImage:
        rng = np.random.default_rng([self.seed, index])
        image = rng.integers(90, 110, (SIDE, SIDE if index % 2 else 176, 3), dtype=np.uint8)
        masks = []
        x, y = rng.integers(4, 24, 2)
        for left, top, side, color in ((x, y, 150, 200), (x + 50, y + 50, 50, 20), (x, y + 165, 60, 250)):
            mask = np.zeros(image.shape[:2], dtype=np.bool_)
            mask[top : top + side, left : left + side] = True
            image[mask] = color
            masks.append(mask)
        return AnnotatedImage(self.names[index], image, Instances.from_masks(np.stack(masks)))


@pytest.fixture(scope="module")
def model() -> PromptableModel:
    return small_sam()


def task(model: PromptableModel, folder: Path, val: Dataset | None = None, **changes: object) -> ObjectDetectorTask:
    recipe = replace(SMALL, **changes)  # type: ignore[arg-type]
    return ObjectDetectorTask(EmbeddingStore(folder, model), recipe, val, ITEMS)


def test_it_learns_a_few_images_by_heart(model: PromptableModel, tmp_path: Path) -> None:
    """Nested squares too, and images with padding."""
    scenes = Scenes(8)
    trained = task(model, tmp_path, scenes)
    items = [item for index in range(8) if (item := make_item(scenes.read(index), ITEMS, index)) is not None]
    assert {len(item.boxes_xyxy) for item in items} == {3}
    optimizer = torch.optim.AdamW(trained.parameter_groups(), lr=5e-3)  # type: ignore[arg-type]
    before = trained.validate()
    assert list(before) == ["box_ap", "box_ar_10", "box_ar_100", "val_loss"]
    losses = []
    for _ in range(120):
        optimizer.zero_grad()
        total = torch.stack([loss.total for loss in trained.losses(items)]).mean()
        total.backward()
        optimizer.step()
        losses.append(float(total.detach()))
    after = trained.validate()
    assert np.mean(losses[-10:]) < 0.1 * losses[0]
    assert after["val_loss"] < 0.1 * before["val_loss"]
    assert before["box_ar_10"] < 0.1
    assert after["box_ar_10"] > 0.85
    assert after["box_ap"] > 0.85


def test_losses_do_not_depend_on_the_other_items(model: PromptableModel, tmp_path: Path) -> None:
    trained, scenes = task(model, tmp_path), Scenes(4)
    items = [item for index in range(4) if (item := make_item(scenes.read(index), ITEMS, index)) is not None]
    together = [loss.total.item() for loss in trained.losses(items)]
    alone = [trained.losses([item])[0].total.item() for item in items]
    assert together == pytest.approx(alone, rel=1e-5)
    parts = trained.losses(items[:1])[0].parts
    assert together[0] == pytest.approx(parts["heatmap"] + SMALL.box_weight * parts["box"], rel=1e-5)


def test_weights_come_from_the_seed(model: PromptableModel, tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, model)
    one, same, other = (ObjectDetectorTask(store, SMALL, seed=seed).module.state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_too_few_objects_to_calibrate_are_counted(model: PromptableModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^18 annotated objects are too few"):
        task(model, tmp_path, Scenes(6))
    with pytest.raises(DataError, match=r"^9 annotated objects are too few"):
        task(model, tmp_path, Scenes(10), max_val_images=3)
    assert task(model, tmp_path, Scenes(6), calibrate=False).saved_module().calibration is None
    assert task(model, tmp_path, None).validate() == {}


@pytest.mark.parametrize("wrong", [{"width": 7}, {"box_weight": -1.0}, {"precision": 0.0}, {"min_box_weight": 2.0}])
def test_config_is_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ObjectDetectorRecipe(**wrong)  # type: ignore[arg-type]


def train(
    root: Path, out: Path, *, limit: int | None = None, resume: bool = False, model: str = "vit"
) -> TrainingResult:
    path = root / f"{model}.safetensors"
    if not path.exists():
        save_model(small_model(model), path)
    settings = ["loop.epochs=2", "loop.batch_size=4", "loop.warmup_steps=0", "task.width=16", "task.depth=1"]
    settings += ["items.side=128", f"items.resize={'square' if model == 'sam2' else 'longest_side'}"]
    recipe = replace(RECIPE.changed(settings), datasets=lambda *_: DataSplit(Shapes(10, 64), Shapes(16, 64, seed=1)))
    return run_recipe(recipe, RunOptions(out, model=str(path), device="cpu", max_steps=limit, resume=resume))


@pytest.mark.parametrize("family", ["vit", "sam2"])
def test_recipe_saves_a_calibrated_detector(tmp_path: Path, family: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = train(tmp_path, tmp_path / "run", model=family)
    with TrainReporter(RECIPE) as reporter:
        reporter.summarize(result, is_stopped=False)
    assert f"segany.load_object_detector('{result.best}')" in capsys.readouterr().out
    assert (result.end, result.step, next(iter(result.scores))) == ("finished", 6, "box_ap")
    detector, model = segany.load_object_detector(result.best), segany.load(tmp_path / f"{family}.safetensors")
    assert (detector.model, detector.encoder_id) == (model.name, model.encoder_id)
    assert detector.calibration is not None
    assert detector.calibration.objects == sum(len(Shapes(16, 64, seed=1).read(index).objects) for index in range(16))
    assert detector.calibration.weights_id == model.weights_id
    assert segany.ObjectPredictor(model, detector).find(Shapes(1, 64).read(0).image).size_hw == (64, 64)


def test_a_run_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    whole = train(tmp_path, tmp_path / "whole")
    assert train(tmp_path, tmp_path / "parts", limit=4).end == "interrupted"
    parts = train(tmp_path, tmp_path / "parts", resume=True)
    one, other = (segany.load_object_detector(result.last) for result in (whole, parts))
    assert one.calibration == other.calibration
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    losses = [
        [
            line["loss"]
            for text in (path / "metrics.jsonl").read_text().splitlines()
            if "loss" in (line := json.loads(text))
        ]
        for path in (tmp_path / "whole", tmp_path / "parts")
    ]
    assert losses[0] == losses[1]
