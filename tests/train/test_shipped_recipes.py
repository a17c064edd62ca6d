"""The recipes that come with segany, each for two steps with a tiny model on tiny data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.data_for_tests import save
from tests.train.test_sam_task import small_model

import segany
from segany.core.errors import ConfigError
from segany.core.prompt import Prompt
from segany.data.shapes import Shapes
from segany.models.model_file import save_model
from segany.runtime.torch_model import TorchModel
from segany.train.loop_report import TrainingResult
from segany.train.recipe import find_recipe
from segany.train.run_recipe import RunOptions, run_recipe

SIDE = 64
LOOP = [
    *("loop.steps=2", "loop.batch_size=2", "loop.validate_every=2", "loop.save_every=none"),
    *("loop.validate_first=false", "loop.warmup_steps=0", "loop.lr=1e-3"),
]
SAM = [*LOOP, "task.iterations=3", "task.repeats=1", "task.loss_side=32", "task.max_val_images=2", "items.side=128"]
MAE = [*LOOP, "task.decoder_depth=1", "task.decoder_width=16", "task.decoder_heads=2", "items.side=64"]
SETTINGS = {
    "sam": SAM,
    "finetune_decoder": SAM,
    "sam2": [*SAM[:-1], "items.side=128"],
    "adapters": [*SAM, "task.adapters.rank=2"],
    "mae": MAE,
    "distill": [*LOOP, "items.side=128", "task.max_val_images=2"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models, images with masks in `photos`, and images alone in `plain`."""
    root = tmp_path_factory.mktemp("recipes")
    save_model(small_model("vit"), root / "vit.safetensors")
    save_model(small_model("tiny_vit"), root / "tiny_vit.safetensors")
    save_model(small_model("sam2"), root / "sam2.safetensors")
    shapes = Shapes(5, side=SIDE)
    for index in range(len(shapes)):
        drawn = shapes.read(index)
        labels = np.zeros((SIDE, SIDE), dtype=np.uint8)
        for number in range(len(drawn.instances)):
            labels[drawn.instances.mask(number)] = number + 1
        save(root / "photos" / "images" / f"{drawn.name}.png", drawn.image)
        save(root / "photos" / "masks" / f"{drawn.name}.png", labels)
        save(root / "plain" / f"{drawn.name}.png", drawn.image)
    return root


def train(
    folder: Path, name: str, out: Path, model: Path | None = None, *more: str, limit: int | None = None
) -> TrainingResult:
    data = folder / ("plain" if name in {"mae", "distill"} else "photos")
    model = model or folder / ("tiny_vit.safetensors" if name == "distill" else "vit.safetensors")
    settings = [*SETTINGS[name], *more]
    if name == "distill":
        settings.append(f"task.teacher={folder / 'vit.safetensors'}")
    options = RunOptions(out, data, val_fraction=2, model=str(model), device="cpu", max_steps=limit)
    resumed = replace(options, resume=(out / "state.safetensors").exists())
    return run_recipe(find_recipe(name).changed(settings), resumed)


def predict(model: TorchModel) -> None:
    predictor = segany.ImagePredictor(model)
    prediction = predictor.predict(predictor.embed(Shapes(1, side=SIDE).read(0).image), Prompt([[20, 30]]))
    assert prediction.masks.shape[-2:] == (SIDE, SIDE)


def changed_parts(before: TorchModel, after: TorchModel) -> set[str]:
    old, new = before.module.state_dict(), after.module.state_dict()
    assert old.keys() == new.keys()
    return {name.partition(".")[0] for name in old if not torch.equal(old[name], new[name])}


@pytest.mark.parametrize(
    ("name", "score", "trained"),
    [
        ("sam", "miou_1", {"image_encoder", "prompt_encoder", "mask_decoder"}),
        ("finetune_decoder", "miou_1", {"prompt_encoder", "mask_decoder"}),
        ("adapters", "miou_1", {"image_encoder", "prompt_encoder", "mask_decoder"}),
        ("mae", "minus_reconstruction", {"image_encoder"}),
        ("sam2", "miou_1", {"image_encoder", "sam_prompt_encoder", "sam_mask_decoder", "no_mem_embed"}),
    ],
)
def test_recipes_train_what_they_say(folder: Path, tmp_path: Path, name: str, score: str, trained: set[str]) -> None:
    start = folder / ("sam2.safetensors" if name == "sam2" else "vit.safetensors")
    result = train(folder, name, tmp_path, start)
    assert (result.end, result.step) == ("finished", 2)
    assert next(iter(result.scores)) == score
    assert result.best == tmp_path / "best.safetensors"
    assert len(list(tmp_path.glob("samples/*.png"))) == 1
    model = segany.load(result.best)
    predict(model)
    assert changed_parts(segany.load(start), model) == trained
    if name != "mae":
        reported = {"val_loss", "predicted_iou_error", "above_pred_iou_thresh", "automatic_masks"}
        assert reported <= set(result.scores)
        assert all(np.isfinite(value) for value in result.scores.values())
    losses = [json.loads(line).get("loss") for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(loss) for loss in losses if loss is not None)


