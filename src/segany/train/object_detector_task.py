"""Training of the object detector on stored image embeddings, as a `Task`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from segany.core.arrays import SizeHW
from segany.core.embedding import Embedding
from segany.core.errors import check, check_numbers
from segany.core.instances import Instances
from segany.data.item import Dataset, TrainingItem
from segany.data.transforms import ItemConfig, make_item
from segany.evaluate.average_precision import average_precision, matched_proposals
from segany.evaluate.calibration import calibrate, check_enough
from segany.evaluate.recall import RecallCounts, count_found, pairwise_box_iou
from segany.models.object_detector import ObjectDetector, ObjectDetectorConfig, unpadded
from segany.predict.objects import ObjectConfig, ObjectPredictor
from segany.runtime.torch_model import TorchModel
from segany.train.detection_losses import DetectionLosses, detection_losses
from segany.train.embeddings import EmbeddingStore
from segany.train.parameters import decay_groups
from segany.train.task import ItemLoss
from segany.train.validation import MAX_VAL_IMAGES, readable, spread

MIN_VAL_SCORE = 0.01
"""Boxes with a lower score do not count for average precision and recall."""


@dataclass(frozen=True)
class ObjectDetectorRecipe:
    """Architecture, losses and validation of the object detector.

    Attributes:
        width: channels of the head, a multiple of 8.
        depth: number of convolutions of the tower, which all levels share.
        levels: number of levels.
        box_weight: weight of the GIoU loss of boxes, beside the focal loss of the heatmap.
        min_box_weight: positions predict the box of an object where its Gaussian in the heatmap has at least this
            value, in 0..1, which is also their weight in the box loss.
        weight_decay: weight decay of AdamW, for the weights of convolutions.
        calibrate: whether the confidence of masks is calibrated on the validation set, which needs 20 objects at least.
            The model's mask decoder must not have been trained on these images.
        precision: share of right masks from the threshold of the calibration on, in 0..1.
        min_iou: IoU with its object from which on a mask is right, in 0..1.
        cache: folder of the stored image features, which runs can share; none is `features` in the folder of the run.
        max_val_images: number of images that a validation measures, evenly spaced in the validation set; none measures
            all.
    """

    width: int = 64
    depth: int = 3
    levels: int = 4
    box_weight: float = 5.0
    min_box_weight: float = 0.1
    weight_decay: float = 0.1
    calibrate: bool = True
    precision: float = 0.95
    min_iou: float = 0.9
    cache: str | None = None
    max_val_images: int | None = MAX_VAL_IMAGES

    def __post_init__(self) -> None:
        check_numbers(self)
        for name in ("box_weight", "weight_decay"):
            check(getattr(self, name) >= 0, f"{name} must not be negative, got {getattr(self, name)}.")
        for name in ("min_box_weight", "precision", "min_iou"):
            check(0 < getattr(self, name) <= 1, f"{name} must lie above 0 and up to 1, got {getattr(self, name)}.")
        _ = self.config(1)

    def config(self, in_channels: int) -> ObjectDetectorConfig:
        """The config of a detector on embeddings with `in_channels` channels."""
        return ObjectDetectorConfig(in_channels, self.width, self.depth, self.levels)

    def void_fields(self) -> dict[str, str]:
        """Fields that have no effect with the values of the others, each with the reason."""
        return {} if self.calibrate else dict.fromkeys(("precision", "min_iou"), "calibrate is false")


@dataclass(frozen=True, eq=False)
class _ValImage:
    """An image of the validation set: its item, and its size and its objects before resizing."""

    item: TrainingItem
    size_hw: SizeHW
    objects: Instances


class ObjectDetectorTask:
    """Trains an object detector; a `Task`. The model with the image encoder and the mask decoder does not change.

    Attributes:
        module: the detector.
    """

    module: ObjectDetector

    def __init__(
        self,
        store: EmbeddingStore,
        recipe: ObjectDetectorRecipe,
        val: Dataset | None = None,
        items: ItemConfig | None = None,
        *,
        seed: int = 0,
    ) -> None:
        """Build the detector, and read the validation set.

        Args:
            store: the features of images, with the model that computes them.
            recipe: the hyperparameters.
            val: the validation set; None for no scores and no calibration.
            items: config of the training items, for those of the validation set.
            seed: random seed of the weights.

        Raises:
            DataError: the validation set has too few objects to calibrate on.
        """
        model = store.model
        self.recipe, self._store, self._model = recipe, store, TorchModel(model)
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            config = recipe.config(model.config.encoder.out_channels)
            self.module = ObjectDetector(config, model=model.name, encoder_id=model.encoder_id).to(model.device)
        self._val = [] if val is None else _val_images(spread(val, recipe.max_val_images), items or ItemConfig())
        if self._val and recipe.calibrate:
            check_enough(sum(len(one.objects) for one in self._val))

    def losses(self, items: Sequence[TrainingItem]) -> list[ItemLoss]:
        """Run the items whose embeddings have the same size without padding in one batch."""
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        embeddings = [self._features(item) for item in items]
        for index, embedding in enumerate(embeddings):
            groups[tuple(embedding.shape)].append(index)
        losses: dict[int, DetectionLosses] = {}
        for indices in groups.values():
            levels = self.module(torch.stack([embeddings[index] for index in indices]))
            boxes = [torch.from_numpy(items[index].boxes_xyxy).to(self.module.device) for index in indices]
            some = detection_losses(levels, boxes, self.module.config.strides, self.recipe.min_box_weight)
            losses |= zip(indices, some, strict=True)
        return [self._item_loss(losses[index]) for index in range(len(items))]

    def parameter_groups(self) -> list[dict[str, object]]:
        return decay_groups(self.module.parameters(), self.recipe.weight_decay)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """AP and AR of the boxes as in COCO's evaluation, then `val_loss`. Empty without a validation set."""
        if not self._val:
            return {}
        self.module.eval()
        predictor = ObjectPredictor(
            self._model, self.module, ObjectConfig(min_detection_score=MIN_VAL_SCORE), calibrated=False
        )
        scores, matched, recall, losses = [], [], RecallCounts.none(), []
        for one in self._val:
            found, found_scores = predictor.find_boxes(self._as_embedding(one))
            overlaps = pairwise_box_iou(found, one.objects.boxes_xyxy)
            scores.append(found_scores)
            matched.append(matched_proposals(overlaps))
            recall += count_found(overlaps, one.objects.areas)
            losses.append(float(self.losses([one.item])[0].total))
        return {
            "box_ap": average_precision(scores, matched, int(recall.objects[0])) or 0.0,
            "box_ar_10": recall.average_recall(10) or 0.0,
            "box_ar_100": recall.average_recall(100) or 0.0,
            "val_loss": sum(losses) / len(losses),
        }

    @torch.no_grad()
    def saved_module(self) -> ObjectDetector:
        """The detector, calibrated for its current weights if there is a validation set."""
        if self._val and self.recipe.calibrate:
            self.module.eval()
            self.module.calibration = calibrate(
                ObjectPredictor(self._model, self.module, calibrated=False),
                ((self._as_embedding(one), one.objects) for one in self._val),
                precision=self.recipe.precision,
                min_iou=self.recipe.min_iou,
            )
        return self.module

    def _item_loss(self, losses: DetectionLosses) -> ItemLoss:
        total = losses.heatmap + self.recipe.box_weight * losses.box
        parts = torch.stack([losses.heatmap, losses.box]).tolist()
        return ItemLoss(total, dict(zip(("heatmap", "box"), parts, strict=True)))

    def _features(self, item: TrainingItem) -> Tensor:
        """The image embedding of an item without its padding, [C, h, w]."""
        height, width = item.image.shape[:2]
        return unpadded(self._store.features(item)[0], (height, width))

    def _as_embedding(self, one: _ValImage) -> Embedding:
        """The embedding of an image whose features are stored."""
        model = self._store.model
        features = tuple(feature.cpu().numpy() for feature in self._store.features(one.item))
        return Embedding(features, one.size_hw, model.preprocessing, model.name, model.encoder_id, content_id="")


def _val_images(val: Dataset, config: ItemConfig) -> list[_ValImage]:
    plain = replace(config, jitter=None, crop_area=None, flip=0.0)
    images = []
    for seed, annotated in enumerate(readable(val)):
        item, objects = make_item(annotated, plain, seed), annotated.objects
        if item is not None:
            height, width = annotated.image.shape[:2]
            images.append(_ValImage(item, (height, width), objects[objects.areas > 0]))
    return images
