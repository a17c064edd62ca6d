"""The video predictor against the official one, with seeded weights (see `test_shared.py` for the files)."""

from __future__ import annotations

import numpy as np
import pytest
from tests.models_for_tests import loaded
from tests.parity.test_shared import SEEDED_LOGIT_TOLERANCE, SHARED, seeded_sam2

from segany import Prompt, VideoConfig, VideoPredictor
from segany.kernels import optimize

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not (SHARED / "golden").is_dir(), reason=f"needs the golden files in {SHARED / 'golden'}"),
]

OFFICIAL = VideoConfig(binarize_prompted=False, remember_corrections=False)
"""What the golden files were made with."""


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        pytest.param("sam2.1_hiera_tiny", 2),
        pytest.param("sam2_hiera_tiny", 8, marks=pytest.mark.slow),
        pytest.param("sam2.1_hiera_tiny", 8, marks=pytest.mark.slow),
    ],
)
def test_prompts_and_tracking_forward_then_backward(name: str, frames: int) -> None:
    expected = np.load(SHARED / f"golden/video/{name}.npz")
    images = sorted((SHARED / "video/bedroom").glob("*.jpg"))[:8]
    with VideoPredictor(loaded(optimize(seeded_sam2(name))), OFFICIAL).open(images) as session:
        session.prompt(0, 1, Prompt(points_xy=[[210, 350], [250, 220]], labels=[1, 1]))
        session.prompt(0, 2, Prompt(box_xyxy=[300, 0, 500, 400]))
        session.prompt(3, 1, Prompt(points_xy=[[400, 300]], labels=[0]))
        for result in session.propagate(end=frames - 1, logits=True):
            assert result.object_ids == (1, 2)
            check(result.mask_logits, expected[f"fwd{result.frame}"])
        assert result.frame == frames - 1
        for result in session.propagate(5, "backward", logits=True) if frames == 8 else ():
            check(result.mask_logits, expected[f"rev{result.frame}"])


def check(mask_logits: np.ndarray | None, expected: np.ndarray) -> None:
    assert mask_logits is not None
    np.testing.assert_allclose(
        mask_logits[:, ::4, ::4], expected.reshape(2, *expected.shape[-2:]), atol=SEEDED_LOGIT_TOLERANCE
    )
