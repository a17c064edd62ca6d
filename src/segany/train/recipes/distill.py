"""Decoupled distillation: trains MobileSAM's TinyViT to predict the image embeddings of a larger SAM, without masks.

    segany train distill --data photos/ --out runs/distill
    segany train distill --data photos/ --out runs/distill --set task.teacher=sam_vit_b

The data can be any folder of images. The saved models are complete, with the teacher's prompt encoder and mask decoder.
The teacher's embeddings are computed once and stored on disk, 2 MB for each image. `--set task.cache=FOLDER` shares
them between runs. `--set task.keep=false` computes them in every step instead, which random crops and flips need.

Cost: the authors of MobileSAM took less than a day on one GPU, with 1% of SA-1B.
Score: not measured here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segany.data.transforms import ItemConfig
from segany.hub.load import load
from segany.models.mobile_sam.config import MOBILE_SAM
from segany.train.distill import DistillConfig, DistillTask
from segany.train.embeddings import EmbeddingStore
from segany.train.loop_config import LoopConfig
from segany.train.recipe import TrainContext, TrainingRecipe
from segany.train.validation import MAX_VAL_IMAGES, AutomaticScore, val_items


@dataclass(frozen=True)
class DistillRecipe(DistillConfig):
    """Distillation with a teacher and a validation.

    Attributes:
        teacher: name or path of the teacher.
        keep: whether the teacher's embeddings are stored on disk.
        cache: folder of the stored embeddings, which runs can share; none is `features` in the folder of the run.
        max_val_images: number of images that a validation measures, evenly spaced in the validation set; none measures
            all.
    """

    teacher: str = "sam_vit_h"
    keep: bool = True
    cache: str | None = None
    max_val_images: int | None = MAX_VAL_IMAGES

    def void_fields(self) -> Mapping[str, str]:
        """Fields that have no effect with the values of the others, each with the reason."""
        return {} if self.keep else {"cache": "keep is false"}


def build(recipe: TrainingRecipe, given: TrainContext) -> DistillTask:
    """Load the teacher. It stays in memory to embed images that are not in the store."""
    given.check_fits(recipe.items)
    numbers: DistillRecipe = recipe.task
    teacher = load(numbers.teacher, runtime="torch", device=given.device, progress=given.progress).module
    store = EmbeddingStore(Path(numbers.cache) if numbers.cache else given.folder / "features", teacher)
    return DistillTask(
        teacher,
        given.model,
        numbers,
        features=store.features if numbers.keep else None,
        val_items=val_items(given.data.val, recipe.items, numbers.max_val_images),
        automatic=AutomaticScore.of(teacher, given.data.val),
    )


RECIPE = TrainingRecipe(
    title="Distill the image encoder of a larger SAM into TinyViT",
    build=build,
    task=DistillRecipe(),
    items=ItemConfig(needs_masks=False),
    loop=LoopConfig(
        epochs=8,
        batch_size=8,
        lr=1e-3,
        warmup_steps=250,
        lr_schedule="cosine",
        clip_norm=1.0,
    ),
    model=MOBILE_SAM,
)
