from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from segany.core.arrays import BoolArray
from segany.engine.brush import Stroke, brush
from segany.evaluate.metrics import mask_iou

TARGET = np.zeros((40, 60), dtype=bool)
TARGET[10:30, 10:30] = True


def changed(*regions: tuple[slice, slice]) -> BoolArray:
    """The target with regions inverted."""
    mask = TARGET.copy()
    for place in regions:
        mask[place] = ~mask[place]
    return mask


def test_the_largest_region_is_corrected_first_and_no_more_than_needed():
    missing, extra = (slice(10, 20), slice(10, 16)), (slice(0, 4), slice(50, 54))
    mask, strokes = brush(changed(missing, extra), TARGET, 0.95)
    assert strokes == (Stroke(True, 60, 6),)
    assert np.array_equal(mask, changed(extra))
    mask, strokes = brush(changed(missing, extra), TARGET, 1)
    assert strokes == (Stroke(True, 60, 6), Stroke(False, 16, 4))
    assert np.array_equal(mask, TARGET)


def test_a_good_mask_needs_no_stroke():
    before = changed((slice(10, 11), slice(10, 11)))
    mask, strokes = brush(before, TARGET, 0.9)
    assert strokes == ()
    assert np.array_equal(mask, before)
    assert mask is not before


def test_long_strokes_take_longer_whatever_their_size():
    assert Stroke(True, 60, 6).widths == 60 / 36
    assert Stroke(True, 6000, 60).widths == 6000 / 3600
    assert Stroke(True, 16, 4).widths == 1
    assert Stroke(True, 1, 2).widths == 1  # never shorter than the brush


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0.5, 1))
def test_strokes_reach_the_iou_and_the_last_one_was_needed(seed, stop_iou):
    rng = np.random.default_rng(seed)
    mask = TARGET ^ (rng.random(TARGET.shape) < rng.uniform(0, 0.4))
    corrected, strokes = brush(mask, TARGET, stop_iou)
    assert mask_iou(corrected, TARGET) >= stop_iou
    if strokes:
        assert mask_iou(mask, TARGET) < stop_iou
        assert [one.area for one in strokes] == sorted((one.area for one in strokes), reverse=True)
        assert np.count_nonzero(corrected ^ mask) == sum(one.area for one in strokes)
