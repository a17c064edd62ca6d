from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.imaging.test_resize import SIZES, smooth_logits

from segany.core.preprocessing import Preprocessing
from segany.imaging.interpolate import interpolate_logits
from segany.imaging.measure import MaskMeasures, bound_boxes, cut_out, restore
from segany.imaging.processor import ImageProcessor
from segany.kernels.processor import TensorProcessor

PREPROCESSING = Preprocessing(input_size=256)

KINDS = ["numpy", "torch", "tensors"]
"""Arrays by NumPy, arrays by PyTorch, and tensors as they come from an accelerator."""


def measure(low_res: torch.Tensor, size_hw: tuple[int, int], kind: str = "numpy") -> MaskMeasures:
    processor = ImageProcessor(PREPROCESSING) if kind == "numpy" else TensorProcessor(PREPROCESSING)
    return processor.measure(low_res if kind == "tensors" else low_res.numpy(), size_hw, 1.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size_hw", SIZES)
def test_measures_are_those_of_the_upscaled_logits(size_hw: tuple[int, int], kind: str) -> None:
    low_res = smooth_logits()[0]
    measures = measure(low_res, size_hw, kind)
    for index, logits in enumerate(interpolate_logits(low_res[None], PREPROCESSING, size_hw)[0].numpy()):
        assert abs(int(measures.areas[index]) - np.count_nonzero(logits > 0)) <= 2  # where rounding decides
        stability = np.count_nonzero(logits > 1) / max(np.count_nonzero(logits > -1), 1)
        assert measures.stability[index] == pytest.approx(stability, abs=1e-3)
        y, x = np.nonzero(logits > 0)
        box = (x.min(), y.min(), x.max(), y.max()) if len(x) else (0, 0, 0, 0)
        np.testing.assert_allclose(measures.boxes_xyxy[index], box, atol=1)


@pytest.mark.parametrize("kind", KINDS)
def test_empty_masks_and_masks_in_the_padding_measure_nothing(kind: str) -> None:
    low_res = torch.full((3, 64, 64), -5.0)
    low_res[1, 40:] = 9  # below a flat image there is only padding
    low_res[2] = -0.5  # above the lowered threshold everywhere, and nowhere above the real one
    measures = measure(low_res, (30, 90), kind)
    assert measures.areas.tolist() == [0, 0, 0]
    assert measures.stability.tolist() == [0, 0, 0]
    assert not measures.boxes_xyxy.any()


@pytest.mark.parametrize("kind", KINDS)
def test_no_masks_at_all(kind: str) -> None:
    measures = measure(torch.zeros(0, 64, 64), (30, 90), kind)
    assert measures.areas.shape == (0,)
    assert measures.boxes_xyxy.shape == (0, 4)


def blobs(count: int, low_hw: tuple[int, int] = (64, 64)) -> torch.Tensor:
    """Logits of blobs of all sizes, specks and threads among them."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, 1, *low_hw, generator=generator)
    for index in range(count):
        kernel = 1 + 2 * (index % 6)
        noise[index] = torch.nn.functional.avg_pool2d(noise[index], kernel, 1, kernel // 2) * kernel
    return noise[:, 0] * 4 - torch.linspace(0, 10, count)[:, None, None]


def disc(y: float, x: float, radius: float, steepness: float = 1.0) -> torch.Tensor:
    """Logits of a disc, [64, 64]."""
    rows, columns = torch.meshgrid(torch.arange(64.0) - y, torch.arange(64.0) - x, indexing="ij")
    return steepness * (radius - torch.hypot(rows, columns))


@pytest.mark.parametrize("size_hw", [*SIZES, (20, 20), (1, 300), (300, 1), (64, 64)])
def test_boxes_lie_within_their_bounds(size_hw: tuple[int, int]) -> None:
    low_res = blobs(60)
    bounds = bound_boxes(low_res, PREPROCESSING, size_hw)
    for index, logits in enumerate(interpolate_logits(low_res[None], PREPROCESSING, size_hw)[0].numpy()):
        outer, inner = bounds.outer_xyxy[index], bounds.inner_xyxy[index]
        y, x = np.nonzero(logits > 0)
        if len(x):
            box = np.array([x.min(), y.min(), x.max(), y.max()])
            assert (outer[:2] <= box[:2]).all()
            assert (outer[2:] >= box[2:]).all()
        if inner.any():
            assert (inner[:2] >= box[:2]).all()
            assert (inner[2:] <= box[2:]).all()


def test_bounds_are_close() -> None:
    round_mask = disc(30, 30, 20)[None]
    bounds = bound_boxes(round_mask, PREPROCESSING, (256, 256))
    box = measure(round_mask, (256, 256)).boxes_xyxy
    assert bounds.inner_xyxy.any()
    np.testing.assert_allclose(bounds.inner_xyxy, box, atol=12)  # three samples of four pixels
    np.testing.assert_allclose(bounds.outer_xyxy, box, atol=8)


@pytest.mark.parametrize("size_hw", SIZES)
def test_the_part_that_is_cut_out_measures_the_same(size_hw: tuple[int, int]) -> None:
    low_res = torch.cat([blobs(30), torch.full((1, 64, 64), -9.0), torch.full((1, 64, 64), 9.0)])
    parts = cut_out(low_res, 1.0)
    assert parts[-2].values.numel() == 0
    assert sum(part.values.numel() for part in parts) < low_res.numel()
    whole, restored = measure(low_res, size_hw), measure(restore(parts), size_hw)
    np.testing.assert_array_equal(whole.areas, restored.areas)
    np.testing.assert_array_equal(whole.stability, restored.stability)
    np.testing.assert_array_equal(whole.boxes_xyxy, restored.boxes_xyxy)


@pytest.mark.parametrize("size_hw", SIZES[:3])
def test_arrays_and_tensors_measure_the_same(size_hw: tuple[int, int]) -> None:
    low_res = blobs(30)
    array = low_res.numpy()
    expected = measure(low_res, size_hw, "torch")
    np.testing.assert_array_equal(measure(low_res, size_hw).areas, expected.areas)
    tensors = measure(low_res, size_hw, "tensors")
    np.testing.assert_allclose(tensors.areas, expected.areas, atol=2)  # where rounding decides
    pairs = zip(bound_boxes(array, PREPROCESSING, size_hw), bound_boxes(low_res, PREPROCESSING, size_hw), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(restore(cut_out(array, 1.0)), restore(cut_out(low_res, 1.0)))
