from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from segany.core.preprocessing import Preprocessing
from segany.imaging.interpolate import interpolate_logits, resize_mask
from segany.imaging.processor import ImageProcessor
from segany.imaging.resize import resize_frame, resize_pixels, upscale_masks, upscaling_weights
from segany.kernels.processor import TensorProcessor

SIZES = [(1200, 1800), (427, 640), (300, 451), (512, 512), (1024, 1024), (1, 700), (700, 1), (3, 5)]


def smooth_logits(seed: int = 0) -> torch.Tensor:
    noise = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return 10 * F.interpolate(noise, (64, 64), mode="bicubic")


@pytest.mark.parametrize("kind", [ImageProcessor, TensorProcessor])
@pytest.mark.parametrize("resize", ["longest_side", "square"])
@pytest.mark.parametrize("size_hw", SIZES)
def test_masks_are_the_thresholded_logits(size_hw: tuple[int, int], resize: str, kind: type[ImageProcessor]) -> None:
    preprocessing = Preprocessing(input_size=256, resize=resize)  # type: ignore[arg-type]
    low_res = smooth_logits()
    logits = interpolate_logits(low_res, preprocessing, size_hw).numpy()
    processor = kind(preprocessing)
    masks = processor.upscale_masks(low_res.numpy(), size_hw)
    differing = masks != (logits > 0)
    assert np.abs(logits[differing]).sum() < 1e-3  # only where rounding decides
    np.testing.assert_allclose(processor.upscale(low_res.numpy(), size_hw), logits, atol=1e-4, rtol=1e-4)


def test_masks_of_nothing_of_everything_and_of_unused_places() -> None:
    low_res = np.stack([np.full((64, 64), value, dtype=np.float32) for value in (-5.0, 5.0, -np.inf)])[None]
    masks = upscale_masks(low_res, Preprocessing(), (40, 50))
    assert masks.mean(axis=(2, 3)).tolist() == [[0, 1, 0]]


def test_logits_above_zero_in_the_padding_alone_give_an_empty_mask() -> None:
    low_res = np.full((1, 1, 64, 64), -1, dtype=np.float32)
    low_res[..., 40:, :] = 9
    assert not upscale_masks(low_res, Preprocessing(input_size=256), (30, 90)).any()


def test_a_single_positive_pixel_is_not_lost() -> None:
    low_res = np.full((1, 1, 64, 64), -1, dtype=np.float32)
    low_res[0, 0, 20, 31] = 50
    preprocessing = Preprocessing(input_size=256)
    masks = upscale_masks(low_res, preprocessing, (100, 200))
    expected = interpolate_logits(torch.from_numpy(low_res), preprocessing, (100, 200)) > 0
    np.testing.assert_array_equal(masks, expected.numpy())
    assert masks.any()


def test_pixels_are_resized_as_pillow_does() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    resized = resize_pixels(image, Preprocessing(input_size=100))
    expected = np.array(Image.fromarray(image).resize((100, 60), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resized, expected)
    assert resize_pixels(image, Preprocessing(input_size=50)) is image


def test_pixels_are_stretched_to_a_square_without_rounding() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    resized = resize_pixels(image, Preprocessing(input_size=20, resize="square"))
    assert resized.shape == (20, 20, 3)
    assert resized.dtype == np.float32
    assert (resized != resized.round()).any()
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    expected = F.interpolate(pixels, (20, 20), mode="bilinear", align_corners=False, antialias=True)
    np.testing.assert_allclose(resized, expected[0].permute(1, 2, 0), atol=1e-4)
    frame = resize_frame(image, 20)
    np.testing.assert_array_equal(frame, np.array(Image.fromarray(image).resize((20, 20), Image.Resampling.BICUBIC)))


def test_logits_of_a_stretched_image_are_upscaled_in_one_step() -> None:
    low_res = smooth_logits()
    preprocessing = Preprocessing(input_size=256, resize="square")
    logits = interpolate_logits(low_res, preprocessing, (100, 70))
    torch.testing.assert_close(logits, F.interpolate(low_res, (100, 70), mode="bilinear", align_corners=False))
    rows, columns = upscaling_weights((64, 64), preprocessing, (100, 70))
    np.testing.assert_allclose(rows @ low_res.numpy() @ columns.T, logits, atol=1e-4, rtol=1e-4)


def test_a_stretched_mask_covers_half_of_each_pixel() -> None:
    mask = np.zeros((8, 16), dtype=np.bool_)
    mask[:, :9] = True
    stretched = resize_mask(mask, 4)
    np.testing.assert_array_equal(stretched.any(axis=0), [True, True, False, False])
    np.testing.assert_array_equal(stretched.all(axis=0), [True, True, False, False])
    np.testing.assert_array_equal(resize_mask(mask[:, 4:12], 8), mask[:, 4:12])
