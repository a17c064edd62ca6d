r"""Trains all of SAM by the numbers of its paper: image encoder, prompt encoder and mask decoder.

As in the paper, from an encoder that masked autoencoding trained:

    segany train mae --data sa1b/ --out runs/mae
    segany train sam --data sa1b/ --model runs/mae/best.safetensors --out runs/sam

Or fine-tuning released weights, with a learning rate that keeps what they have learned:

    segany train sam --data photos/ --out runs/sam --set loop.lr=1e-5 --set loop.steps=2000 --set loop.batch_size=8 \
        --set loop.warmup_steps=100 --set loop.lr_schedule=cosine --set loop.validate_every=200

The numbers are those of ViT-B (SAM, section A: 180,000 steps of 128 images, learning rate 8e-4, layer decay and drop
path 0.6). For the others:

    ViT-L: --set loop.lr=4e-4 --set task.layer_decay=0.8 --set task.drop_path=0.4
    ViT-H: --set loop.steps=90000 --set loop.batch_size=256 --set loop.decay_steps=60000,86666 \
        --set task.layer_decay=0.8 --set task.drop_path=0.4

The paper gives the steps after which the learning rate falls for the 90,000 steps of ViT-H; those here are at the same
shares of 180,000. It does not say whether the predicted IoU of every candidate is trained; SAM 2's code says that
SAM trains that of the best alone, and so does this recipe.

Cost: the authors trained SAM with ViT-H, on 11 million images, for 68 hours on 256 A100 GPUs.
Score: not measured here; a whole training of ViT-B is beyond a desktop.
"""

from __future__ import annotations

from segany.data.transforms import ItemConfig
from segany.train.loop_config import LoopConfig
from segany.train.recipe import TrainContext, TrainingRecipe
from segany.train.sam_task import SamTask, build_sam_task
from segany.train.validation import ValidatedRecipe


def build(recipe: TrainingRecipe, given: TrainContext) -> SamTask:
    """Nothing is frozen but what training on images does not reach."""
    return build_sam_task(recipe, given)


RECIPE = TrainingRecipe(
    title="All of SAM is trained, as in its paper",
    build=build,
    task=ValidatedRecipe(layer_decay=0.6, drop_path=0.6),
    items=ItemConfig(),
    loop=LoopConfig(steps=180_000, batch_size=128, micro_batch_size=1, decay_steps=(120_000, 173_332)),
    model="sam_vit_b",
)
