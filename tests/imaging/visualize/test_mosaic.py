"""Pictures of many masks: colors that tell them apart, in images of every shape."""

import numpy as np
import pytest

from segany.core.errors import ImageError
from segany.core.instances import Instances
from segany.imaging.visualize.mosaic import MOSAIC_TINT, choose_colors, draw_instances
from segany.imaging.visualize.style import PALETTE

GRAY = np.full((120, 160, 3), 128, dtype=np.uint8)


def grid(rows: int, columns: int) -> np.ndarray:
    """Labels of equal fields, a pixel apart."""
    y, x = np.mgrid[:120, :160]
    labels = (y * rows // 120) * columns + x * columns // 160 + 1
    labels[:: 120 // rows] = labels[:, :: 160 // columns] = 0
    return labels.astype(np.int32)


def test_neighbors_differ_in_color() -> None:
    labels = grid(6, 8)
    colors = choose_colors(GRAY, labels)
    assert len(colors) == 49
    assert set(colors) <= set(PALETTE)
    for label in range(1, 49):
        if label % 8:
            assert colors[label] != colors[label + 1]
        if label + 8 <= 48:
            assert colors[label] != colors[label + 8]


def test_colors_differ_from_the_image() -> None:
    for color in PALETTE:
        image = np.full((40, 40, 3), color, dtype=np.uint8)
        (_, chosen) = choose_colors(image, np.ones((40, 40), dtype=np.int32))
        assert np.linalg.norm(np.subtract(color, chosen)) > 100


def test_few_masks_use_different_colors() -> None:
    assert len(set(choose_colors(GRAY, grid(2, 4))[1:])) >= 7


def test_tint_follows_the_label_map_and_nothing_else_changes() -> None:
    masks = np.zeros((2, 120, 160), dtype=np.bool_)
    masks[0, 20:60, 20:60] = masks[1, 30:40, 30:40] = True
    before = GRAY.copy()
    picture = draw_instances(GRAY, Instances.from_masks(masks))
    colors = choose_colors(GRAY, Instances.from_masks(masks).to_label_map())
    for (y, x), label in (((25, 25), 1), ((35, 35), 2)):
        expected = 128 * (1 - MOSAIC_TINT) + np.array(colors[label]) * MOSAIC_TINT
        assert np.abs(picture[y, x] - expected).max() <= 1
    assert (picture[70:] == 128).all()
    np.testing.assert_array_equal(GRAY, before)


def test_masks_that_others_cover_have_an_outline_too() -> None:
    masks = np.zeros((3, 120, 160), dtype=np.bool_)
    masks[0, 22:60, 30:130] = masks[1, 60:98, 30:130] = True  # together they cover the third
    masks[2, 30:90, 40:120] = True
    without = draw_instances(GRAY, Instances.from_masks(masks[:2]))
    with_outline = draw_instances(GRAY, Instances.from_masks(masks))
    assert (with_outline != without).any(axis=2).sum() > 100


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(ImageError, match="160 wide and 120 high, but the masks are 40 wide and 30 high"):
        draw_instances(GRAY, Instances.empty((30, 40)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (2, 3), (300, 200)])
def test_every_shape_of_image_works(shape: tuple[int, int]) -> None:
    corner = np.zeros(shape, dtype=np.bool_)
    corner[: (shape[0] + 1) // 2, : (shape[1] + 1) // 2] = True
    image = np.zeros((*shape, 3), dtype=np.uint8)
    assert draw_instances(image, Instances.from_masks(np.stack([~corner, corner]))).shape == image.shape
