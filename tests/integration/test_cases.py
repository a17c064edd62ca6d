"""Inputs that were read wrongly, after faults that people report of tools of this kind, with the right values.

The files lie beside the checkout (`../shared/cases`), and tests of them are skipped without it. What they stand for is
tested beside the readers, with inputs that the tests make.
"""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segany import DataError, ImageError, VideoError
from segany.core.rle import mask_area
from segany.data import open_dataset, read_video_dataset
from segany.data.mask_prompts import MaskFiles
from segany.imaging.frames import open_frames
from segany.imaging.image import DEFAULT_MAX_PIXELS, PixelOptions, read_image

CASES = Path(__file__).parents[3] / "shared" / "cases"

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not CASES.is_dir(), reason=f"needs the inputs in {CASES}"),
]


@pytest.mark.parametrize(
    ("name", "areas"),
    [
        ("masks_gif_white_is_index_0", [2809]),
        ("masks_antialiased_png", [2809]),  # cut at half of the highest value
        ("masks_in_alpha_channel", [2809]),
        ("coco_annotation_of_unlisted_image", [100]),
        ("coco_nfc_name_nfd_file", [100]),
    ],
)
def test_datasets(name: str, areas: list[int]) -> None:
    (read,) = [open_dataset(CASES / name).read(0)]
    assert read.instances.areas.tolist() == areas


def test_soft_edges_are_cut_where_people_choose() -> None:
    path = CASES / "masks_antialiased_png"
    areas = [
        open_dataset(path, objects="foreground", mask_threshold=threshold).read(0).instances.areas.tolist()
        for threshold in (0, 0.95)
    ]
    assert areas == [[3213], [2641]]
    assert len(open_dataset(path, objects="labels").read(0).instances) == 43


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("coco_duplicate_image_ids", "Two images have the id 1: a.jpg and b.jpg"),
        ("coco_two_images_one_file", "cam1/a.jpg (id 1) and cam2/a.jpg (id 2) are one file"),
    ],
)
def test_datasets_that_put_masks_on_the_wrong_image(name: str, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        open_dataset(CASES / name)


def test_what_is_left_out_is_counted() -> None:
    dataset = open_dataset(CASES / "coco_annotation_of_unlisted_image")
    assert getattr(dataset, "omitted") == {"annotations of images that are not listed": 1}  # noqa: B009


def test_labels_of_16_bits_as_mask_prompts() -> None:
    masks = MaskFiles(DEFAULT_MAX_PIXELS).masks(CASES / "labels16_values_1_2.png")
    assert isinstance(masks, dict)
    assert {label: mask_area(mask) for label, mask in masks.items()} == {1: 2809, 2: 225}


def test_frames_with_void_alone_have_no_object() -> None:
    (video,) = read_video_dataset(CASES / "davis_frames_with_void_only")
    assert video.object_ids == (1,)


def test_images() -> None:
    photo = read_image(CASES / "photo_150x100.png")
    np.testing.assert_array_equal(read_image(CASES / "rgb16_planar_uncompressed.tif"), photo)
    assert read_image(CASES / "rgb_float32.tif").shape == (100, 150, 3)
    path = CASES / "grey_0_255_in_16_bits.png"
    with pytest.raises(ImageError, match=r"value_range=\(0, 255\)"):
        read_image(path)
    gray = read_image(path, options=PixelOptions(value_range=(0, 255)))
    np.testing.assert_array_equal(gray[..., 0], np.asarray(Image.open(path)))


def test_videos() -> None:
    with open_frames(CASES / "video_mjpeg_with_exif.avi") as source:
        assert source.read(0).any()
    with open_frames(CASES / "video_pixel_aspect_16_11.mp4") as source:
        assert source.pixel_aspect == Fraction(16, 11)
    with pytest.raises(VideoError, match="has no video"):
        open_frames(CASES / "sound_alone.m4a")
