"""The automatic mask generator of SAM, with the arguments and records of the official one."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from segany.compat.automatic import PredictorModel, Record, find_instances, to_records, without_small_regions
from segany.compat.segment_anything.modeling import MaskDecoder, PromptEncoder, Sam
from segany.compat.segment_anything.predictor import SamPredictor
from segany.compat.segment_anything.utils.amg import build_all_layer_point_grids, check_grids, check_output_mode
from segany.core.arrays import PixelArray
from segany.predict.automatic import AutomaticConfig
from segany.runtime.torch_model import TorchModel

Array = npt.NDArray[Any]


class SamAutomaticMaskGenerator:
    """Finds all objects of an image: prompts the model with a grid of points, then filters and deduplicates the masks.

    The arguments are attributes, and may be changed between two calls of `generate`.

    Attributes:
        predictor: the predictor; it may be replaced by a subclass, which is then asked for all masks.
    """

    def __init__(
        self,
        model: Sam,
        points_per_side: int | None = 32,
        points_per_batch: int = 64,
        pred_iou_thresh: float = 0.88,
        stability_score_thresh: float = 0.95,
        stability_score_offset: float = 1.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        point_grids: list[Array] | None = None,
        min_mask_region_area: int = 0,
        output_mode: str = "binary_mask",
    ) -> None:
        """Configure a generator.

        Args:
            model: the model.
            points_per_side, points_per_batch, pred_iou_thresh, stability_score_thresh, stability_score_offset,
                box_nms_thresh, crop_n_layers, crop_nms_thresh, crop_overlap_ratio, crop_n_points_downscale_factor: as
                for `segany.AutomaticConfig`.
            point_grids: instead of `points_per_side`, the point grid of each crop layer, xy in 0..1, [N, 2].
            min_mask_region_area: holes and islands of masks with fewer pixels are removed; the largest island is kept.
            output_mode: form of the masks: "binary_mask" for bool [H, W], "uncompressed_rle" or "coco_rle".

        Raises:
            ArgumentError: both or neither of `points_per_side` and `point_grids` are given, or there is no such form.
        """
        check_grids(points_per_side, point_grids)
        check_output_mode(output_mode)
        if points_per_side is not None:
            point_grids = build_all_layer_point_grids(points_per_side, crop_n_layers, crop_n_points_downscale_factor)
        self.predictor = SamPredictor(model)
        self.point_grids = point_grids
        self.points_per_batch = points_per_batch
        self.pred_iou_thresh = pred_iou_thresh
        self.stability_score_thresh = stability_score_thresh
        self.stability_score_offset = stability_score_offset
        self.box_nms_thresh = box_nms_thresh
        self.crop_n_layers = crop_n_layers
        self.crop_nms_thresh = crop_nms_thresh
        self.crop_overlap_ratio = crop_overlap_ratio
        self.crop_n_points_downscale_factor = crop_n_points_downscale_factor
        self.min_mask_region_area = min_mask_region_area
        self.output_mode = output_mode

    def generate(self, image: PixelArray) -> list[Record]:
        """Generate the masks of an image, uint8 [H, W, 3].

        Returns:
            A dictionary for each mask: `segmentation`, in the form of `output_mode`; `area` in pixels; `bbox`, left,
            top, and the differences of the last and first column and row; `predicted_iou`; `point_coords`, the point
            prompt; `stability_score`; `crop_box`, left, top, width and height.

        Raises:
            ConfigError: a setting is out of range.
            ImageError: the image has another shape or dtype.
        """
        instances = find_instances(self._model(), image, self._config())
        if self.min_mask_region_area > 0:
            thresh = max(self.box_nms_thresh, self.crop_nms_thresh)
            instances = without_small_regions(instances, self.min_mask_region_area, thresh)
        return to_records(instances, self.output_mode)

    def _config(self) -> AutomaticConfig:
        assert self.point_grids is not None
        return AutomaticConfig(
            points_per_batch=self.points_per_batch,
            pred_iou_thresh=self.pred_iou_thresh,
            stability_score_thresh=self.stability_score_thresh,
            stability_score_offset=self.stability_score_offset,
            box_nms_thresh=self.box_nms_thresh,
            crop_n_layers=self.crop_n_layers,
            crop_nms_thresh=self.crop_nms_thresh,
            crop_overlap_ratio=self.crop_overlap_ratio,
            point_grids=tuple(self.point_grids),
        )

    def _model(self) -> TorchModel | PredictorModel:
        predictor, model = self.predictor, self.predictor.model
        usual = (
            type(predictor) is SamPredictor
            and type(model) is Sam
            and type(model.prompt_encoder) is PromptEncoder
            and type(model.mask_decoder) is MaskDecoder
            and model.mask_threshold == 0
            and self.pred_iou_thresh > 0
        )
        if usual:
            return TorchModel(model)
        return PredictorModel(model, self._embed, self._decode, self.pred_iou_thresh)

    def _embed(self, image: PixelArray) -> Tensor:
        self.predictor.set_image(image)
        return self.predictor.get_image_embedding()[0]

    def _decode(self, points: Tensor) -> tuple[Tensor, Tensor]:
        points = points.to(self.predictor.device)
        labels = torch.ones(len(points), 1, dtype=torch.int, device=points.device)
        # The logits of the image's size are not needed.
        predictor = self.predictor
        _, iou, low_res = predictor.predict_torch(points[:, None], labels, multimask_output=True, return_logits=False)
        return low_res - predictor.model.mask_threshold, iou
