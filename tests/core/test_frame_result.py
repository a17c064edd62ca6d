"""FrameResult: shapes are checked, arrays cannot be changed, objects are found by their ids."""

import numpy as np
import pytest

import segany
from segany.core.errors import ConfigError, PromptError
from segany.core.frame_result import FrameResult


def make(**changes) -> FrameResult:
    masks = np.zeros((2, 3, 4), dtype=np.bool_)
    masks[1, 1, 2] = True
    values = {
        "frame": 5,
        "object_ids": (7, 2),
        "masks": masks,
        "scores": np.array([-1.5, 2.5], dtype=np.float32),
    }
    return FrameResult(**{**values, **changes})


def test_objects_by_id() -> None:
    result = make()
    assert result.size_hw == (3, 4)
    assert not result.mask_of(7).any()
    assert result.mask_of(2)[1, 2]
    assert (result.score_of(7), result.score_of(2)) == (-1.5, 2.5)
    with pytest.raises(PromptError, match=r"Frame 5 has no object 3\. Its objects: 7, 2"):
        result.mask_of(3)


def test_no_objects() -> None:
    empty = make(object_ids=(), masks=np.zeros((0, 3, 4), np.bool_), scores=np.zeros(0, np.float32))
    assert empty.size_hw == (3, 4)
    with pytest.raises(PromptError, match="Its objects: none"):
        empty.mask_of(1)


def test_arrays_are_read_only() -> None:
    result = make(mask_logits=np.zeros((2, 3, 4), np.float32))
    for array in (result.masks, result.scores, result.mask_logits):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame": -1}, "must not be negative, got -1"),
        ({"object_ids": (2, 2)}, r"different from each other, got \[2, 2\]"),
        ({"object_ids": (1, 2, 3)}, r"masks must be bool \[O, H, W\] for the O object ids, got bool \[2, 3, 4\]"),
        ({"masks": np.zeros((2, 3, 4), np.uint8)}, "masks must be bool"),
        ({"masks": np.zeros((3, 4), np.bool_)}, "masks must be bool"),
        ({"scores": np.zeros(2)}, r"scores must be float32 \[O\] .*got float64 \[2\]"),
        ({"scores": np.zeros((2, 1), np.float32)}, "scores must be"),
        ({"mask_logits": np.zeros((2, 3, 5), np.float32)}, "mask_logits must be float32"),
    ],
)
def test_bad_values(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**changes)


def test_is_public() -> None:
    assert segany.FrameResult is FrameResult
