"""Fine-tunes the prompt encoder and the mask decoder of any model, with a frozen image encoder.

    segany train finetune_decoder --data photos/ --out runs/decoder

`--model` takes any model: sam_vit_b, a checkpoint, or, with `--set items.resize=square`, a SAM 2 model. The features of
an image are computed once and stored on disk, 2 MB for each image with SAM and MobileSAM. `--set task.cache=FOLDER`
shares them between runs.

Differences from SAM's paper: an object has 4 prompt iterations instead of 11, of which one repeats, which takes a third
of the time. A single box predicts one mask, as in the predictors. Focal and dice loss are computed at 256 x 256, the
size of low-res logits, which takes a fraction of the time. The predicted IoU of every candidate is trained, as in SAM
2's code, with SAM's squared error, because automatic mask generation filters all candidates by it.

Cost: with MobileSAM on two CPU cores, the features of an image take 0.38 s once, and then 2 ms to read. A step of 4
images with one to three objects each takes 4.9 s on one core, and 4.4 GB: 4 minutes for an epoch of 200 images.
Score: it depends on the images. `lungs` measures this training on X-rays.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segany.data.transforms import ItemConfig
from segany.train.embeddings import EmbeddingStore
from segany.train.loop_config import LoopConfig
from segany.train.recipe import TrainContext, TrainingRecipe
from segany.train.sam_task import SamTask, build_sam_task
from segany.train.validation import ValidatedRecipe


@dataclass(frozen=True)
class FinetuneDecoderRecipe(ValidatedRecipe):
    """SAM's training of the prompt encoder and the mask decoder only.

    Attributes:
        cache: folder of the stored image features, which runs can share; none is `features` in the folder of the run.
    """

    cache: str | None = None


def build(recipe: TrainingRecipe, given: TrainContext) -> SamTask:
    """Build the task with a store that computes the features of an image when it is first used."""
    numbers: FinetuneDecoderRecipe = recipe.task
    store = EmbeddingStore(Path(numbers.cache) if numbers.cache else given.folder / "features", given.model)
    return build_sam_task(recipe, given, features=store.features)


RECIPE = TrainingRecipe(
    title="Fine-tune the prompt encoder and mask decoder on cached image features",
    build=build,
    task=FinetuneDecoderRecipe(
        train="decoder", iterations=4, repeats=1, box_multimask=False, loss_side=256, supervise_all_iou=True
    ),
    items=ItemConfig(max_masks=16),
    loop=LoopConfig(
        epochs=10,
        batch_size=4,
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
