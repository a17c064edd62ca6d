"""read_image: every kind of source becomes RGB bytes, every bad one an error that says what to do."""

import contextlib
import io
import os
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import tifffile
from PIL import Image, TiffImagePlugin

from segany.core.errors import ConfigError, ImageError
from segany.imaging.image import DEFAULT_MAX_PIXELS, content_id, read_image
from segany.imaging.image_formats import readable_suffixes, warn_unreadable_images
from segany.imaging.pixels import PixelOptions

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (7, 5, 3), dtype=np.uint8)


def png_header(width: int, height: int) -> bytes:
    """A PNG of that size without any pixels: what a decompression bomb looks like from outside."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tga", "ppm", "webp"])
def test_reads_lossless_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(RGB).save(path, **({"lossless": True} if suffix == "webp" else {}))
    for source in (path, str(path)):
        pixels = read_image(source)
        np.testing.assert_array_equal(pixels, RGB)
        assert pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous
        assert pixels.flags.writeable


def test_name_does_not_decide_the_format(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    Image.fromarray(RGB).save(path, format="PNG")
    np.testing.assert_array_equal(read_image(path), RGB)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("1", [255, 255, 255]),
        ("L", [76, 76, 76]),
        ("LA", [76, 76, 76]),
        ("RGBA", [255, 0, 0]),
        ("RGBa", [255, 0, 0]),
        ("P", [255, 0, 0]),
        ("CMYK", [255, 0, 0]),
        ("HSV", [255, 0, 0]),
    ],
)
def test_reads_pillow_modes(mode: str, expected: list[int]) -> None:
    red = Image.new("RGBA", (4, 3), (255, 0, 0, 255))
    image = {
        "HSV": lambda: red.convert("RGB").convert("HSV"),
        "1": lambda: Image.new("1", (4, 3), 1),
        "LA": lambda: red.convert("RGB").convert("LA"),
    }.get(mode, lambda: red.convert(mode) if mode in ("RGBA", "RGBa") else red.convert("RGB").convert(mode))()
    assert image.mode == mode
    pixels = read_image(image)
    assert pixels.shape == (3, 4, 3)
    assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_ycbcr_is_near_its_rgb() -> None:
    pixels = read_image(Image.new("RGB", (2, 2), (200, 30, 60)).convert("YCbCr"))
    assert np.abs(pixels.astype(int) - (200, 30, 60)).max() <= 3


def test_alpha_is_dropped_and_the_color_beneath_kept(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 2), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    assert read_image(tmp_path / "clear.png")[0, 0].tolist() == [10, 20, 30]


def test_palette_with_transparency_gives_no_warning(tmp_path: Path) -> None:
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 9, 8, 7])
    image.save(tmp_path / "palette.png", transparency=b"\x00\x80")
    assert read_image(tmp_path / "palette.png")[0, 0].tolist() == [9, 8, 7]


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bit_gray_is_scaled(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 128, 129], [257, 32896, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"gray.{suffix}")
    assert read_image(tmp_path / f"gray.{suffix}")[..., 1].tolist() == [[0, 0, 1], [1, 128, 255]]


def test_integer_and_float_pillow_images() -> None:
    assert read_image(Image.new("I", (2, 2), 65535)).tolist() == [[[255] * 3] * 2] * 2
    assert read_image(Image.new("F", (2, 2), 0.5))[0, 0].tolist() == [128] * 3
    with pytest.raises(ImageError, match=r"32-bit integers from 70000 to 70000.*0\.\.255"):
        read_image(Image.new("I", (2, 2), 70000))
    with pytest.raises(ImageError, match=r"floats from 255 to 255"):
        read_image(Image.new("F", (2, 2), 255.0))


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str) -> None:
    upright = np.zeros((16, 32, 3), dtype=np.uint8)
    upright[:, :16] = 255  # the left half is white
    stored = Image.fromarray(np.rot90(upright).copy())  # orientation 6: turn clockwise to see it upright
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(tmp_path / f"turned.{suffix}", exif=exif)
    pixels = read_image(tmp_path / f"turned.{suffix}")
    assert pixels.shape == (16, 32, 3)
    assert pixels[:, :12].mean() > 250
    assert pixels[:, 20:].mean() < 5
    with Image.open(tmp_path / f"turned.{suffix}") as image:
        np.testing.assert_array_equal(read_image(image), pixels)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (RGB, RGB),
        (RGB[..., :1], np.repeat(RGB[..., :1], 3, axis=2)),
        (RGB[..., 0], np.repeat(RGB[..., :1], 3, axis=2)),
        (np.concatenate([RGB, RGB[..., :1]], axis=2), RGB),
        (RGB / 255, RGB),
        ((RGB / 255).astype(np.float32), RGB),
        (RGB.astype(np.uint16) * 257, RGB),
        ((RGB.astype(np.uint16) * 257).astype(">u2"), RGB),
        (RGB > 127, (RGB > 127) * np.uint8(255)),
    ],
)
def test_arrays_are_converted_to_uint8_rgb(array: np.ndarray, expected: np.ndarray) -> None:
    pixels = read_image(array)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)


def test_arrays_become_contiguous_and_writable() -> None:
    assert np.shares_memory(read_image(RGB), RGB)
    frozen = RGB.copy()
    frozen.flags.writeable = False
    for array in (frozen, RGB[:, ::-1], RGB[..., ::-1]):
        pixels = read_image(array)
        np.testing.assert_array_equal(pixels, array)
        assert pixels.flags.c_contiguous
        assert pixels.flags.writeable


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "moving.gif")[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 5)), r"\[2, 3, 5\].*1, 3 or 4 channels"),
        (np.zeros((3, 20, 30)), r"channels last"),
        (np.zeros((1, 8, 9, 3)), r"one image at a time"),
        (np.zeros(5), r"\[5\]"),
        (np.zeros((0, 5, 3), np.uint8), r"empty: 5 wide and 0 high"),
        (np.zeros((4, 4, 3), np.int32), r"int32.*Say what is black and white"),
        (np.zeros((4, 4, 3), np.complex64), r"complex64"),
        (np.zeros((4, 4), object), r"object"),
        (np.full((4, 4), np.nan), r"16 values that are NaN or infinite"),
        (np.array([[0.5, np.inf]]), r"1 values that are NaN or infinite"),
        (np.array([[-0.5, 200.0]]), r"-0\.5 to 200.*value_range=\(-0\.5, 200\)"),
    ],
)
def test_refuses_arrays_that_cannot_be_pixels(array: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_image(array)


def test_float_rounding_is_forgiven() -> None:
    assert read_image(np.array([[-1e-6, 1 + 1e-6]]))[0].tolist() == [[0] * 3, [255] * 3]


def test_refuses_other_sources() -> None:
    with pytest.raises(ImageError, match=r"path, bytes, a binary file.*got int"):
        read_image(7)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=r"web address.*Download"):
        read_image("https://example.org/a.png")
    with pytest.raises(ImageError, match=r"web address.*not fetched"):
        read_image(Path("https://example.org/a.png"))
    with pytest.raises(ImageError, match=r"empty"):
        read_image(Image.new("RGB", (0, 4)))


def test_file_problems_are_named(tmp_path: Path) -> None:
    text, nothing, directory = tmp_path / "notes.png", tmp_path / "nothing.png", tmp_path / "folder.png"
    text.write_text("no picture")
    nothing.touch()
    directory.mkdir()
    for path, message in [
        (tmp_path / "missing.png", r"There is no file .*missing\.png"),
        (text, r"notes\.png is not an image.*PNG, JPEG"),
        (nothing, r"nothing\.png is empty"),
        (directory, r"folder\.png is a folder"),
        (text / "inner.png", r"inner\.png cannot be read"),
        (tmp_path / ("x" * 300), r"cannot be read: File name too long"),
        (tmp_path / "a\0b.png", r"cannot be read"),
    ]:
        with pytest.raises(ImageError, match=message):
            read_image(path)


def test_a_file_without_permission_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "secret.png").touch()
    monkeypatch.setattr(io, "FileIO", refuse)
    with pytest.raises(ImageError, match=r"secret\.png may not be read: Permission denied"):
        read_image(tmp_path / "secret.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp"])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
        buffer, format={"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix)
    )
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(ImageError, match=rf"cut\.{suffix}"):
        read_image(path)


@pytest.mark.parametrize("name", ["GIF", "JPEG2000", "AVIF", "WEBP", "PNG"])
def test_damaged_files_give_image_errors_only(tmp_path: Path, name: str) -> None:
    Image.init()
    if name not in Image.SAVE:
        pytest.skip(f"this Pillow has no {name}")
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(buffer, format=name)
    whole = buffer.getvalue()
    rng = np.random.default_rng(2)
    damaged = [whole[: len(whole) * part // 12] for part in range(12)]
    for _ in range(60):
        flipped = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 400), 3):
            flipped[place] ^= int(rng.integers(1, 256))
        damaged.append(bytes(flipped))
    path = tmp_path / "damaged"
    refused = 0
    for data in damaged:
        path.write_bytes(data)
        try:
            read_image(path, max_pixels=10_000)
        except ImageError:
            refused += 1
    assert refused >= 6


@pytest.mark.parametrize(
    ("failure", "message"),
    [(RuntimeError, "cannot be read: Failed to decode"), (SyntaxError, "not an image"), (struct.error, "not an image")],
)
def test_any_error_while_opening_is_an_image_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: type[Exception], message: str
) -> None:
    def fail(file: IO[bytes], filename: str | bytes) -> Any:
        raise failure("Failed to decode image")

    (tmp_path / "broken.gif").write_bytes(b"GIF89a")
    monkeypatch.setitem(Image.OPEN, "GIF", (fail, Image.OPEN["GIF"][1]))
    with pytest.raises(ImageError, match=rf"broken\.gif.*{message}"):
        read_image(tmp_path / "broken.gif")


def test_pipes_are_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match=r"pipe\.png is not a file but a pipe"):
        read_image(tmp_path / "pipe.png")


class OneWay(io.RawIOBase):
    """A binary file that cannot seek, such as a pipe or the body of a response."""

    def __init__(self, data: bytes) -> None:
        self.data = io.BytesIO(data)

    def read(self, size: int | None = -1) -> bytes:
        return self.data.read(size)


@pytest.mark.parametrize("suffix", ["png", "tiff", "gif", "webp"])
def test_bytes_and_files_are_images(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(RGB).save(path)
    data, expected = path.read_bytes(), read_image(path)
    half_read = io.BytesIO(data)
    half_read.read(20)
    with path.open("rb") as file:
        for source in (data, bytearray(data), memoryview(data), io.BytesIO(data), half_read, OneWay(data), file):
            np.testing.assert_array_equal(read_image(source), expected)
            assert not getattr(source, "closed", False)


def test_errors_name_bytes_and_files(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no picture")
    bomb = png_header(20_000, 20_000)
    with text.open("rb") as binary, text.open(encoding="utf-8") as words:
        for source, message in [
            (b"", r"^The image of 0 bytes is empty"),
            (b"no picture", r"^The image of 10 bytes is not an image.*PNG, JPEG"),
            (OneWay(b""), r"^The image file is empty"),
            (binary, r"notes\.txt is not an image"),
            (words, r"notes\.txt is a file that gives str, not bytes.*binary mode"),
            (io.StringIO("no picture"), r"gives str, not bytes"),
            (bomb, r"400,000,000 pixels.*max_pixels"),
            (png_header(9, 9), r"^The image of \d+ bytes is damaged or truncated"),
        ]:
            with pytest.raises(ImageError, match=message):
                read_image(source)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=r"^shard\.tar/a\.jpg is not an image"):
        read_image(b"no picture", name="shard.tar/a.jpg")


def test_32_bit_integers_of_8_bit_range_are_ambiguous() -> None:
    assert read_image(Image.fromarray(np.full((2, 2), 65535, np.int32)))[0, 0].tolist() == [255] * 3
    assert not read_image(Image.fromarray(np.zeros((2, 2), np.int32))).any()
    with pytest.raises(ImageError, match=r"16-bit values up to 200.*value_range=\(0, 255\)"):
        read_image(Image.fromarray(np.full((2, 2), 200, np.int32)))


def test_bomb_is_refused_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    for width, height in [(20_000, 20_000), (10_100, 10_000)]:  # above Pillow's error and its warning
        path.write_bytes(png_header(width, height))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ImageError, match=rf"{width * height:,} pixels.*limit of 100,000,000.*max_pixels"):
                read_image(path)


def test_pixel_limit_is_an_argument(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(RGB).save(path)
    assert read_image(path, max_pixels=35).shape == RGB.shape
    for source in (path, RGB, Image.fromarray(RGB)):
        with pytest.raises(ImageError, match=r"35 pixels \(5 x 7\), more than the limit of 34"):
            read_image(source, max_pixels=34)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff", "lzw.tiff", "gif", "bmp", "ppm"])
def test_pillows_limit_is_neither_met_nor_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """Pillow has one limit for the whole process, under which other threads may be opening images."""
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(RGB).save(path, **({"compression": "tiff_lzw"} if suffix == "lzw.tiff" else {}))
    expected = read_image(path)
    seen = set()

    class Watching(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            seen.add(Image.MAX_IMAGE_PIXELS)
            return super().read(size)

    for limit in (10, 20):  # less than half of the pixels, which is an error, and more, which is a warning
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pixels = read_image(Watching(path.read_bytes()), max_pixels=DEFAULT_MAX_PIXELS)
        np.testing.assert_array_equal(pixels, expected)
    assert seen == {10, 20}


def test_content_id_tells_images_apart() -> None:
    assert content_id(RGB) == content_id(np.asfortranarray(RGB))
    assert len(content_id(RGB)) == 64
    other = RGB.copy()
    other[0, 0, 0] ^= 1
    blank = np.zeros((2, 6, 3), np.uint8)
    assert len({content_id(RGB), content_id(other), content_id(blank), content_id(blank.reshape(6, 2, 3))}) == 4


def test_suffixes_are_those_of_readable_formats() -> None:
    suffixes = readable_suffixes()
    assert {".png", ".jpg", ".jpeg", ".tif", ".webp", ".bmp"} <= suffixes
    assert not {".eps", ".pdf", ".ico", ".txt"} & suffixes


def save_tiff(path: Path, values: np.ndarray, **options: Any) -> Path:
    tifffile.imwrite(path, values, **options)
    return path


PHOTO = np.random.default_rng(5).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (PHOTO.astype(np.uint16) * 257, {"photometric": "rgb"}),
        (np.moveaxis(PHOTO, 2, 0).astype(np.uint16) * 257, {"photometric": "rgb", "planarconfig": "separate"}),
        (PHOTO.astype(np.float32) / 255, {"photometric": "rgb"}),
        (PHOTO.astype(np.uint16) * 257, {"photometric": "rgb", "compression": "zlib", "tile": (16, 16)}),
        (PHOTO.astype(np.uint16) * 257, {"photometric": "rgb", "bigtiff": True}),
    ],
)
def test_tiff_beyond_pillow_is_read_by_its_values(tmp_path: Path, values: np.ndarray, options: dict[str, Any]) -> None:
    np.testing.assert_array_equal(read_image(save_tiff(tmp_path / "a.tif", values, **options)), PHOTO)


def test_bands_of_a_tiff_are_chosen(tmp_path: Path) -> None:
    bands = np.random.default_rng(6).integers(0, 65536, (20, 30, 6), dtype=np.uint16)
    path = save_tiff(tmp_path / "scene.tif", bands, photometric="minisblack", planarconfig="contig")
    with pytest.raises(ImageError, match=r"shape \[20, 30, 6\].*bands=\(0, 1, 2\)"):
        read_image(path)
    chosen = read_image(path, options=PixelOptions(bands=(3, 2, 1)))
    np.testing.assert_array_equal(chosen, read_image(np.ascontiguousarray(bands[..., [3, 2, 1]])))
    gray = read_image(bands, options=PixelOptions(bands=(5,)))
    np.testing.assert_array_equal(gray, read_image(np.ascontiguousarray(bands[..., 5])))
    with pytest.raises(ImageError, match="no band 6"):
        read_image(path, options=PixelOptions(bands=(6,)))


@pytest.mark.parametrize(("top", "bits"), [(255, 8), (200, 8), (4095, 12), (3000, 12)])
def test_dark_16_bits_are_refused_unless_their_range_is_given(tmp_path: Path, top: int, bits: int) -> None:
    values = np.linspace(0, top, 600).round().astype(np.uint16).reshape(20, 30)
    save_tiff(tmp_path / "a.tif", values)
    Image.fromarray(values).save(tmp_path / "a.png")
    for source in (tmp_path / "a.tif", tmp_path / "a.png", values):
        with pytest.raises(ImageError, match=rf"up to {top}.*--range 0,{2**bits - 1}"):
            read_image(source)
        read = read_image(source, options=PixelOptions(value_range=(0, top)))
        assert (read.min(), read.max()) == (0, 255)
        assert read_image(source, options=PixelOptions(value_range=(0, 65535))).max() == round(top * 255 / 65535)


def test_color_of_16_bits_that_pillow_would_make_black_is_refused() -> None:
    assert read_image(rgb16_png(np.full((4, 5, 3), 60000, np.uint16)))[0, 0].tolist() == [60000 >> 8] * 3
    with pytest.raises(ImageError, match="nearly black"):
        read_image(rgb16_png(np.full((4, 5, 3), 900, np.uint16)))


def rgb16_png(values: np.ndarray) -> bytes:
    """A PNG of 16-bit color, which Pillow does not write."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0),
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    packed = (
        len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        for kind, data in chunks.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def test_percentiles_stretch_and_ignore_what_is_no_number() -> None:
    values = np.linspace(-5, 900, 10_000, dtype=np.float32).reshape(100, 100)
    values[0, 0], values[1, 1] = np.nan, 1e30
    read = read_image(values, options=PixelOptions(value_range="percentile"))
    assert read[0, 0].tolist() == [0, 0, 0]
    assert read[1, 1].tolist() == [255] * 3
    assert abs(int(read[50, 0, 0]) - 128) <= 2


def test_a_page_of_several_is_chosen(tmp_path: Path) -> None:
    path = tmp_path / "stack.tif"
    with tifffile.TiffWriter(path) as writer:
        for page in range(3):
            writer.write(PHOTO + np.uint8(page), photometric="rgb")
    with pytest.raises(ImageError, match=r"several pages.*--page 0"):
        read_image(path)
    np.testing.assert_array_equal(read_image(path, options=PixelOptions(page=2)), PHOTO + np.uint8(2))
    with pytest.raises(ImageError, match="no page 3: it has 3"):
        read_image(path, options=PixelOptions(page=3))


def test_thumbnails_and_levels_of_a_tiff_are_no_pages(tmp_path: Path) -> None:
    path = tmp_path / "pyramid.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(PHOTO, photometric="rgb")
        writer.write(PHOTO[::2, ::2], photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(read_image(path), PHOTO)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_a_tiff_of_floats_is_that_of_others(tmp_path: Path, orientation: int) -> None:
    tag = [(274, "H", 1, orientation, True)]
    floats = save_tiff(tmp_path / "f.tif", PHOTO.astype(np.float32) / 255, photometric="rgb", extratags=tag)
    usual = save_tiff(tmp_path / "u.tif", PHOTO, photometric="rgb", extratags=tag)
    np.testing.assert_array_equal(read_image(floats), read_image(usual))


@pytest.mark.parametrize(
    "values",
    [
        {"value_range": (5, 5)},
        {"value_range": (0, float("nan"))},
        {"value_range": "all"},
        {"bands": (1, 2)},
        {"bands": (-1,)},
        {"page": -1},
    ],
)
def test_options_that_make_no_sense(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        PixelOptions(**values)


def test_chunks_are_not_allocated_as_large_as_they_claim(tmp_path: Path) -> None:
    """Four gigabytes for an image of 48 pixels."""
    data = bytearray(encoded_png())
    place = data.index(b"IDAT") - 4
    data[place : place + 4] = b"\xff\xff\xff\xff"
    (tmp_path / "a.png").write_bytes(data)
    tracemalloc.start()
    with contextlib.suppress(ImageError):
        read_image(tmp_path / "a.png")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50 * 2**20


def encoded_png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def test_heic_is_read_where_pillow_heif_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    assert ".heic" in readable_suffixes()
    pixels = np.full((64, 96, 3), (200, 30, 90), np.uint8)
    pixels[:, 48:] = 10
    Image.fromarray(pixels).save(tmp_path / "a.heic", quality=90)
    read = read_image(tmp_path / "a.heic")
    assert read.shape == pixels.shape
    assert np.abs(read.astype(int) - pixels).mean() < 8


def test_images_that_are_passed_over_are_told_of(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    names = ["a.jpg", "b.DNG", "c.cr2", "d.psd", "e.txt", ".f.dng", "g.dng"]
    text = warn_unreadable_images(map(Path, names), "photos")
    assert text == (
        "4 image files are skipped: 1 .cr2, 2 .dng (raw files of cameras: convert them to TIFF, PNG or JPEG); "
        "1 .psd (convert them to PNG or JPEG)."
    )
    assert [record.getMessage() for record in caplog.records] == [f"photos: {text}"]
    assert warn_unreadable_images([Path("a.png"), Path("b.txt")], "photos") == ""
    if ".heic" not in readable_suffixes():
        assert 'pip install "segany[heif]"' in warn_unreadable_images([Path("a.HEIC")], "photos")


@pytest.mark.parametrize("name", ["a.dng", "a.tif"])
def test_raw_files_are_not_read_as_their_preview(tmp_path: Path, name: str) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[50706] = b"\x01\x04\x00\x00"
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(
        tmp_path / name, format="TIFF", tiffinfo=tags if name == "a.tif" else {}
    )
    with pytest.raises(ImageError, match="raw file of a camera"):
        read_image(tmp_path / name)


def test_a_tiff_whose_pages_lead_back_ends(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((20, 30, 3), dtype=np.float32)
    path = save_tiff(tmp_path / "a.tif", values, photometric="rgb", metadata=None)
    data = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * count, first)  # the page after the first is the first
    path.write_bytes(data)
    code = "import sys, segany.imaging.image as i; print(i.read_image(sys.argv[1]).shape)"
    result = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.stdout.strip() == "(20, 30, 3)", result.stderr