def test_numbers_of_the_papers() -> None:
    sam = find_recipe("sam")  # of ViT-B
    assert (sam.loop.steps, sam.loop.batch_size, sam.loop.lr, sam.loop.warmup_steps) == (180_000, 128, 8e-4, 250)
    assert (sam.task.layer_decay, sam.task.drop_path, sam.task.weight_decay) == (0.6, 0.6, 0.1)
    assert (sam.task.supervise_all_iou, sam.task.iou_use_l1_loss) == (False, False)
    sam2 = find_recipe("sam2")
    assert (sam2.loop.lr, sam2.loop.lr * sam2.task.encoder_lr_scale) == (5e-6, pytest.approx(3e-6))
    assert (sam2.task.layer_decay, sam2.task.drop_path, sam2.loop.clip_norm) == (0.9, 0.1, 0.1)
    assert (sam2.task.box_noise_kind, sam2.task.box_noise) == ("uniform", 0.1)
    assert (sam2.task.supervise_all_iou, sam2.task.iou_use_l1_loss) == (True, True)
    mae = find_recipe("mae")
    assert (mae.loop.epochs, mae.loop.batch_size, mae.loop.betas) == (800, 4096, (0.9, 0.95))
    assert mae.loop.lr == pytest.approx(1.5e-4 * 4096 / 256)
    assert (mae.items.crop_area, mae.items.jitter, mae.items.flip) == ((0.2, 1.0), None, 0.5)


def test_distillation_saves_a_student_with_the_decoder_of_its_teacher(folder: Path, tmp_path: Path) -> None:
    result = train(folder, "distill", tmp_path)
    assert list(result.scores) == [
        *("cosine", "squared_error", "val_loss"),
        *("automatic_masks", "automatic_masks_before"),
    ]
    model = segany.load(result.best)
    predict(model)
    assert changed_parts(segany.load(folder / "tiny_vit.safetensors"), model) >= {"image_encoder"}
    of_teacher = segany.load(folder / "vit.safetensors").module.heads()[1].state_dict()
    assert all(torch.equal(value, of_teacher[key]) for key, value in model.module.heads()[1].state_dict().items())
    assert len(list(tmp_path.glob("features/*/*/*.safetensors"))) >= 4
    train(folder, "distill", tmp_path / "none", None, "task.keep=false")
    assert not (tmp_path / "none" / "features").exists()


def test_features_are_kept_where_they_are_wanted(folder: Path, tmp_path: Path) -> None:
    train(folder, "finetune_decoder", tmp_path / "first")
    kept = list((tmp_path / "first" / "features").rglob("*.safetensors"))
    assert len(kept) == 5  # of the three images to train on, and of the others for the validation loss
    train(folder, "finetune_decoder", tmp_path / "second", None, f"task.cache={tmp_path / 'cache'}")
    assert not (tmp_path / "second" / "features").exists()
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 5


def test_masked_autoencoding_goes_from_nothing_into_sam(folder: Path, tmp_path: Path) -> None:
    config = segany.load(folder / "vit.safetensors").module.config
    recipe = replace(find_recipe("mae"), model=config).changed(MAE)
    result = run_recipe(recipe, RunOptions(tmp_path / "mae", folder / "plain", val_fraction=2, device="cpu"))
    encoder = segany.load(result.best).module.image_encoder.state_dict()
    assert not any(value.any() for name, value in encoder.items() if "rel_pos" in name)
    trained = train(folder, "sam", tmp_path / "sam", result.best, "loop.lr=1e-6")
    after = segany.load(trained.last).module.image_encoder.state_dict()
    assert max(float((after[name] - encoder[name]).abs().max()) for name in encoder) < 1e-4  # it began there


def test_a_run_with_adapters_goes_on(folder: Path, tmp_path: Path) -> None:
    whole = train(folder, "adapters", tmp_path / "whole")
    assert train(folder, "adapters", tmp_path / "parts", limit=1).end == "interrupted"
    parts = train(folder, "adapters", tmp_path / "parts")
    assert changed_parts(segany.load(whole.last), segany.load(parts.last)) == set()


def test_items_must_be_what_the_model_takes(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"takes: use --set items\.side=128\.$") as error:
        train(folder, "finetune_decoder", tmp_path / "run", None, "items.side=256")
    assert "resize" not in str(error.value)
    with pytest.raises(ConfigError, match=r"use --set items\.resize=square\.$"):
        train(folder, "finetune_decoder", tmp_path / "run", folder / "sam2.safetensors")
    with pytest.raises(ConfigError, match=r"items\.side 256 is larger"):
        train(folder, "mae", tmp_path / "run", None, "items.side=256")
    result = train(folder, "finetune_decoder", tmp_path / "run", folder / "sam2.safetensors", "items.resize=square")
    predict(segany.load(result.best))


def test_without_held_out_images_there_are_no_scores(folder: Path, tmp_path: Path) -> None:
    for name in ("finetune_decoder", "mae"):
        recipe = find_recipe(name).changed(SETTINGS[name])
        options = RunOptions(
            tmp_path / name, folder / "photos", val_fraction=0, model=str(folder / "vit.safetensors"), device="cpu"
        )
        result = run_recipe(recipe, options)
        assert (result.scores, result.best) == ({}, tmp_path / name / "last.safetensors")
