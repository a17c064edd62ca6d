"""FrameResult: values are checked, arrays cannot be changed, objects are found by their ids."""

import numpy as np
import pytest

import segany
from segany.core.errors import ConfigError, InstancesError, PromptError
from segany.core.frame_result import FrameResult
from segany.core.instances import Instances


def two_masks() -> np.ndarray:
    masks = np.zeros((2, 3, 4), dtype=np.bool_)
    masks[1, 1, 2] = True
    return masks


def make(**changes) -> FrameResult:
    values = {"frame": 5, "object_ids": (7, 2), "masks": two_masks(), "scores": [-1.5, 2.5]}
    return FrameResult.from_masks(**{**values, **changes})


def test_objects_by_id() -> None:
    result = make()
    assert result.size_hw == (3, 4)
    assert result.object_ids == (7, 2)
    assert not result.mask_of(7).any()
    assert result.mask_of(2)[1, 2]
    assert (result.score_of(7), result.score_of(2)) == (-1.5, 2.5)
    with pytest.raises(PromptError, match=r"Frame 5 has no object 3\. Its objects: 7, 2"):
        result.mask_of(3)


def test_no_objects() -> None:
    empty = make(object_ids=(), masks=np.zeros((0, 3, 4), np.bool_), scores=[])
    assert empty.size_hw == (3, 4)
    assert empty.masks.shape == (0, 3, 4)
    with pytest.raises(PromptError, match="Its objects: none"):
        empty.mask_of(1)
    assert FrameResult(0, Instances.empty((3, 4))).masks.shape == (0, 3, 4)


def test_masks_of_instances_are_decoded() -> None:
    made = make()
    again = FrameResult(5, made.instances)
    np.testing.assert_array_equal(again.masks, made.masks)
    assert again.masks is again.masks
    assert set(made.instances.sources.tolist()) == {"track"}


def test_arrays_are_read_only() -> None:
    result = make(mask_logits=np.zeros((2, 3, 4), np.float32))
    for array in (result.masks, result.scores, result.mask_logits, FrameResult(0, result.instances).masks):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


@pytest.mark.parametrize("is_dense", [True, False])
def test_an_update_replaces_objects_of_the_same_ids(is_dense: bool) -> None:
    one = make()
    other = make(object_ids=(2, 4), masks=~two_masks(), scores=[1, 2])
    if not is_dense:
        one, other = FrameResult(5, one.instances), FrameResult(5, other.instances)
    updated = one.updated(other)
    assert updated.frame == 5
    assert updated.object_ids == (2, 4, 7)
    assert updated.scores.tolist() == [1, 2, -1.5]
    np.testing.assert_array_equal(updated.masks, [other.mask_of(2), other.mask_of(4), one.mask_of(7)])
    np.testing.assert_array_equal(updated.masks, updated.instances.masks())


def test_sorting_by_id() -> None:
    result = make(mask_logits=np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    ordered = result.sorted_by_id()
    assert ordered.object_ids == (2, 7)
    np.testing.assert_array_equal(ordered.masks, result.masks[::-1])
    np.testing.assert_array_equal(ordered.mask_logits, result.mask_logits[::-1])
    assert ordered.sorted_by_id() is ordered


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"frame": -1}, ConfigError, "must not be negative, got -1"),
        ({"object_ids": (2, 2)}, ConfigError, r"different from each other, got \[2, 2\]"),
        ({"object_ids": (2, -1)}, ConfigError, "needs an object id"),
        ({"object_ids": (1, 2, 3)}, InstancesError, r"object_ids has shape \[3\], but there are 2 instances"),
        ({"masks": np.zeros((2, 3, 4), np.uint8)}, InstancesError, "masks must be bool"),
        ({"scores": np.zeros(3)}, InstancesError, r"scores has shape \[3\]"),
        ({"mask_logits": np.zeros((2, 3, 5), np.float32)}, ConfigError, "mask_logits must be float32"),
        ({"mask_logits": np.zeros((2, 3, 4))}, ConfigError, "mask_logits must be float32"),
    ],
)
def test_bad_values(changes: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(**changes)


def test_is_public() -> None:
    assert segany.FrameResult is FrameResult
