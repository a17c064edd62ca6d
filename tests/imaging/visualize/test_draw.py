"""Overlays: what is where, in images of every shape. How they look is for people to judge."""

import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from segany.core.prompt import Prompt
from segany.imaging.visualize import draw as draw_module
from segany.imaging.visualize.draw import _tint, draw_overlay
from segany.imaging.visualize.marks import Labels
from segany.imaging.visualize.style import (
    BACKGROUND_COLOR,
    FOREGROUND_COLOR,
    PALETTE,
    TINT,
    WHITE,
    Sizes,
    object_color,
    text_color,
)

GRAY = np.full((300, 400, 3), 128, dtype=np.uint8)


def disc(size_hw: tuple[int, int], x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]] + 0.5
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2


def near(pixels: np.ndarray, color: tuple[int, int, int], tolerance: int = 12) -> np.ndarray:
    return np.abs(pixels.astype(int) - color).max(axis=-1) <= tolerance


def test_mask_is_tinted_and_outlined_and_the_rest_is_untouched() -> None:
    mask = disc((300, 400), 200, 150, 80)
    before = GRAY.copy()
    overlay = draw_overlay(GRAY, mask[None])
    assert overlay.shape == GRAY.shape
    assert overlay.dtype == np.uint8
    np.testing.assert_array_equal(GRAY, before)
    assert not near(overlay[150, 200], (128, 128, 128)).any()
    assert (overlay[~disc((300, 400), 200, 150, 86)] == 128).all()
    ring = disc((300, 400), 200, 150, 82) & ~disc((300, 400), 200, 150, 78)
    assert near(overlay[ring], PALETTE[0]).mean() > 0.2
    assert near(overlay, WHITE).sum() > 100


def test_tint_is_exact_and_needs_little_memory() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), dtype=np.uint8)
    mask = disc((1000, 1000), 480, 510, 400)
    tinted = image.copy()
    tracemalloc.start()
    _tint(tinted, image, mask, PALETTE[1])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    expected = np.where(mask[..., None], np.rint(image * (1 - TINT) + np.array(PALETTE[1]) * TINT), image)
    np.testing.assert_array_equal(tinted, expected)
    assert peak < 15 * mask.size


def test_noise_gets_no_outlines(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).random((300, 400)) > 0.5
    monkeypatch.setattr(draw_module, "MAX_RINGS", 100)
    overlay = draw_overlay(GRAY, noise[None])
    assert (overlay[~noise] == 128).all()
    assert not (overlay[noise] == 128).all(axis=-1).any()
    monkeypatch.setattr(draw_module, "MAX_RINGS", 1_000_000)
    assert not (draw_overlay(GRAY, noise[None])[~noise] == 128).all()


def test_small_objects_stay_visible_inside_large_ones() -> None:
    small, large = disc((300, 400), 200, 150, 20), disc((300, 400), 200, 150, 120)
    for masks, index in ((np.stack([small, large]), 0), (np.stack([large, small]), 1)):
        overlay = draw_overlay(GRAY, masks)
        expected = np.rint(128 * 0.6 + np.array(object_color(index)) * 0.4)
        assert np.abs(overlay[150, 200] - expected).max() <= 1


def test_points_have_colors_and_shapes_of_their_own() -> None:
    prompt = Prompt(points_xy=[[100, 100], [300, 200]], labels=[1, 0])
    overlay = draw_overlay(GRAY, np.zeros((1, 300, 400), np.bool_), prompts=[prompt])
    assert near(overlay[95:105, 95:105], FOREGROUND_COLOR).any()
    assert near(overlay[195:205, 295:305], BACKGROUND_COLOR).any()
    assert not near(overlay[195:205, 295:305], FOREGROUND_COLOR).any()
    assert near(overlay[97, 100], WHITE, 60).all()  # the upright of the plus
    assert not near(overlay[197, 300], WHITE, 60).any()  # a minus has none


