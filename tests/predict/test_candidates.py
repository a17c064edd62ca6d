from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.imaging.test_measure import disc

from segany.core.boxes import nms
from segany.core.preprocessing import Preprocessing
from segany.imaging.measure import MaskMeasures, measure_masks
from segany.predict import candidates as module
from segany.predict.candidates import Candidates

PREPROCESSING = Preprocessing(input_size=256)
SIZE_HW = (180, 250)


def accept(measures: MaskMeasures) -> np.ndarray:
    return (measures.stability > 0.3) & (measures.areas > 10)


@pytest.mark.parametrize("together", [1, 5])
@pytest.mark.parametrize("iou_thresh", [0.05, 0.3, 0.7])
def test_the_choice_is_that_of_measuring_all_first(
    iou_thresh: float, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module._MEASURED_AT_ONCE, "cpu", together)
    random = np.random.default_rng(0)
    low_res = torch.stack([disc(*random.uniform((0, 0, 1, 0.05), (60, 60, 15, 2))) for _ in range(80)]).numpy()
    scores = random.choice(np.linspace(0.5, 1, 20), 80).astype(np.float32)  # with ties
    measures = measure_masks(low_res, PREPROCESSING, SIZE_HW, 1.0)
    good = np.flatnonzero(accept(measures))
    expected = good[nms(measures.boxes_xyxy[good], scores[good], iou_thresh)]

    candidates = Candidates(PREPROCESSING, SIZE_HW, 1.0)
    for first in range(0, 80, 7):
        candidates.add(low_res[first : first + 7], scores[first : first + 7])
    chosen = candidates.choose(accept, iou_thresh)

    assert 1 < len(expected) < len(good)
    assert chosen.index.tolist() == expected.tolist()
    np.testing.assert_array_equal(chosen.boxes_xyxy, measures.boxes_xyxy[expected])
    np.testing.assert_allclose(chosen.stability, measures.stability[expected], atol=1e-3)
    for logits, index in zip(chosen.low_res, expected, strict=True):
        np.testing.assert_array_equal(logits > 0, low_res[index] > 0)


def test_what_is_surely_suppressed_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    measure = Candidates._measure

    def counting(self: Candidates, some: list[int]) -> MaskMeasures:
        calls.extend(some)
        return measure(self, some)

    monkeypatch.setattr(Candidates, "_measure", counting)
    candidates = Candidates(PREPROCESSING, SIZE_HW, 1.0)
    candidates.add(disc(30, 30, 20).expand(50, -1, -1).numpy(), np.linspace(0.5, 1, 50, dtype=np.float32))
    assert candidates.choose(accept, 0.7).index.tolist() == [49]
    assert calls == [49]


def test_nothing_found_is_nothing_chosen() -> None:
    candidates = Candidates(replace(PREPROCESSING), SIZE_HW, 1.0)
    candidates.add(np.zeros((0, 64, 64), dtype=np.float32), np.zeros(0, dtype=np.float32))
    chosen = candidates.choose(accept, 0.7)
    assert chosen.low_res == ()
    assert chosen.boxes_xyxy.shape == (0, 4)
