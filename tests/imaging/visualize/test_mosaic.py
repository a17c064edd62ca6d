"""Pictures of many masks: colors that tell them apart, in images of every shape."""

import numpy as np
import pytest

from segany.core.polygons import mask_to_polygons
from segany.imaging.visualize.mosaic import MOSAIC_TINT, choose_colors, draw_mosaic
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
    labels = np.zeros((120, 160), dtype=np.int32)
    labels[20:60, 20:60], labels[30:40, 30:40] = 1, 2
    picture = draw_mosaic(GRAY, labels, [(1, mask_to_polygons(labels == 1)), (2, mask_to_polygons(labels == 2))])
    colors = choose_colors(GRAY, labels)
    for (y, x), label in (((25, 25), 1), ((35, 35), 2)):
        expected = 128 * (1 - MOSAIC_TINT) + np.array(colors[label]) * MOSAIC_TINT
        assert np.abs(picture[y, x] - expected).max() <= 1
    assert (picture[70:] == 128).all()


def test_masks_that_others_cover_have_an_outline_too() -> None:
    labels = np.ones((120, 160), dtype=np.int32)
    hidden = np.zeros((120, 160), dtype=np.bool_)
    hidden[40:80, 40:80] = True
    with_outline = draw_mosaic(GRAY, labels, [(1, mask_to_polygons(labels == 1)), (2, mask_to_polygons(hidden))])
    without = draw_mosaic(GRAY, labels, [(1, mask_to_polygons(labels == 1))])
    assert (with_outline != without).any(axis=2)[36:84, 36:84].sum() > 100


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (2, 3), (300, 200)])
def test_every_shape_of_image_works(shape: tuple[int, int]) -> None:
    labels = np.ones(shape, dtype=np.int32)
    labels[: (shape[0] + 1) // 2, : (shape[1] + 1) // 2] = 2
    image = np.zeros((*shape, 3), dtype=np.uint8)
    assert (
        draw_mosaic(image, labels, [(1, mask_to_polygons(labels == 1)), (2, mask_to_polygons(labels == 2))]).shape
        == image.shape
    )
