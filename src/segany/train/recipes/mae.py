"""Masked autoencoding: the ViT-B of SAM learns from images alone, without masks, before it learns to segment.

    segany train mae --data photos/ --out runs/mae
    segany train sam --data sa1b/ --model runs/mae/best.safetensors --out runs/sam

Any folder of images will do. Crops of a fifth of an image or more are learned from, at 224 px as in the paper;
`--set items.side=1024` learns at the size that SAM has, of twenty times as many patches. `loop.lr` is that of the
paper for a batch of 256: where the batch is another, change it in proportion.

Cost: at 1024 px, an image takes 15 s on two CPU cores; at 224 px, not measured.
Score: not measured here; the paper trains for hundreds of epochs of ImageNet.
"""

from __future__ import annotations

from dataclasses import dataclass

from segany.core.errors import check
from segany.data.transforms import ItemConfig
from segany.models.sam.config import SAM_VIT_B
from segany.train.loop_config import LoopConfig
from segany.train.mae import MaeConfig
from segany.train.mae_task import MaeTask
from segany.train.recipe import TrainContext, TrainingRecipe
from segany.train.validation import SCORED, held_out_items


@dataclass(frozen=True)
class MaeRecipe(MaeConfig):
    """Masked autoencoding, and how far it is measured.

    Attributes:
        scored: held-out images that a validation measures, spread evenly over all; none measures all.
    """

    scored: int | None = SCORED


def build(recipe: TrainingRecipe, given: TrainContext) -> MaeTask:
    """Images may be smaller than the model's input: positions are counted from the top left."""
    size, side = given.model.config.input_size, recipe.items.side
    check(side <= size, f"items.side {side} is more than the side of the model's input, {size}.")
    held_out = held_out_items(given.data.held_out, recipe.items, recipe.task.scored)
    return MaeTask(given.model, recipe.task, held_out=held_out)


RECIPE = TrainingRecipe(
    title="ViT-B learns from images alone, by masked autoencoding",
    build=build,
    task=MaeRecipe(),
    items=ItemConfig(side=224, jitter=(1.0, 2.24), flip=0.5, needs_masks=False),
    loop=LoopConfig(
        steps=200_000,
        batch=256,
        micro_batch=32,
        lr=1.5e-4,
        betas=(0.9, 0.95),
        warmup_steps=10_000,
        decay="cosine",
        decay_steps=(),
    ),
    model=SAM_VIT_B,
)
