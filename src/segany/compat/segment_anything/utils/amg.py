"""Functions of the official automatic mask generator, for programs that call them."""

from __future__ import annotations

from collections.abc import Generator, ItemsView
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from segany.compat.errors import require
from segany.core.errors import ConfigError
from segany.core.rle import encode_masks
from segany.imaging import amg, components

Array = npt.NDArray[Any]
Uncompressed = dict[str, Any]
"""An uncompressed COCO run-length encoding: `size` is height and width, `counts` a list of run lengths."""


class MaskData:
    """Columns of equal length: lists, arrays and tensors."""

    def __init__(self, **kwargs: Any) -> None:
        self._stats: dict[str, Any] = {}
        for key, value in kwargs.items():
            self[key] = value

    def __setitem__(self, key: str, item: Any) -> None:
        require(isinstance(item, (list, np.ndarray, Tensor)), "A column is a list, an array or a tensor.")
        self._stats[key] = item

    def __delitem__(self, key: str) -> None:
        del self._stats[key]

    def __getitem__(self, key: str) -> Any:
        return self._stats[key]

    def items(self) -> ItemsView[str, Any]:
        """Names and columns."""
        return self._stats.items()

    def filter(self, keep: Tensor) -> None:
        """Keep the rows of a mask, bool [N], or of indices, int64 [K]."""
        rows = keep.nonzero()[:, 0] if keep.dtype == torch.bool else keep
        for key, column in self._stats.items():
            if isinstance(column, Tensor):
                self._stats[key] = column[rows.to(column.device)]
            elif isinstance(column, np.ndarray):
                self._stats[key] = column[rows.detach().cpu().numpy()]
            else:
                self._stats[key] = [column[row] for row in rows.tolist()]

    def cat(self, new_stats: MaskData) -> None:
        """Append the rows of other columns."""
        for key, column in new_stats.items():
            old = self._stats.get(key)
            if old is None:
                self[key] = list(column) if isinstance(column, list) else column
            elif isinstance(column, Tensor):
                self._stats[key] = torch.cat([old, column])
            elif isinstance(column, np.ndarray):
                self._stats[key] = np.concatenate([old, column])
            else:
                self._stats[key] = [*old, *column]

    def to_numpy(self) -> None:
        """Convert tensors to arrays."""
        for key, column in self._stats.items():
            if isinstance(column, Tensor):
                values = column.detach().cpu()
                self._stats[key] = (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def is_box_near_crop_edge(boxes: Tensor, crop_box: list[int], orig_box: list[int], atol: float = 20.0) -> Tensor:
    """Tell which boxes [N, 4] of a crop touch an edge of the crop that is not an edge of the image: bool [N]."""
    boxes = uncrop_boxes_xyxy(boxes, crop_box).float()
    at_crop, at_image = ((boxes - boxes.new_tensor(edges)).abs() <= atol for edges in (crop_box, orig_box))
    return (at_crop & ~at_image).any(dim=1)


def box_xyxy_to_xywh(box_xyxy: Any) -> Any:
    """Convert a box, array or tensor [4], to left, top, width and height."""
    box: Any = box_xyxy.clone() if isinstance(box_xyxy, Tensor) else np.array(box_xyxy)
    box[2:] -= box[:2]
    return box


def batch_iterator(batch_size: int, *args: Any) -> Generator[list[Any], None, None]:
    """Iterate over batches of several sequences of equal length."""
    require(len({len(one) for one in args}) == 1, "batch_iterator needs sequences of one length.")
    for first in range(0, len(args[0]), batch_size):
        yield [one[first : first + batch_size] for one in args]


def mask_to_rle_pytorch(tensor: Tensor) -> list[Uncompressed]:
    """Encode masks, bool [N, H, W], as uncompressed run lengths."""
    height, width = tensor.shape[1:]
    encodings = []
    for column in tensor.detach().transpose(1, 2).flatten(1).bool().cpu().numpy():
        changes = np.flatnonzero(column[1:] != column[:-1]) + 1
        edges = np.concatenate([[0], changes, [len(column)]])
        counts = np.diff(edges).tolist()
        starts_inside = bool(len(column)) and bool(column[0])
        encodings.append({"size": [height, width], "counts": [0, *counts] if starts_inside else counts})
    return encodings


def rle_to_mask(rle: Uncompressed) -> npt.NDArray[np.bool_]:
    """Decode uncompressed run lengths to a mask, bool [H, W]."""
    height, width = rle["size"]
    counts = np.asarray(rle["counts"], dtype=np.int64)
    values = np.arange(len(counts)) % 2 == 1
    return np.asarray(np.repeat(values, counts).reshape(width, height).T)


def area_from_rle(rle: Uncompressed) -> int:
    """Return the area of a mask in pixels."""
    return int(sum(rle["counts"][1::2]))


def calculate_stability_score(masks: Tensor, mask_threshold: float, threshold_offset: float) -> Tensor:
    """Return the IoU of logits [..., H, W] at a raised and at a lowered threshold; NaN where both masks are empty."""
    core, union = (
        (masks > threshold).flatten(-2).sum(-1, dtype=torch.int32)
        for threshold in (mask_threshold + threshold_offset, mask_threshold - threshold_offset)
    )
    return core / union


def build_point_grid(n_per_side: int) -> Array:
    """Build a grid of points in the unit square, float64 [n * n, 2]."""
    return amg.build_point_grid(n_per_side).astype(np.float64)


def build_all_layer_point_grids(n_per_side: int, n_layers: int, scale_per_layer: int) -> list[Array]:
    """Build the point grids of all crop layers; that of layer i has n_per_side / scale_per_layer^i points a side."""
    return [build_point_grid(int(n_per_side / scale_per_layer**layer)) for layer in range(n_layers + 1)]


def generate_crop_boxes(
    im_size: tuple[int, ...], n_layers: int, overlap_ratio: float
) -> tuple[list[list[int]], list[int]]:
    """Return the boxes of the crops, x0 y0 x1 y1, and their layers."""
    crops = amg.generate_crop_boxes((im_size[0], im_size[1]), n_layers, overlap_ratio)
    return [list(crop.box_xyxy) for crop in crops], [crop.layer for crop in crops]


def uncrop_boxes_xyxy(boxes: Tensor, crop_box: list[int]) -> Tensor:
    """Move boxes [..., 4] from a crop to the image."""
    return boxes + torch.tensor(crop_box[:2] * 2, device=boxes.device)


def uncrop_points(points: Tensor, crop_box: list[int]) -> Tensor:
    """Move points [..., 2] from a crop to the image."""
    return points + torch.tensor(crop_box[:2], device=points.device)


def uncrop_masks(masks: Tensor, crop_box: list[int], orig_h: int, orig_w: int) -> Tensor:
    """Place masks [N, h, w] of a crop in the image: [N, H, W]."""
    left, top, right, bottom = crop_box
    return F.pad(masks, (left, orig_w - right, top, orig_h - bottom)) if crop_box != [0, 0, orig_w, orig_h] else masks


def remove_small_regions(mask: Array, area_thresh: float, mode: str) -> tuple[Array, bool]:
    """Fill holes of a mask, bool [H, W], or remove islands, of fewer than `area_thresh` pixels.

    If all islands are that small, the largest is kept.

    Returns:
        The mask and whether it changed.

    Raises:
        ArgumentError: the mode is neither "holes" nor "islands".
    """
    require(mode in ("holes", "islands"), f"mode must be 'holes' or 'islands', got {mode!r}.")
    mask = np.asarray(mask, dtype=np.bool_)
    cleaned, changed = components.remove_small_regions(mask, area_thresh, cast(Literal["holes", "islands"], mode))
    if mode == "islands" and changed and not cleaned.any():
        largest = components.find_components(mask).areas.max()
        cleaned = _largest_island(mask, int(largest))
    return cleaned, changed


def _largest_island(mask: npt.NDArray[np.bool_], area: int) -> npt.NDArray[np.bool_]:
    parts = components.find_components(mask)
    chosen = int(np.flatnonzero(parts.areas == area)[0])
    kept = np.zeros(mask.size, dtype=np.bool_)
    of_chosen = parts.component == chosen
    for start, stop in zip(parts.start[of_chosen], parts.stop[of_chosen], strict=True):
        kept[start:stop] = True
    return kept.reshape(mask.shape)


def coco_encode_rle(uncompressed_rle: Uncompressed) -> dict[str, Any]:
    """Compress run lengths to a COCO encoding with `counts` as a string."""
    return dict(encode_masks(rle_to_mask(uncompressed_rle))[0])


def batched_mask_to_box(masks: Tensor) -> Tensor:
    """Return the boxes, int64 [..., 4], of masks, bool [..., H, W]: first and last column and row; zeros if empty."""
    if masks.numel() == 0:
        return torch.zeros(*masks.shape[:-2], 4, device=masks.device)
    edges = []
    for axis in (-2, -1):  # columns, then rows
        marks = masks.any(dim=axis).to(torch.uint8)
        size = marks.shape[-1]
        edges.append((marks.argmax(dim=-1), size - 1 - marks.flip(-1).argmax(dim=-1)))
    (left, right), (top, bottom) = edges
    boxes = torch.stack([left, top, right, bottom], dim=-1)
    return boxes * masks.flatten(-2).any(dim=-1)[..., None]


def check_output_mode(output_mode: str) -> None:
    """Raise `ArgumentError` for an unknown form of masks."""
    modes = ("binary_mask", "uncompressed_rle", "coco_rle")
    require(output_mode in modes, f"output_mode must be one of {', '.join(modes)}, got {output_mode!r}.")


def check_grids(points_per_side: int | None, point_grids: list[Array] | None) -> None:
    """Raise `ArgumentError` unless exactly one of a number of points and point grids is given."""
    require((points_per_side is None) != (point_grids is None), "Give either points_per_side or point_grids.")
    if points_per_side is not None and points_per_side < 1:
        raise ConfigError(f"points_per_side must be at least 1, got {points_per_side}.")
