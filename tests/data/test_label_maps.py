"""Masks that come as pictures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from tests.data_for_tests import block, encoded, picture, rle, save

from segany.core.errors import DataError
from segany.core.rle import decode_mask, mask_area
from segany.data.formats.label_map import MaskReader, encode_labels
from segany.data.formats.mask_image import MaskOptions, Objects


def read_objects(
    source: Path | bytes, what: str = "a.png", objects: Objects = "auto", mask_threshold: float = 0.5
) -> dict[int, Any]:
    return MaskReader(MaskOptions(objects, mask_threshold)).read(source, what)


def areas(objects: dict[int, Any]) -> dict[int, int]:
    return {label: mask_area(mask) for label, mask in objects.items()}


LABELS = np.array([[0, 1, 1], [0, 2, 2], [7, 7, 2]], dtype=np.uint8)


@given(arrays(np.int32, array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.integers(0, 4)))
def test_encoding_labels_equals_encoding_each_mask(labels: np.ndarray) -> None:
    expected = {label: rle(labels == label) for label in np.unique(labels).tolist() if label}
    assert encode_labels(labels) == expected


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_value_is_an_object(tmp_path: Path, dtype: Any) -> None:
    objects = read_objects(save(tmp_path / "a.png", LABELS.astype(dtype)))
    assert list(objects) == [1, 2, 7]
    np.testing.assert_array_equal(decode_mask(objects[2]), LABELS == 2)


def test_palettes_are_read_by_index(tmp_path: Path) -> None:
    colors = [0, 0, 0, 255, 0, 0, 255, 0, 0, *[9] * (253 * 3)]  # 1 and 2 look alike
    objects = read_objects(save(tmp_path / "a.png", LABELS, palette=colors))
    assert areas(objects) == {1: 2, 2: 3, 7: 2}


BLOCK = block((60, 80), 10, 20, 40, 60)
"""1200 pixels."""

WHITE, BLACK, RED, GREEN = (255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 255, 0)


def in_palette(index: np.ndarray, *colors: tuple[int, ...], format_name: str = "PNG", **options: Any) -> bytes:
    image = Image.fromarray(index.astype(np.uint8))
    image.putpalette([level for color in colors for level in color])
    buffer = io.BytesIO()
    image.save(buffer, format=format_name, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("format_name", ["PNG", "GIF"])
@pytest.mark.parametrize("high", [WHITE, RED])
def test_black_is_the_background_of_a_palette_whatever_its_index(format_name: str, high: tuple[int, ...]) -> None:
    assert list(areas(read_objects(in_palette(~BLOCK, high, BLACK, format_name=format_name))).values()) == [1200]
    assert list(areas(read_objects(in_palette(BLOCK, BLACK, high, format_name=format_name))).values()) == [1200]


def test_objects_beside_a_black_background_of_a_palette() -> None:
    index = np.full((60, 80), 2)  # green at 0, red at 1, black at 2
    index[BLOCK], index[50:, :10] = 0, 1
    assert sorted(areas(read_objects(in_palette(index, GREEN, RED, BLACK))).values()) == [100, 1200]
    assert sorted(areas(read_objects(in_palette(index, GREEN, RED, WHITE))).values()) == [100, 3500]  # no black at all


def test_gray_palettes_are_read_by_gray_level() -> None:
    index = np.where(BLOCK, 1, 0)
    index[50:, :10] = 2
    objects = read_objects(in_palette(index, BLACK, (255,) * 3, (100,) * 3))
    assert areas(objects) == {255: 1200, 100: 100}


def test_void_of_a_palette_is_no_object(tmp_path: Path) -> None:
    colors = list(range(256)) * 3
    with_void = np.where(LABELS == 7, 255, LABELS).astype(np.uint8)
    assert list(read_objects(save(tmp_path / "a.png", with_void, palette=colors))) == [1, 2]
    binary = np.where(LABELS == 2, 255, 0).astype(np.uint8)  # here 255 is the object
    assert list(read_objects(save(tmp_path / "b.png", binary, palette=colors))) == [255]
    assert list(read_objects(save(tmp_path / "c.png", with_void))) == [1, 2, 255]


def with_alpha(color: Any, alpha: np.ndarray) -> bytes:
    """A PNG of gray levels [H, W] or colors [H, W, 3], and an alpha channel."""
    levels = np.atleast_3d(np.broadcast_to(np.asarray(color, dtype=np.uint8), (*alpha.shape, np.size(color) or 1)[:3])
                           if np.ndim(color) < 2 else np.asarray(color, dtype=np.uint8))  # fmt: skip
    return encoded(np.concatenate([levels, alpha[..., None].astype(np.uint8)], axis=2), "PNG")


@pytest.mark.parametrize("color", [255, 0, WHITE, RED, BLACK])
def test_a_mask_in_the_alpha_channel(color: Any) -> None:
    assert list(areas(read_objects(with_alpha(color, BLOCK * 255))).values()) == [1200]


def test_a_cutout_is_the_mask_of_its_alpha_channel() -> None:
    photo = picture((60, 80)) * BLOCK[..., None]
    assert areas(read_objects(with_alpha(photo, BLOCK * 255))) == {255: 1200}


def test_labels_in_color_beside_an_alpha_channel() -> None:
    labels = np.zeros((60, 80, 3), dtype=np.uint8)
    labels[BLOCK], labels[50:, :10] = RED, GREEN
    assert sorted(areas(read_objects(with_alpha(labels, labels.any(axis=2) * 255))).values()) == [100, 1200]
    assert sorted(areas(read_objects(with_alpha(labels, np.full((60, 80), 255)))).values()) == [100, 1200]
    assert areas(read_objects(with_alpha(BLOCK * 3, (BLOCK | labels.any(axis=2)) * 255))) == {3: 1200}


def test_a_transparent_index_of_a_palette() -> None:
    assert areas(read_objects(in_palette(BLOCK, WHITE, RED, transparency=0))) == {1: 1200}
    assert areas(read_objects(in_palette(BLOCK, RED, RED, transparency=0))) == {255: 1200}  # one color: alpha


def test_colors_that_contradict_the_alpha_channel() -> None:
    white_outside = np.where(BLOCK, 0, 255)
    for data in (with_alpha(white_outside, BLOCK * 255), in_palette(~BLOCK, BLACK, WHITE, transparency=1)):
        with pytest.raises(DataError, match=r"a\.png has a mask in its colors and another one in its alpha channel"):
            read_objects(data)


def test_colors_are_objects_and_grays_are_values(tmp_path: Path) -> None:
    colors = np.zeros((2, 3, 3), dtype=np.uint8)
    colors[0] = (10, 0, 1)
    colors[1, 0] = (0, 10, 1)
    assert list(read_objects(save(tmp_path / "a.png", colors))) == [10 + 65536, 2560 + 65536]
    gray = np.repeat(LABELS[..., None], 4, axis=2)
    gray[..., 3] = 255
    assert list(read_objects(save(tmp_path / "b.png", gray))) == [1, 2, 7]


@pytest.mark.parametrize("high", [1, 255])
def test_foreground_is_above_half(tmp_path: Path, high: int) -> None:
    mask = block((6, 8), 1, 2, 4, 6)
    path = save(tmp_path / "a.png", mask.astype(np.uint8) * np.uint8(high))
    np.testing.assert_array_equal(decode_mask(read_objects(path, objects="foreground")[1]), mask)
    assert not read_objects(save(tmp_path / "b.png", np.zeros((6, 8), np.uint8)), objects="foreground")


def disc(radius: float = 20.0, blur: int = 4, size_hw: tuple[int, int] = (80, 90)) -> np.ndarray:
    """An antialiased disc, uint8: what is covered of each pixel."""
    y, x = np.mgrid[: size_hw[0] * blur, : size_hw[1] * blur]
    inside = (y - 40 * blur) ** 2 + (x - 45 * blur) ** 2 < (radius * blur) ** 2
    return np.rint(inside.reshape(size_hw[0], blur, size_hw[1], blur).mean(axis=(1, 3)) * 255).astype(np.uint8)


def blurred(mask: np.ndarray, sigma: float) -> np.ndarray:
    steps = np.arange(-int(4 * sigma), int(4 * sigma) + 1)
    kernel = np.exp(-((steps / sigma) ** 2) / 2)
    kernel /= kernel.sum()
    values = mask.astype(float) * 255
    for axis in (0, 1):
        values = np.apply_along_axis(lambda line: np.convolve(line, kernel, "same"), axis, values)
    return np.rint(values).astype(np.uint8)


SOFT = {
    "gray": lambda mask: encoded(mask, "PNG"),
    "16 bits": lambda mask: encoded(mask.astype(np.uint16) * 257, "PNG"),
    "gray in color": lambda mask: encoded(np.repeat(mask[..., None], 3, axis=2), "PNG"),
    "red": lambda mask: encoded(np.stack([mask, mask * 0, mask * 0], axis=2), "PNG"),
    "gray palette": lambda mask: encoded(mask, "GIF"),
    "alpha": lambda mask: with_alpha(255, mask),
    "JPEG": lambda mask: encoded(mask, "JPEG"),
    "JPEG in color": lambda mask: encoded(np.stack([mask, mask, mask * 0], axis=2), "JPEG"),
    "WebP": lambda mask: encoded(np.repeat(mask[..., None], 3, axis=2), "WEBP"),
}


@pytest.mark.parametrize("form", SOFT)
@pytest.mark.parametrize("mask", [disc(), disc(30, 3), blurred(BLOCK, 1.5), blurred(BLOCK, 4)], ids=str)
def test_soft_edges_are_one_mask(mask: np.ndarray, form: str, caplog: pytest.LogCaptureFixture) -> None:
    objects = read_objects(SOFT[form](mask), "soft.png")
    assert len(objects) == 1
    (read,) = map(decode_mask, objects.values())
    assert (read != (mask > 127.5)).sum() <= (0 if form not in ("JPEG", "JPEG in color", "WebP") else 60)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "soft.png has soft edges" in record.getMessage()
    assert "pixels are between background and mask" in record.getMessage()
    assert "0.5 of its highest value" in record.getMessage()


def test_where_soft_edges_are_cut() -> None:
    mask = disc()
    data = encoded(mask, "PNG")
    for threshold in (0.0, 0.25, 0.9):
        (area,) = areas(read_objects(data, mask_threshold=threshold)).values()
        assert area == (mask > threshold * 255).sum()
    assert areas(read_objects(data, objects="foreground", mask_threshold=0)) == {1: (mask > 0).sum()}
    assert len(read_objects(data, objects="labels")) == len(np.unique(mask)) - 1


def test_soft_edges_are_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    reader = MaskReader()
    for name in ("a", "b", "c"):
        reader.read(encoded(disc(), "PNG"), name)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def many_labels(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    labels = np.zeros((120, 160), dtype=np.uint8)
    for label in range(1, 201):  # of all sizes down to a pixel, over each other
        y, x, height, width = rng.integers(0, (118, 158, 12, 12))
        labels[y : y + 1 + height, x : x + 1 + width] = label
    return labels


def boundaries() -> np.ndarray:
    labels = np.where(BLOCK, 2, 0)
    labels[10:40, 20] = labels[10:40, 59] = labels[10, 20:60] = labels[39, 20:60] = 1
    return labels.astype(np.uint8)


def outlined() -> np.ndarray:
    """As in PASCAL VOC: objects 1 and 2, and 255 around them."""
    labels = np.where(BLOCK, 255, 0)
    labels[12:38, 22:40], labels[12:38, 42:58] = 1, 2
    return labels.astype(np.uint8)


LABEL_MAPS = {
    "many": many_labels(0),
    "many more": many_labels(1),
    "boundaries": boundaries(),
    "outlined": outlined(),
    "tiny": LABELS,
    "lines": np.repeat(np.arange(90, dtype=np.uint8)[:, None] * (np.arange(90) % 9 == 0)[:, None], 90, axis=1),
    "two levels": (BLOCK * 255 + block((60, 80), 0, 0, 9, 9) * 128).astype(np.uint8),
    "dots": np.where((np.indices((60, 60)) % 4 == 0).all(axis=0), np.arange(60) * 4, 0).astype(np.uint8),
}  # fmt: skip


@pytest.mark.parametrize("name", LABEL_MAPS)
def test_label_maps_have_no_soft_edges(name: str, caplog: pytest.LogCaptureFixture) -> None:
    labels = LABEL_MAPS[name]
    assert list(read_objects(encoded(labels, "PNG"))) == np.unique(labels[labels > 0]).tolist()
    assert not caplog.records


def test_soft_edges_between_colors_are_refused() -> None:
    colors = np.stack([disc(20), np.roll(disc(12), 30, axis=1), disc(1) * 0], axis=2)
    data = encoded(colors, "PNG")
    with pytest.raises(DataError, match=r"soft edges between several colors.*--objects labels"):
        read_objects(data)
    assert len(read_objects(data, objects="labels")) > 16
    (area,) = areas(read_objects(data, objects="foreground")).values()
    assert area == colors.any(axis=2).sum()
    panoptic = np.random.default_rng(0).integers(0, 256, (300, 3), dtype=np.uint8)[many_labels(2)]
    assert len(read_objects(encoded(panoptic, "PNG"))) > 100


def test_lossy_labels_are_refused() -> None:
    labels = np.where(BLOCK, 255, 0).astype(np.uint8)
    labels[45:, :30] = 120
    for data in (encoded(labels, "JPEG"), encoded(picture((100, 100)), "JPEG"), encoded(LABELS, "JPEG")):
        for objects in ("auto", "labels"):
            with pytest.raises(DataError, match=r"JPEG.*objects='foreground'"):
                read_objects(data, "a.jpg", objects)


def test_parts_are_connected_at_corners_too(tmp_path: Path) -> None:
    mask = np.zeros((5, 6), dtype=np.uint8)
    mask[0, 0] = mask[1, 1] = mask[4, 5] = 255
    objects = read_objects(save(tmp_path / "a.png", mask), objects="parts")
    assert list(objects) == [1, 2]
    assert np.argwhere(decode_mask(objects[1])).tolist() == [[0, 0], [1, 1]]
    assert np.argwhere(decode_mask(objects[2])).tolist() == [[4, 5]]


def test_bad_pictures(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no file"):
        read_objects(tmp_path / "a.png")
    whole = encoded(LABELS, "PNG")
    with pytest.raises(DataError, match=r"a\.png is not an image"):
        read_objects(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"a\.png is not an image"):
        read_objects(b"no picture")
    with pytest.raises(DataError, match="photograph"):
        read_objects(encoded(picture((100, 100)), "PNG"))
    with pytest.raises(DataError, match="mode"):
        read_objects(encoded(np.full((3, 3), 0.5, np.float32), "TIFF"), "a.tif")
    with pytest.raises(DataError, match="negative"):
        read_objects(encoded(np.full((3, 3), -1, np.int32), "TIFF"), "a.tif")
