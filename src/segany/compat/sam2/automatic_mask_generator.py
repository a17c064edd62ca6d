"""The automatic mask generator of SAM 2, with the arguments and records of the official one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from segany.compat.automatic import PredictorModel, Record, find_instances, to_records
from segany.compat.sam2.modeling.sam2_base import MaskDecoder, PromptEncoder, SAM2Base
from segany.compat.sam2.sam2_image_predictor import SAM2ImagePredictor
from segany.compat.segment_anything.utils.amg import build_all_layer_point_grids, check_grids, check_output_mode
from segany.core.arrays import PixelArray
from segany.predict.automatic import AutomaticConfig
from segany.runtime.torch_model import TorchModel

Array = npt.NDArray[Any]


class SAM2AutomaticMaskGenerator:
    """Finds all objects of an image: prompts the model with a grid of points, then filters and deduplicates the masks.

    The arguments are attributes, and may be changed between two calls of `generate`.

    Attributes:
        predictor: the predictor; it may be replaced by a subclass, which is then asked for all masks.
    """

    def __init__(
        self,
        model: SAM2Base,
        points_per_side: int | None = 32,
        points_per_batch: int = 64,
        pred_iou_thresh: float = 0.8,
        stability_score_thresh: float = 0.95,
        stability_score_offset: float = 1.0,
        mask_threshold: float = 0.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        point_grids: list[Array] | None = None,
        min_mask_region_area: int = 0,
        output_mode: str = "binary_mask",
        use_m2m: bool = False,
        multimask_output: bool = True,
    ) -> None:
        """Configure a generator.

        Args:
            model: the model.
            points_per_side, points_per_batch, pred_iou_thresh, stability_score_thresh, stability_score_offset,
                box_nms_thresh, crop_n_layers, crop_nms_thresh, crop_overlap_ratio, crop_n_points_downscale_factor: as
                for `segany.AutomaticConfig`.
            mask_threshold: logits above it are inside a mask.
            point_grids: instead of `points_per_side`, the point grid of each crop layer, xy in 0..1, [N, 2].
            min_mask_region_area: holes and islands of low-res masks of up to this area are removed; as in the official
                code, on CUDA only.
            output_mode: form of the masks: "binary_mask" for bool [H, W], "uncompressed_rle" or "coco_rle".
            use_m2m: refine each mask with itself as a prompt.
            multimask_output: predict three masks for each point instead of one.

        Raises:
            ArgumentError: both or neither of `points_per_side` and `point_grids` are given, or there is no such form.
        """
        check_grids(points_per_side, point_grids)
        check_output_mode(output_mode)
        if points_per_side is not None:
            point_grids = build_all_layer_point_grids(points_per_side, crop_n_layers, crop_n_points_downscale_factor)
        self.predictor = SAM2ImagePredictor(
            model, max_hole_area=min_mask_region_area, max_sprinkle_area=min_mask_region_area
        )
        self.point_grids = point_grids
        self.points_per_batch = points_per_batch
        self.pred_iou_thresh = pred_iou_thresh
        self.stability_score_thresh = stability_score_thresh
        self.stability_score_offset = stability_score_offset
        self.mask_threshold = mask_threshold
        self.box_nms_thresh = box_nms_thresh
        self.crop_n_layers = crop_n_layers
        self.crop_nms_thresh = crop_nms_thresh
        self.crop_overlap_ratio = crop_overlap_ratio
        self.crop_n_points_downscale_factor = crop_n_points_downscale_factor
        self.min_mask_region_area = min_mask_region_area
        self.output_mode = output_mode
        self.use_m2m = use_m2m
        self.multimask_output = multimask_output

    @classmethod
    def from_pretrained(
        cls,
        model_id: str,
        *,
        device: str | torch.device = "cuda",
        mode: Any = "eval",
        hydra_overrides_extra: Sequence[str] = (),
        apply_postprocessing: bool = True,
        **settings: Any,
    ) -> SAM2AutomaticMaskGenerator:
        """Build the generator of a Hugging Face repository; see `build_sam2_hf`, and the constructor for `settings`."""
        from segany.compat.sam2.build_sam import build_sam2_hf

        model = build_sam2_hf(model_id, device, mode, hydra_overrides_extra, apply_postprocessing)
        return cls(model, **settings)

    @torch.no_grad()
    def generate(self, image: PixelArray) -> list[Record]:
        """Generate the masks of an image, uint8 [H, W, 3].

        Returns:
            Dictionaries as those of `SamAutomaticMaskGenerator.generate`.

        Raises:
            ConfigError: a setting is out of range.
            ImageError: the image has another shape or dtype.
        """
        return to_records(find_instances(self._model(), image, self._config()), self.output_mode)

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
            type(predictor) is SAM2ImagePredictor
            and type(model.sam_prompt_encoder) is PromptEncoder
            and type(model.sam_mask_decoder) is MaskDecoder
            and (self.multimask_output, self.use_m2m) == (True, False)
            and self.mask_threshold == 0
            and (self.min_mask_region_area == 0 or model.device.type != "cuda")
        )
        if usual:
            return TorchModel(model)
        return PredictorModel(model, self._embed, self._decode, self.pred_iou_thresh)

    def _embed(self, image: PixelArray) -> Tensor:
        self.predictor.set_image(image)
        return self.predictor.get_image_embedding()[0]

    def _decode(self, points: Tensor) -> tuple[Tensor, Tensor]:
        predictor = self.predictor
        points = points.to(predictor.device)[:, None]
        labels = torch.ones(len(points), 1, dtype=torch.int, device=points.device)
        low_res, iou = predictor.predict_low_res(points, labels, multimask_output=self.multimask_output)
        if self.use_m2m:
            count = low_res.shape[1]
            prompts = low_res.clamp(-32.0, 32.0).flatten(0, 1)[:, None]
            points, labels = (x.repeat_interleave(count, dim=0) for x in (points, labels))
            refined, refined_iou = predictor.predict_low_res(points, labels, mask_input=prompts, multimask_output=False)
            low_res, iou = refined.unflatten(0, (-1, count))[:, :, 0], refined_iou.unflatten(0, (-1, count))[:, :, 0]
        return predictor._transforms.without_small_regions(low_res.float()) - self.mask_threshold, iou
