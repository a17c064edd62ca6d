r"""Trains the image encoder, prompt encoder and mask decoder of SAM with the hyperparameters of its paper.

As in the paper, training starts from an encoder that is pre-trained by masked autoencoding:

    segany train mae --data sa1b/ --out runs/mae
    segany train sam --data sa1b/ --model runs/mae/best.safetensors --out runs/sam

The same recipe fine-tunes released weights, with a lower learning rate:

    segany train sam --data photos/ --out runs/sam --set loop.lr=1e-5 --set loop.steps=2000 --set loop.batch_size=8 \
        --set loop.warmup_steps=100 --set loop.lr_schedule=cosine --set loop.validate_every=200

The hyperparameters are those of ViT-B (SAM, section A: 180,000 steps with a batch size of 128, learning rate 8e-4,
layer-wise learning rate decay 0.6 and drop path 0.6). For the other encoders:

    ViT-L: --set loop.lr=4e-4 --set task.layer_decay=0.8 --set task.drop_path=0.4
    ViT-H: --set loop.steps=90000 --set loop.batch_size=256 --set loop.decay_steps=60000,86666 \
        --set task.layer_decay=0.8 --set task.drop_path=0.4

The paper gives the decay steps of the learning rate schedule for the 90,000 steps of ViT-H. Those here are at the same
shares of 180,000 steps. The paper does not say whether the predicted IoU of every candidate is trained. According to
SAM 2's code, SAM trains only that of the best candidate, and so does this recipe.

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
    """Build the task. Only parameters that training on images does not use are frozen."""
    return build_sam_task(recipe, given)


RECIPE = TrainingRecipe(
    title="Train all of SAM, as in its paper",
    build=build,
    task=ValidatedRecipe(layer_decay=0.6, drop_path=0.6),
    items=ItemConfig(),
    loop=LoopConfig(steps=180_000, batch_size=128, micro_batch_size=1, decay_steps=(120_000, 173_332)),
    model="sam_vit_b",
)
