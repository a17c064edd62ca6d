"""Automatic masks as the official generators return them: a list of dictionaries.

Both official generators run on `segany.AutomaticMaskGenerator`. Where their predictor or model is changed, or they have
settings that it does not have, it asks that predictor for the masks of each batch of points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from segany.compat.segment_anything.utils.amg import area_from_rle, remove_small_regions
from segany.core.arrays import FloatArray, IntArray, PixelArray
from segany.core.boxes import box_areas, mask_box, nms
from segany.core.embedding import Feature
from segany.core.instances import Instances
from segany.core.rle import Rle, encode_masks, run_lengths
from segany.data.formats.sa1b import official_boxes_xywh
from segany.imaging.amg import Proposals, generate_crop_boxes
from segany.imaging.processor import ImageProcessor
from segany.models.promptable import PromptableModel
from segany.predict.automatic import AutomaticConfig, AutomaticMaskGenerator
from segany.runtime.torch_model import TorchModel

Record = dict[str, Any]

_NO_LIMIT = 2**62
"""The official generators take images of any size."""

Decode = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Predicts masks for points [K, 2] in pixels of the model's input: low-res logits [K, M, h, w] and IoU [K, M]."""


class PredictorModel:
    """A model for `AutomaticMaskGenerator` that asks an official predictor."""

    def __init__(
        self, module: PromptableModel, embed: Callable[[PixelArray], Tensor], decode: Decode, min_score: float
    ) -> None:
        """Wrap the methods of a predictor.

        Args:
            module: the model of the predictor.
            embed: embeds an image, which becomes that of the predictor.
            decode: predicts masks on that image.
            min_score: threshold on the predicted IoU; 0 for none.
        """
        self.processor: ImageProcessor = TorchModel(module).processor
        self.name, self.encoder_id, self.pads_boxes = module.name, "", module.pads_boxes
        self.pred_iou_thresh, self.stability_score_thresh = module.pred_iou_thresh, module.stability_score_thresh
        self.low_res_size = module.low_res_size
        self._embed, self._decode, self._min_score = embed, decode, min_score

    def embed(self, images: Sequence[PixelArray]) -> list[tuple[Feature, ...]]:
        """Embed images; only the last one is that of the predictor then."""
        return [(self._embed(image),) for image in images]

    def predict_low_res(
        self,
        features: Sequence[Feature],
        points: FloatArray,
        labels: IntArray,
        mask_logits: FloatArray | None,
        *,
        multimask: bool,
    ) -> tuple[FloatArray, FloatArray]:
        raise NotImplementedError("The generator asks for proposals only.")

    def propose(
        self,
        features: Sequence[Feature],
        points: FloatArray,
        labels: IntArray,
        min_score: float,
        together: int | None = None,
    ) -> Iterator[Proposals]:
        """Predict masks in batches, and yield those with a predicted IoU above the threshold, if there is one."""
        del features, labels, min_score  # every prompt is one point, then padding
        together = together or len(points)
        for first in range(0, len(points), together):
            some = torch.from_numpy(points[first : first + together, 0])
            low_res, iou = (x.detach().float().cpu() for x in self._decode(some))
            good = iou > self._min_score if self._min_score > 0 else torch.ones_like(iou, dtype=torch.bool)
            yield Proposals(
                prompts=(first + good.nonzero()[:, 0]).numpy(),
                scores=iou[good].numpy(),
                low_res=low_res[good].numpy(),
                done=first + len(some),
            )


def find_instances(model: TorchModel | PredictorModel, image: PixelArray, config: AutomaticConfig) -> Instances:
    """Find the automatic masks of an image, in the order of the official code.

    That is: masks of smaller crops first; in a crop, the highest predicted IoU first.
    """
    found = AutomaticMaskGenerator(model, config, max_pixels=_NO_LIMIT).generate(np.ascontiguousarray(image))
    crops = generate_crop_boxes((image.shape[0], image.shape[1]), config.crop_n_layers, config.crop_overlap_ratio)
    if len(crops) == 1:
        return found
    areas = box_areas(np.array([crop.box_xyxy for crop in crops], dtype=np.float32))
    rank = {crops[place].box_xyxy: rank for rank, place in enumerate(np.argsort(areas, kind="stable"))}
    ranks = [rank[cast(Any, tuple(box))] for box in found.columns["crop_box_xyxy"].tolist()]
    return found[np.argsort(ranks, kind="stable")]


def to_records(instances: Instances, output_mode: str) -> list[Record]:
    """Convert automatic masks to the dictionaries of the official code.

    Args:
        instances: from `find_instances`.
        output_mode: "binary_mask", "uncompressed_rle" or "coco_rle".
    """
    columns = instances.columns
    boxes = official_boxes_xywh(instances).astype(np.int64)
    records = []
    for index, rle in enumerate(instances.rles):
        left, top, right, bottom = columns["crop_box_xyxy"][index].tolist()
        records.append(
            {
                **_segmentation(rle, output_mode),
                "bbox": boxes[index].tolist(),
                "predicted_iou": float(columns["predicted_iou"][index]),
                "point_coords": [columns["point_xy"][index].astype(np.float64).tolist()],
                "stability_score": float(columns["stability_score"][index]),
                "crop_box": [left, top, right - left, bottom - top],
            }
        )
    return records


def _segmentation(rle: Rle, output_mode: str) -> Record:
    counts = run_lengths(rle)
    uncompressed = {"size": list(rle["size"]), "counts": counts.tolist()}
    segmentation: Any = uncompressed
    if output_mode == "coco_rle":
        segmentation = dict(rle)
    elif output_mode == "binary_mask":
        height, width = rle["size"]
        inside = np.arange(len(counts)) % 2 == 1
        segmentation = np.repeat(inside, counts).reshape(width, height).T
    return {"segmentation": segmentation, "area": area_from_rle(uncompressed)}


def without_small_regions(instances: Instances, min_area: int, iou_thresh: float) -> Instances:
    """Remove holes and islands of fewer than `min_area` pixels, then the duplicates that this makes.

    As in the official code, masks that did not change come first, and of a mask that consists only of small islands the
    largest one is kept.
    """
    rles, boxes, unchanged = [], [], []
    for rle, mask in zip(instances.rles, instances.masks(), strict=True):
        filled, has_holes = remove_small_regions(mask, min_area, "holes")
        cleaned, has_islands = remove_small_regions(filled, min_area, "islands")
        changed = has_holes or has_islands
        rles.append(encode_masks(cleaned)[0] if changed else rle)
        boxes.append(mask_box(cleaned) or (0, 0, 1, 1))
        unchanged.append(not changed)
    if not rles:
        return instances
    inclusive = np.array(boxes, dtype=np.float32) - np.array([0, 0, 1, 1], dtype=np.float32)
    kept = nms(inclusive, np.array(unchanged, dtype=np.float32), iou_thresh)
    columns = {name: values[kept] for name, values in instances.columns.items()}
    return Instances(
        [rles[index]["counts"] for index in kept],
        instances.size_hw,
        boxes_xyxy=np.array(boxes, dtype=np.float32)[kept],
        scores=instances.scores[kept],
        sources="automatic",
        columns=columns,
    )
