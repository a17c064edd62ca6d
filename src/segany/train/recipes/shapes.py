"""Trains a tiny SAM from scratch on synthetic shapes: a complete training in a few minutes.

    segany train shapes --out runs/shapes

Cost: 10 minutes with one thread. Score: mean IoU of one click 0.84 on held-out images, of a box 0.83.
"""

from __future__ import annotations

from pathlib import Path

from segany.core.progress import ProgressCallback
from segany.data.shapes import Shapes
from segany.data.transforms import ItemConfig
from segany.models.mobile_sam.config import TinyVitConfig
from segany.models.sam.config import DecoderConfig, SamConfig
from segany.train.loop_config import LoopConfig
from segany.train.recipe import DataSplit, TrainContext, TrainingRecipe
from segany.train.sam_task import SamTask, build_sam_task
from segany.train.validation import ValidatedRecipe

SIDE = 128

TINY_SAM = SamConfig(
    TinyVitConfig(
        input_size=SIDE,
        widths=(16, 32, 64, 128),
        depths=(1, 1, 3, 1),
        heads=(1, 2, 4, 4),
        window_sizes=(7, 8, 8, 8),
        out_channels=128,
    ),
    DecoderConfig(heads=4, mlp_width=256, iou_head_width=128, cross_attention_width=64),
)
"""A model with 1.2 million parameters."""


def datasets(_: Path | None, __: ProgressCallback | None = None) -> DataSplit:
    """The two sets have different seeds, so that they have no image in common."""
    return DataSplit(Shapes(4000, SIDE, seed=0), Shapes(64, SIDE, seed=1))


def build(recipe: TrainingRecipe, given: TrainContext) -> SamTask:
    """Build the task, which trains all parameters."""
    return build_sam_task(recipe, given)


RECIPE = TrainingRecipe(
    title="Train a tiny SAM from scratch on synthetic shapes",
    build=build,
    # SAM's ratio of focal to dice loss, 20 to 1, makes an untrained model predict empty masks for many steps.
    task=ValidatedRecipe(
        iterations=2,
        repeats=0,
        focal_weight=5.0,
        dice_weight=5.0,
        loss_side=SIDE // 4,
        layer_decay=1.0,
        drop_path=0.0,
        supervise_all_iou=True,
        batch_statistics=True,
        max_val_images=None,
    ),
    items=ItemConfig(side=SIDE),
    loop=LoopConfig(
        steps=1800,
        batch_size=8,
        lr=2e-3,
        betas=(0.9, 0.98),
        warmup_steps=30,
        lr_schedule="cosine",
        clip_norm=1.0,
        validate_every=300,
        validate_first=True,
        save_every=600,
        workers=1,
    ),
    model=TINY_SAM,
    datasets=datasets,
)
