from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.ops.test_resize import SIZES, smooth_logits

from segany.ops.measure import measure_masks
from segany.ops.resize import upscale_logits
from segany.types import Preprocessing

PREPROCESSING = Preprocessing(input_size=256)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("size_hw", SIZES)
def test_measures_are_those_of_the_upscaled_logits(size_hw: tuple[int, int], grad: bool) -> None:
    low_res = smooth_logits()[0]
    with torch.set_grad_enabled(grad):
        measures = measure_masks(low_res, PREPROCESSING, size_hw, 1.0)
    for index, logits in enumerate(upscale_logits(low_res[None], PREPROCESSING, size_hw)[0].numpy()):
        assert abs(int(measures.areas[index]) - np.count_nonzero(logits > 0)) <= 2  # where rounding decides
        stability = np.count_nonzero(logits > 1) / max(np.count_nonzero(logits > -1), 1)
        assert measures.stability[index] == pytest.approx(stability, abs=1e-3)
        y, x = np.nonzero(logits > 0)
        box = (x.min(), y.min(), x.max(), y.max()) if len(x) else (0, 0, 0, 0)
        np.testing.assert_allclose(measures.boxes_xyxy[index], box, atol=1)


@pytest.mark.parametrize("grad", [True, False])
def test_empty_masks_and_masks_in_the_padding_measure_nothing(grad: bool) -> None:
    low_res = torch.full((3, 64, 64), -5.0)
    low_res[1, 40:] = 9  # below a flat image there is only padding
    low_res[2] = -0.5  # above the lowered threshold everywhere, and nowhere above the real one
    with torch.set_grad_enabled(grad):
        measures = measure_masks(low_res, PREPROCESSING, (30, 90), 1.0)
    assert measures.areas.tolist() == [0, 0, 0]
    assert measures.stability.tolist() == [0, 0, 0]
    assert not measures.boxes_xyxy.any()


def test_no_masks_at_all() -> None:
    measures = measure_masks(torch.zeros(0, 64, 64), PREPROCESSING, (30, 90), 1.0)
    assert measures.areas.shape == (0,)
    assert measures.boxes_xyxy.shape == (0, 4)
