"""Fine-tunes the prompt encoder and the mask decoder of any model; the image encoder stays as it is.

    segany train finetune_decoder --data photos/ --out runs/decoder

`--model` takes any model: sam_vit_b, a checkpoint, or with `--set items.resize=square` one of SAM 2. The features of an
image are computed once and kept, 2 MB an image with SAM and MobileSAM; `--set task.cache=FOLDER` keeps them where other
runs find them too.

Different from SAM's paper: 4 prompts an object instead of 11, of which one repeats, which costs a third. A box alone
asks for a single mask, as predictors do. Focal and dice loss compare masks at 256 x 256, the side of low-res logits,
which takes a fraction of the time. The predicted IoU of every candidate is trained, as in SAM 2's code, with SAM's
squared error: automatic masks are filtered by it, so that no candidate may be rated wrongly.

Cost: with MobileSAM, features take 0.38 s an image once, on two CPU cores, and then 2 ms to read. A step
of 4 images with one to three objects each takes 4.9 s on one core and 4.4 GB: 4 minutes for an epoch of 200 images.
Score: it depends on the images; `lungs` is this training on X-rays, measured.
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
    """SAM's training of the prompt encoder and the mask decoder alone.

    Attributes:
        cache: folder for features of images, for any number of runs; none is `features` in the folder of the run.
    """

    cache: str | None = None


def build(recipe: TrainingRecipe, given: TrainContext) -> SamTask:
    """The features of an image are computed when it is read first."""
    numbers: FinetuneDecoderRecipe = recipe.task
    store = EmbeddingStore(Path(numbers.cache) if numbers.cache else given.folder / "features", given.model)
    return build_sam_task(recipe, given, features=store.features)


RECIPE = TrainingRecipe(
    title="Prompt encoder and mask decoder are fine-tuned on features that are computed once",
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
