"""Trains low-rank adapters on the image encoder, and all weights of the prompt encoder and the mask decoder.

    segany train adapters --data photos/ --out runs/adapters

The adapters are merged in `best.safetensors`, which has the names and the speed of a model without adapters.

Prompts and losses differ from SAM's paper as in `finetune_decoder`.

Cost and score: not measured for a whole training. Every step runs a forward and a backward pass of the image encoder.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from segany.data.transforms import ItemConfig
from segany.train.adapters import AdapterConfig, add_adapters
from segany.train.loop_config import LoopConfig
from segany.train.recipe import TrainContext, TrainingRecipe
from segany.train.sam_task import SamTask, build_sam_task
from segany.train.validation import ValidatedRecipe


@dataclass(frozen=True)
class AdaptersRecipe(ValidatedRecipe):
    """SAM's training of the prompt encoder, the mask decoder, and adapters on the image encoder.

    Attributes:
        adapters: configuration of the adapters.
    """

    adapters: AdapterConfig = field(default_factory=AdapterConfig)


def build(recipe: TrainingRecipe, given: TrainContext) -> SamTask:
    """Add the adapters, which freezes the encoder's own weights. They stay frozen although `train` is "all"."""
    add_adapters(given.model, recipe.task.adapters)
    return build_sam_task(recipe, given)


RECIPE = TrainingRecipe(
    title="Train low-rank adapters on the image encoder, and the prompt encoder and mask decoder",
    build=build,
    task=AdaptersRecipe(
        iterations=4,
        repeats=1,
        box_multimask=False,
        loss_side=256,
        supervise_all_iou=True,
        layer_decay=1.0,
        drop_path=0.0,
        weight_decay=0.01,
    ),
    items=ItemConfig(max_masks=16, flip=0.5),
    loop=LoopConfig(
        epochs=10,
        batch_size=4,
        micro_batch_size=1,
        lr=2e-4,
        warmup_steps=50,
        lr_schedule="cosine",
        clip_norm=1.0,
        validate_every=200,
        validate_first=True,
        save_every=200,
    ),
    model="mobile_sam",
)
