"""The object predictor: the boxes of an object detector prompt the mask decoder, one mask for each object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from segany.core.arrays import FloatArray
from segany.core.boxes import box_areas, nms
from segany.core.embedding import Embedding
from segany.core.errors import ConfigError, check, check_numbers
from segany.core.instances import Instances
from segany.core.prompt import Prompt
from segany.imaging.image import ImageSource
from segany.kernels.processor import writable_tensor
from segany.models.object_detector import ObjectDetector, unpadded
from segany.predict.image import CHUNK_BYTES, ImageModel, ImagePredictor

COLUMNS = ("detection_score", "predicted_iou", "stability_score")
"""The columns of found objects, which their confidence is computed from."""


class ObjectModel(ImageModel, Protocol):
    """The interface of a model for `ObjectPredictor`: that of `ImageModel`, and a digest of its weights."""

    @property
    def weights_id(self) -> str: ...


@dataclass(frozen=True)
class ObjectConfig:
    """Settings of the object predictor.

    Attributes:
        max_objects: largest number of objects in an image.
        min_detection_score: boxes of the detector with a lower score are dropped, in 0..1.
        box_nms_thresh: IoU threshold of non-maximum suppression, on the boxes of the detector by their scores, and then
            on the boxes of the masks by their confidence.
        stability_score_offset: offset of the mask threshold for the stability score.
    """

    max_objects: int = 100
    min_detection_score: float = 0.1
    box_nms_thresh: float = 0.7
    stability_score_offset: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(self)
        check(self.max_objects >= 1, f"max_objects must be at least 1, got {self.max_objects}.")
        for name in ("min_detection_score", "box_nms_thresh"):
            check(0 <= getattr(self, name) <= 1, f"{name} must lie in 0..1, got {getattr(self, name)}.")
        offset = self.stability_score_offset
        check(offset >= 0, f"stability_score_offset must not be negative, got {offset}.")


class ObjectPredictor:
    """Finds the objects of an image: an object detector finds boxes, and the mask decoder predicts a mask for each.

    It keeps no state, so threads may share it.

    Example:
        >>> model = segany.load("runs/decoder/best.safetensors")
        >>> detector = segany.load_object_detector("runs/detector/best.safetensors")
        >>> objects = segany.ObjectPredictor(model, detector).find("photo.jpg")
        >>> sure = objects[objects.scores >= detector.calibration.threshold]
    """

    def __init__(
        self,
        model: ObjectModel,
        detector: ObjectDetector,
        config: ObjectConfig | None = None,
        *,
        calibrated: bool = True,
    ) -> None:
        """Combine a model and a detector.

        Args:
            model: a model from `segany.load`.
            detector: a detector from `segany.load_object_detector`, trained on embeddings of this model's encoder.
            config: the settings.
            calibrated: whether scores are calibrated, if the detector has a calibration.

        Raises:
            EmbeddingError: the detector was trained on embeddings of another model or other encoder weights.
            ConfigError: the detector is calibrated for masks of other weights.
        """
        detector.check_fits(model.name, model.encoder_id)
        self.model, self.detector, self.config = model, detector, config or ObjectConfig()
        self.calibration = detector.calibration if calibrated else None
        if self.calibration is not None and self.calibration.weights_id != model.weights_id:
            raise ConfigError(
                "The confidence of the object detector is calibrated for masks of the weights "
                f"{self.calibration.weights_id}, and those of this {model.name!r} are {model.weights_id}. Calibrate it "
                "for this model (segany.evaluate.calibration.calibrate), or pass calibrated=False."
            )
        self.predictor = ImagePredictor(model)

    def find(self, image: ImageSource | Embedding) -> Instances:
        """Find the objects of an image.

        Args:
            image: an image, as for `ImagePredictor.embed`, or its embedding.

        Returns:
            Instances of source "automatic", highest score first. The scores are the confidence: the calibrated
            probability that the mask is right, or without calibration the product of the columns. Columns, float32 [N]
            each: `detection_score` of the box, `predicted_iou` and `stability_score` of the mask.

        Raises:
            ImageError: as for `read_image`.
            EmbeddingError: the embedding was made by another model or other weights.
        """
        embedding = image if isinstance(image, Embedding) else self.predictor.embed(image)
        boxes, detection_scores = self.find_boxes(embedding)
        height, width = embedding.size_hw
        together = max(1, CHUNK_BYTES // (height * width))
        chunks = [slice(first, first + together) for first in range(0, len(boxes), together)]
        parts = [self._segment(embedding, boxes[chunk], detection_scores[chunk]) for chunk in chunks]
        if not parts:
            none = np.zeros(0, dtype=np.float32)
            return Instances.empty(embedding.size_hw).with_columns(**dict.fromkeys(COLUMNS, none))
        return Instances.concatenate(parts).nms(self.config.box_nms_thresh)

    def find_boxes(self, embedding: Embedding) -> tuple[FloatArray, FloatArray]:
        """Find the boxes of objects with the detector alone.

        Args:
            embedding: the embedding of an image.

        Returns:
            Boxes after non-maximum suppression, float32 [K, 4] in pixels of the image, and their scores, float32 [K],
            highest first.

        Raises:
            EmbeddingError: the embedding was made by another model or other weights.
        """
        self.detector.check_fits(embedding.model, embedding.encoder_id)
        config, preprocessing = self.config, embedding.preprocessing
        feature = embedding.features[0]
        tensor = writable_tensor(feature) if isinstance(feature, np.ndarray) else feature
        found, scores = (
            values.cpu().numpy()
            for values in self.detector.detect(
                unpadded(tensor, preprocessing.resized_hw(embedding.size_hw)),
                max_boxes=config.max_objects,
                min_score=config.min_detection_score,
            )
        )
        size_xy = np.array(embedding.size_hw[::-1], dtype=np.float32)
        scale_xy = preprocessing.to_input_xy(np.ones(2, dtype=np.float32), embedding.size_hw)
        boxes = (found.reshape(-1, 2, 2) / scale_xy).clip(0, size_xy).reshape(-1, 4)
        kept = nms(boxes, scores, config.box_nms_thresh)
        kept = kept[box_areas(boxes[kept]) > 0]
        return boxes[kept], scores[kept]

    def _segment(self, embedding: Embedding, boxes_xyxy: FloatArray, detection_scores: FloatArray) -> Instances:
        """Predict a mask for each box. Empty masks are dropped."""
        prompts = [Prompt(box_xyxy=box) for box in boxes_xyxy]
        low_res, predicted_iou, _ = self.predictor.predict_low_res(embedding, prompts, masks="single")
        processor, size_hw = self.model.processor, embedding.size_hw
        measures = processor.measure(low_res[:, 0], size_hw, self.config.stability_score_offset)
        columns = {
            "detection_score": detection_scores,
            "predicted_iou": predicted_iou[:, 0],
            "stability_score": measures.stability,
        }
        masks = processor.upscale_masks(low_res, size_hw)[:, 0]
        found = Instances.from_masks(masks, scores=self._confidence(**columns), sources="automatic", columns=columns)
        return found[measures.areas > 0]

    def _confidence(
        self, detection_score: FloatArray, predicted_iou: FloatArray, stability_score: FloatArray
    ) -> FloatArray:
        if self.calibration is not None:
            return self.calibration.confidence(detection_score, predicted_iou, stability_score)
        return np.asarray(detection_score * predicted_iou.clip(0, 1) * stability_score, dtype=np.float32)
