from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.imaging.test_measure import disc

from segany.core.boxes import nms
from segany.core.preprocessing import Preprocessing
from segany.imaging.measure import Logits, MaskMeasures
from segany.imaging.processor import ImageProcessor
from segany.kernels.processor import TensorProcessor
from segany.predict.candidates import Candidates

PREPROCESSING = Preprocessing(input_size=256)
SIZE_HW = (180, 250)


def accept(measures: MaskMeasures) -> np.ndarray:
    return (measures.stability > 0.3) & (measures.areas > 10)


@pytest.mark.parametrize("kind", ["arrays", "tensors"])
@pytest.mark.parametrize("iou_thresh", [0.05, 0.3, 0.7])
def test_the_choice_is_that_of_measuring_all_first(iou_thresh: float, kind: str) -> None:
    random = np.random.default_rng(0)
    low_res = torch.stack([disc(*random.uniform((0, 0, 1, 0.05), (60, 60, 15, 2))) for _ in range(80)])
    processor = TensorProcessor(PREPROCESSING)
    scores = random.choice(np.linspace(0.5, 1, 20), 80).astype(np.float32)  # with ties
    measures = processor.measure(low_res if kind == "tensors" else low_res.numpy(), SIZE_HW, 1.0)
    good = np.flatnonzero(accept(measures))
    expected = good[nms(measures.boxes_xyxy[good], scores[good], iou_thresh)]

    candidates = Candidates(processor, SIZE_HW, 1.0)
    for first in range(0, 80, 7):
        some = low_res[first : first + 7]
        candidates.add(some if kind == "tensors" else some.numpy(), scores[first : first + 7])
    chosen = candidates.choose(accept, iou_thresh)

    assert 1 < len(expected) < len(good)
    assert chosen.index.tolist() == expected.tolist()
    np.testing.assert_array_equal(chosen.boxes_xyxy, measures.boxes_xyxy[expected])
    np.testing.assert_allclose(chosen.stability, measures.stability[expected], atol=1e-3)
    for logits, index in zip(chosen.low_res, expected, strict=True):
        np.testing.assert_array_equal(logits > 0, low_res[index] > 0)


class CountingProcessor(ImageProcessor):
    def __init__(self) -> None:
        super().__init__(PREPROCESSING)
        self.measured = 0

    def measure(self, low_res: Logits, size_hw: tuple[int, int], offset: float) -> MaskMeasures:
        self.measured += len(low_res)
        return super().measure(low_res, size_hw, offset)


def test_what_is_surely_suppressed_is_not_measured() -> None:
    processor = CountingProcessor()
    candidates = Candidates(processor, SIZE_HW, 1.0)
    candidates.add(disc(30, 30, 20).expand(50, -1, -1).numpy(), np.linspace(0.5, 1, 50, dtype=np.float32))
    assert candidates.choose(accept, 0.7).index.tolist() == [49]
    assert processor.measured == 1


def test_nothing_found_is_nothing_chosen() -> None:
    candidates = Candidates(ImageProcessor(PREPROCESSING), SIZE_HW, 1.0)
    candidates.add(np.zeros((0, 64, 64), dtype=np.float32), np.zeros(0, dtype=np.float32))
    chosen = candidates.choose(accept, 0.7)
    assert chosen.low_res == ()
    assert chosen.boxes_xyxy.shape == (0, 4)
