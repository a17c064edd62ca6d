"""The prompt encoder and the mask decoder of any model learn your images; the image encoder stays as it is.

    segany train heads --data photos/ --out runs/heads

`--model` takes any model: sam_vit_b, a checkpoint, or with `--set items.resize=square` one of SAM 2. What the image
encoder says of an image is computed once and kept, 2 MB an image with SAM and MobileSAM; `--set task.cache=FOLDER`
keeps it where other runs find it too.

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
from segany.train.sam_task import SamTask
from segany.train.validation import ClickScores, ScoredRecipe


@dataclass(frozen=True)
class HeadsRecipe(ScoredRecipe):
    """SAM's training of the heads alone.

    Attributes:
        cache: folder for features of images, for any number of runs; none is `features` in the folder of the run.
    """

    cache: str | None = None


def build(recipe: TrainingRecipe, given: TrainContext) -> SamTask:
    """The features of an image are computed when it is met first."""
    given.check_fits(recipe.items)
    numbers: HeadsRecipe = recipe.task
    store = EmbeddingStore(Path(numbers.cache) if numbers.cache else given.folder / "features", given.model)
    validation = ClickScores(given.data.held_out, numbers.scored)
    return SamTask(given.model, numbers, features=store.features, validation=validation)


RECIPE = TrainingRecipe(
    title="Prompt encoder and mask decoder learn from features that are computed once",
    build=build,
    # Predictors ask for the single mask of a box, so that is what is trained. Comparing at the side of the
    # low-res logits takes a fraction of the time.
    task=HeadsRecipe(train="heads", iterations=4, repeats=1, box_multimask=False, loss_side=256),
    items=ItemConfig(max_masks=16),
    loop=LoopConfig(
        epochs=10,
        batch=4,
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
