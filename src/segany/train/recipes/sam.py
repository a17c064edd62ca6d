r"""Everything of SAM is trained, by the numbers of its paper: image encoder, prompt encoder and mask decoder.

As in the paper, from an encoder that masked autoencoding trained:

    segany train mae --data sa1b/ --out runs/mae
    segany train sam --data sa1b/ --model runs/mae/best.safetensors --out runs/sam

Or going on from released weights, with a learning rate that keeps what they have learned:

    segany train sam --data photos/ --out runs/sam --set loop.lr=1e-5 --set loop.steps=2000 --set loop.batch=8 \
        --set loop.warmup_steps=100 --set loop.decay=cosine --set loop.validate_every=200

Cost: the authors trained SAM with ViT-H, on 11 million images, for 68 hours on 256 A100 GPUs.
Score: not measured here; a whole training of ViT-B is beyond a desktop.
"""

from __future__ import annotations

from segany.data.transforms import ItemConfig
from segany.train.loop_config import LoopConfig
from segany.train.recipe import TrainContext, TrainingRecipe
from segany.train.sam_task import SamTask
from segany.train.validation import ClickScores, ScoredRecipe


def build(recipe: TrainingRecipe, given: TrainContext) -> SamTask:
    """Nothing is frozen but what training on images does not reach."""
    given.check_fits(recipe.items)
    return SamTask(given.model, recipe.task, validation=ClickScores(given.data.held_out, recipe.task.scored))


RECIPE = TrainingRecipe(
    title="Everything of SAM is trained, as in its paper",
    build=build,
    task=ScoredRecipe(layer_decay=0.6, drop_path=0.6),  # of ViT-B
    items=ItemConfig(),
    loop=LoopConfig(micro_batch=1),
    model="sam_vit_b",
)