def test_box_is_drawn_along_its_sides() -> None:
    overlay = draw_overlay(GRAY, np.zeros((1, 300, 400), np.bool_), prompts=[Prompt(box_xyxy=[50, 60, 350, 240])])
    assert near(overlay[58:62, 50:350], PALETTE[0]).sum() > 200
    assert near(overlay[60:240, 348:352], PALETTE[0]).sum() > 120
    assert (overlay[100:200, 100:300] == 128).all()


@pytest.mark.parametrize(
    "size_hw", [(1, 1), (2, 3), (32, 32), (1, 900), (900, 1), (8, 2000), (2000, 8), (300, 400), (64, 64)]
)
def test_every_shape_of_image_works(size_hw: tuple[int, int]) -> None:
    height, width = size_hw
    image = np.full((height, width, 3), 90, np.uint8)
    masks = np.zeros((3, height, width), np.bool_)
    masks[0] = True
    masks[1, : max(1, height // 2), : max(1, width // 2)] = True
    prompts = [
        Prompt(points_xy=[[0, 0], [width, height]], labels=[1, 0]),
        Prompt(box_xyxy=[0, 0, width, height], mask_logits=np.zeros((4, 4))),
        Prompt(box_xyxy=[width / 3, height / 3, width / 2, height / 2]),
    ]
    overlay = draw_overlay(image, masks, np.array([0.9, 1.02, -np.inf], np.float32), prompts)
    assert overlay.shape == image.shape


def test_many_objects_and_none() -> None:
    masks = np.stack([disc((300, 400), 10 + 9 * i, 150, 8) for i in range(40)])
    draw_overlay(GRAY, masks, np.linspace(0, 1, 40, dtype=np.float32))
    np.testing.assert_array_equal(draw_overlay(GRAY, masks[:0], np.zeros(0, np.float32)), GRAY)


def test_read_only_arrays_will_do() -> None:
    image, masks = GRAY.copy(), disc((300, 400), 200, 150, 80)[None]
    image.flags.writeable = masks.flags.writeable = False
    draw_overlay(image, masks, np.ones(1, np.float32))


@pytest.mark.slow
def test_large_picture_takes_seconds() -> None:
    image = np.zeros((4000, 6000, 3), np.uint8)
    mask = disc((4000, 6000), 3000, 2000, 1800)
    start = time.perf_counter()
    draw_overlay(image, mask[None], np.ones(1, np.float32), [Prompt(points_xy=[[3000, 2000]])])
    assert time.perf_counter() - start < 15


def test_labels_stay_inside_and_apart() -> None:
    canvas = Image.new("RGB", (200, 100))
    labels = Labels(canvas, Sizes.fitting((100, 200)), occupied=[(90, 40, 110, 60)])
    for box in [(0, 0, 200, 100), (190, 90, 200, 100), (0, 0, 3, 3), (50, 50, 150, 60), (50, 50, 150, 60)]:
        labels.draw("1:  0.97", box, (box[0] + box[2]) / 2, PALETTE[0])
    assert len(labels.occupied) == 6
    for index, (x0, y0, x1, y1) in enumerate(labels.occupied):
        assert 0 <= x0 < x1 <= 200
        assert 0 <= y0 < y1 <= 100
        for a0, b0, a1, b1 in labels.occupied[:index]:
            assert min(x1, a1) <= max(x0, a0) or min(y1, b1) <= max(y0, b0)


def test_sizes_follow_the_image() -> None:
    small, large = Sizes.fitting((1000, 1500)), Sizes.fitting((2000, 3000))
    assert large.line == pytest.approx(2 * small.line)
    assert large.text == pytest.approx(2 * small.text)
    assert Sizes.fitting((10, 90_000)).text < 20


def test_palette_is_stable_and_distinct() -> None:
    colors = [object_color(index) for index in range(3 * len(PALETTE))]
    assert len(set(colors)) == len(colors)
    assert object_color(0) == PALETTE[0]
    assert object_color(3 * len(PALETTE)) == PALETTE[0]
    for a in PALETTE:
        others = [b for b in (*PALETTE, FOREGROUND_COLOR, BACKGROUND_COLOR) if b != a]
        assert min(np.abs(np.subtract(a, b)).sum() for b in others) > 60
    for color in colors:
        assert np.abs(np.subtract(color, text_color(color))).sum() > 200
