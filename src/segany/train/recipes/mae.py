"""Masked autoencoding: pre-trains the ViT-B of SAM on images without masks.

    segany train mae --data photos/ --out runs/mae
    segany train sam --data photos/ --model runs/mae/best.safetensors --out runs/sam

The data can be any folder of images. The hyperparameters are those of MAE's authors: 800 epochs (they also report 1600)
with a batch size of 4096 at 224 px, a learning rate of 2.4e-3, which is 1.5e-4 for each 256 images of the batch, a
warm-up of 40 epochs of ImageNet, random resized crops of 0.2 to 1 of the area with aspect ratios of 3/4 to 4/3, and
horizontal flips. Change `loop.lr` in proportion to `loop.batch_size`. For a few thousand images:

    segany train mae --data photos/ --out runs/mae --set loop.batch_size=256 --set loop.lr=1.5e-4

Differences from their code: crops are resized bilinearly instead of bicubically, and there is no class token. SAM takes
images of 1024 px, for which the position embedding of training is resized. `--set items.side=1024` trains at that size,
with twenty times as many patches.

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
from segany.train.validation import MAX_VAL_IMAGES, val_items


@dataclass(frozen=True)
class MaeRecipe(MaeConfig):
    """Masked autoencoding with a validation.

    Attributes:
        max_val_images: number of images that a validation measures, evenly spaced in the validation set; none measures
            all.
    """

    max_val_images: int | None = MAX_VAL_IMAGES


def build(recipe: TrainingRecipe, given: TrainContext) -> MaeTask:
    """Build the task. Images may be smaller than the model's input, for which its position embedding is resized."""
    size, side = given.model.config.input_size, recipe.items.side
    check(side <= size, f"items.side {side} is larger than the side of the model's input, {size}.")
    items = val_items(given.data.val, recipe.items, recipe.task.max_val_images)
    return MaeTask(given.model, recipe.task, val_items=items, side=side)


RECIPE = TrainingRecipe(
    title="Pre-train ViT-B on images without masks, by masked autoencoding",
    build=build,
    task=MaeRecipe(),
    items=ItemConfig(side=224, crop_area=(0.2, 1.0), flip=0.5, needs_masks=False),
    loop=LoopConfig(
        epochs=800,
        batch_size=4096,
        micro_batch_size=32,
        lr=2.4e-3,
        betas=(0.9, 0.95),
        warmup_steps=12_500,
        lr_schedule="cosine",
    ),
    model=SAM_VIT_B,
)
