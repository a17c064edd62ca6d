"""Low-rank adapters let an image encoder learn too, with a small share of its parameters; the heads learn as a whole.

    segany train adapters --data photos/ --out runs/adapters

`best.safetensors` has the adapters merged: a model of the usual names and speed.

Cost and score: not measured for a whole training. Each step runs the image encoder forward and backward.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from segany.data.transforms import ItemConfig
from segany.train.adapters import AdapterConfig, add_adapters
from segany.train.loop_config import LoopConfig
from segany.train.recipe import TrainContext, TrainingRecipe
from segany.train.sam_task import SamTask
from segany.train.validation import ClickScores, ScoredRecipe


@dataclass(frozen=True)
class AdaptersRecipe(ScoredRecipe):
    """SAM's training of the heads and of adapters on the image encoder.

    Attributes:
        adapters: what is adapted, and how.
    """

    adapters: AdapterConfig = field(default_factory=AdapterConfig)


def build(recipe: TrainingRecipe, given: TrainContext) -> SamTask:
    """The encoder's own weights are frozen, and what is frozen stays that way in "all"."""
    given.check_fits(recipe.items)
    numbers: AdaptersRecipe = recipe.task
    model = add_adapters(given.model, numbers.adapters)
    return SamTask(model, numbers, validation=ClickScores(given.data.held_out, numbers.scored))


RECIPE = TrainingRecipe(
    title="Low-rank adapters on the image encoder, and all of the heads",
    build=build,
    task=AdaptersRecipe(
        iterations=4, repeats=1, box_multimask=False, loss_side=256, layer_decay=1.0, drop_path=0.0, weight_decay=0.01
    ),
    items=ItemConfig(max_masks=16, flip=0.5),
    loop=LoopConfig(
        epochs=10,
        batch=4,
        micro_batch=1,
        lr=2e-4,
        warmup_steps=50,
        decay="cosine",
        clip_norm=1.0,
        validate_every=200,
        validate_first=True,
        save_every=200,
    ),
    model="mobile_sam",
)
