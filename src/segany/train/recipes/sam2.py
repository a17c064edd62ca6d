"""Fine-tunes all of SAM 2 on images: Hiera, prompt encoder and mask decoder. What only video uses stays as it is.

    segany train sam2 --data photos/ --out runs/sam2
    segany train sam2 --data photos/ --out runs/sam2 --model sam2.1_hiera_base_plus

The numbers are those of the fine-tuning that the authors published (sam2.1_hiera_b+_MOSE_finetune): learning rate 5e-6,
3e-6 for the image encoder, layer decay 0.9 without the tables of positions, drop path 0.1, gradients clipped at a norm
of 0.1, uniform noise of a tenth on boxes, and the absolute error of the predicted IoU of every candidate.

Different from it: images instead of clips of 8 frames, so that memory and object scores are not trained; 4 prompts an
object instead of 8, which costs half; every further point comes from the error region, not one in ten from the object;
the first prompt is a point or a box, never a mask; the tables of positions have no weight decay, as in SAM's training
here; the learning rate falls to zero and not to a tenth.

Cost and score: not measured here.
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
    title="All of SAM 2 that images use is fine-tuned, by the numbers of its authors",
    build=build,
    task=ValidatedRecipe(
        iterations=4,
        repeats=0,
        box_noise_kind="uniform",
        box_multimask=False,
        supervise_all_iou=True,
        iou_use_l1_loss=True,
        layer_decay=0.9,
        encoder_lr_scale=0.6,
        drop_path=0.1,
    ),
    items=ItemConfig(resize="square", max_masks=16, flip=0.5),
    loop=LoopConfig(
        epochs=40,
        batch_size=8,
        micro_batch_size=1,
        lr=5e-6,
        warmup_steps=0,
        lr_schedule="cosine",
        clip_norm=0.1,
        validate_first=True,
    ),
    model="sam2.1_hiera_tiny",
)
