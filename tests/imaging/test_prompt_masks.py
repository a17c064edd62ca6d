"""Masks at image size become low-res logits in the model's frame."""

import numpy as np
import pytest

from segany.core.preprocessing import Preprocessing
from segany.imaging.prompt_masks import PROMPT_LOGIT, mask_to_logits

LONGEST, SQUARE = Preprocessing(), Preprocessing(resize="square")


@pytest.mark.parametrize(
    ("size_hw", "inside_hw"), [((600, 900), (171, 256)), ((90, 30), (256, 85)), ((8, 8), (256, 256))]
)
def test_full_mask_fills_the_image_and_not_the_padding(size_hw: tuple[int, int], inside_hw: tuple[int, int]) -> None:
    logits = mask_to_logits(np.ones(size_hw, dtype=np.bool_), LONGEST, 256)
    assert logits.shape == (256, 256)
    assert logits.dtype == np.float32
    rows, columns = np.nonzero(logits > 0)
    assert abs(rows.max() + 1 - inside_hw[0]) <= 1
    assert abs(columns.max() + 1 - inside_hw[1]) <= 1
    assert len(rows) == (rows.max() + 1) * (columns.max() + 1)
    assert logits.max() == PROMPT_LOGIT
    if size_hw[0] != size_hw[1]:
        assert logits.min() == -PROMPT_LOGIT


def test_square_resizing_stretches_the_mask() -> None:
    mask = np.zeros((100, 200), dtype=np.bool_)
    mask[50:, :100] = True
    logits = mask_to_logits(mask, SQUARE, 64)
    expected = np.zeros((64, 64), dtype=np.bool_)
    expected[32:, :32] = True
    assert ((logits > 0) == expected).mean() > 0.98


def test_halfway_is_undecided() -> None:
    stripes = np.zeros((512, 512), dtype=np.bool_)
    stripes[:, ::2] = True
    assert np.abs(mask_to_logits(stripes, LONGEST, 128)[2:-2, 2:-2]).max() < 0.3 * PROMPT_LOGIT


def test_empty_mask_is_outside_everywhere() -> None:
    assert (mask_to_logits(np.zeros((30, 40), dtype=np.bool_), LONGEST, 256) == -PROMPT_LOGIT).all()
