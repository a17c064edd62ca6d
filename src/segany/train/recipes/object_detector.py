"""Trains a detector of one class, "object", on the image embeddings of any model.

    segany train object_detector --data photos/ --out runs/detector
    segany train object_detector --data photos/ --model runs/decoder/best.safetensors --out runs/detector

The boxes of the detector prompt the mask decoder (`segany.ObjectPredictor`), which pre-fills masks as in the
semi-automatic stage of SAM's data engine. The image encoder runs once for each image; its features are stored on disk,
2 MB for each image with SAM and MobileSAM, and shared with `finetune_decoder` by `--set task.cache=FOLDER`. A SAM 2
model needs `--set items.resize=square`.

`best.safetensors` is the detector (`segany.load_object_detector`), with a calibrated confidence: on the validation set,
the masks of the model's decoder tell which confidence has a precision of 95% at IoU 0.90. Give the decoder that will be
used (`--model`), and validate on images that neither training has seen.

There is no augmentation, because the features are those of unchanged images.

Cost: with MobileSAM on two CPU cores, the features of an image take 0.38 s once. On one core beside other work, an
image and epoch takes 0.1 s: 4 minutes for 80 chest films, validation and calibration included.
Score: on 100 held-out chest films, box AP 0.74 from 80 films and 0.78 from 159, with the films of `lungs`.
"""

from __future__ import annotations

from pathlib import Path

from segany.data.transforms import ItemConfig
from segany.train.embeddings import EmbeddingStore
from segany.train.loop_config import LoopConfig
from segany.train.object_detector_task import ObjectDetectorRecipe, ObjectDetectorTask
from segany.train.recipe import TrainContext, TrainingRecipe


def build(recipe: TrainingRecipe, given: TrainContext) -> ObjectDetectorTask:
    """Build the task with a store that computes the features of an image when it is first used."""
    given.check_fits(recipe.items)
    numbers: ObjectDetectorRecipe = recipe.task
    store = EmbeddingStore(Path(numbers.cache) if numbers.cache else given.folder / "features", given.model)
    return ObjectDetectorTask(store, numbers, given.data.val, recipe.items, seed=recipe.loop.seed)


RECIPE = TrainingRecipe(
    title="Train an object detector on stored image features",
    build=build,
    task=ObjectDetectorRecipe(),
    items=ItemConfig(max_masks=1000, max_mask_fraction=1.0, boxes_only=True),
    loop=LoopConfig(
        epochs=20,
        batch_size=8,
        lr=2e-3,
        warmup_steps=50,
        lr_schedule="cosine",
        clip_norm=1.0,
        validate_every=None,
        save_every=200,
    ),
    model="mobile_sam",
)
