"""Fine-tunes Hiera, the prompt encoder and the mask decoder of SAM 2 on images. The memory modules are frozen.

    segany train sam2 --data photos/ --out runs/sam2
    segany train sam2 --data photos/ --out runs/sam2 --model sam2.1_hiera_base_plus

The hyperparameters are those of the authors' published fine-tuning (sam2.1_hiera_b+_MOSE_finetune): learning rate 5e-6,
3e-6 for the image encoder, layer-wise learning rate decay 0.9 except for the position embeddings, drop path 0.1,
gradient clipping at a norm of 0.1, uniform noise of a tenth on boxes, and the absolute error of the predicted IoU of
every candidate.

Differences from it: training uses images instead of clips of 8 frames, so that memory and object scores are not
trained; an object has 4 prompt iterations instead of 8, which takes half the time; all further points come from the
error region, instead of one in ten from the object; the first prompt is a point or a box, never a mask; position
embeddings have no weight decay, as in the recipe `sam`; the learning rate decays to zero instead of a tenth.

Cost and score: not measured here.
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
    title="Fine-tune SAM 2 on images, with the hyperparameters of its authors",
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
