"""Decoding of mask images to labels or levels, in the same way wherever a mask is read.

Labels are gray levels, 16-bit integers, colors, or indices of a palette. The background is determined by the palette
or an alpha channel; see `MaskImage.decode`. Soft edges of antialiased or JPEG images are detected, since their values
are not labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from segany.core.arrays import BoolArray
from segany.core.errors import DataError, ImageError, check
from segany.core.label_map import LabelArray
from segany.imaging.image import DEFAULT_MAX_PIXELS, decode_image, keeps_high_bytes_only

Objects: TypeAlias = Literal["auto", "labels", "foreground", "parts"]
"""The objects of a mask image: each label except 0 ("labels"), all foreground pixels as one object ("foreground"), each
connected component of the foreground ("parts"), or "auto": "foreground" if edges are soft, "labels" otherwise."""

MaskValues: TypeAlias = npt.NDArray[Any]

MAX_LABELS = 5000
"""Largest number of values of a label map. An image with more is a photograph."""

MAX_COLOR_LABELS = 256
"""Largest number of label colors in an image with an alpha channel. With more, the alpha channel is the mask."""

VOID = 255
"""The index of a palette that is void, neither object nor background (PASCAL VOC, DAVIS)."""

LOSSY_FORMATS = ("JPEG", "MPO", "WEBP", "AVIF", "HEIF", "JPEG2000")

MIN_SOFT_LEVEL = 128
"""Lowest maximum of an image with soft edges. Label maps with lower values never count as soft."""

MANY_LEVELS = 16
"""Number of levels between background and mask from which those near the two may form solid blocks, as in wide blur."""

RAMP_SHARE = 0.8
"""Smallest share of the pixels of soft edges with both a lower and a higher value within two pixels."""

BAND_PIXELS = 1 << 20
"""Number of pixels that are processed at once, which bounds temporary memory."""

MAX_FAR_SHARE = 0.35
"""Largest share of pixels far from the levels of background and mask in a lossy image of one mask."""


@dataclass(frozen=True)
class MaskOptions:
    """Options for reading mask images.

    Attributes:
        objects: the objects of a mask image; see `Objects`.
        mask_threshold: threshold of "foreground", "parts" and soft edges, as a share in 0..1 of the highest value of
            the image. Pixels above it belong to the mask.

    Raises:
        ConfigError: a value is out of range.
    """

    objects: Objects = "auto"
    mask_threshold: float = 0.5

    def __post_init__(self) -> None:
        known = ("auto", "labels", "foreground", "parts")
        check(self.objects in known, f"objects must be one of {', '.join(known)}, got {self.objects!r}.")
        check(0 <= self.mask_threshold < 1, f"mask_threshold must be from 0 to below 1, got {self.mask_threshold}.")


@dataclass(frozen=True, eq=False)
class MaskImage:
    """A decoded mask image.

    Attributes:
        what: start of error messages.
        labels: int32 [H, W], 0 for the background; None if the values cannot be labels.
        reason: the reason, if there are no labels.
        levels: [H, W], gray levels from 0, if the values are ordered; None for labels of a palette or of colors.
        void: bool [H, W], pixels with the palette index `VOID`; None without a palette of labels.
        soft_pixels: number of pixels between background and mask in an image of one mask with soft edges; None for
            other images.
        has_soft_colors: whether there are soft edges between several colors, which are neither labels nor one mask.
    """

    what: str
    labels: LabelArray | None
    reason: str
    levels: MaskValues | None
    void: BoolArray | None
    soft_pixels: int | None
    has_soft_colors: bool

    @classmethod
    def decode(cls, source: Path | bytes, what: str, max_pixels: int = DEFAULT_MAX_PIXELS) -> MaskImage:
        """Decode a mask image.

        - Images with a gray palette are read by gray level, other palette images by index. The background is index 0,
          unless the first color is not black and another used color is black; then that color is the background.
        - In color images, each color except black is a label.
        - An alpha channel is the mask if all colors are the same, or if they are a photograph that is black outside of
          the mask. Color labels that are black outside of it stay labels. Other alpha channels contradict the colors.

        Args:
            source: path of the file, or its content.
            what: start of error messages.
            max_pixels: larger images are refused.

        Raises:
            DataError: the image is missing, damaged or not an image, or its alpha channel contradicts its colors.
        """
        try:
            return cls._of(decode_image(source, max_pixels, name=what), what)
        except ImageError as error:
            raise DataError(str(error)) from error
        except MemoryError as error:
            raise DataError(f"{what} needs more memory than there is.") from error

    @classmethod
    def _of(cls, image: Image.Image, what: str) -> MaskImage:
        is_lossy = image.format in LOSSY_FORMATS
        values = _color_values(image, is_lossy=is_lossy)
        if keeps_high_bytes_only(image) and not np.any(values.levels if values.labels is None else values.labels):
            raise DataError(f"{what} has 16 bits a channel, of which the low ones cannot be read. Save it as gray.")
        alpha = _alpha(image)
        values = values if alpha is None else _with_alpha(values, alpha, what)
        labels, reason = values.labels, ""
        if is_lossy:
            labels, reason = None, f"is {image.format}, which does not keep values exactly, so that they are no labels"
        elif labels is None:
            reason = f"is of Pillow's mode {image.mode}, whose values are no labels"
        soft_pixels = None if values.levels is None else _soft_pixels(values.levels, is_lossy=is_lossy)
        has_soft_colors = values.levels is None and _has_soft_colors(values.labels, values.colors)
        return cls(what, labels, reason, values.levels, values.void, soft_pixels, has_soft_colors)

    def checked_labels(self) -> LabelArray:
        """Return the labels, int32 [H, W].

        Raises:
            DataError: the values cannot be labels, or there are more than `MAX_LABELS`.
        """
        if self.labels is None:
            raise DataError(
                f"{self.what} {self.reason}. Save it as PNG without antialiasing; or, where it holds one mask, read it "
                "with objects='foreground' (--objects foreground)."
            )
        if (self.labels < 0).any():
            raise DataError(f"{self.what} holds negative values, which cannot be labels.")
        if len(_distinct(self.labels)) > MAX_LABELS:
            raise DataError(
                f"{self.what} holds more than {MAX_LABELS:,} different values. That is a photograph and no image of "
                "masks."
            )
        return self.labels

    def foreground(self, mask_threshold: float = 0.5) -> BoolArray:
        """Return the foreground, bool [H, W]: levels above a share of the highest, or all labels except 0."""
        if self.levels is None:
            assert self.labels is not None
            return np.asarray(self.labels != 0)
        return np.asarray(self.levels > mask_threshold * self.levels.max(initial=0))


@dataclass(frozen=True, eq=False)
class _Values:
    """Values of an image without its alpha channel; see `MaskImage`. `colors` is uint8 [H, W, 3]; None for gray."""

    labels: LabelArray | None
    levels: MaskValues | None
    void: BoolArray | None = None
    colors: npt.NDArray[np.uint8] | None = None


def _color_values(image: Image.Image, *, is_lossy: bool) -> _Values:
    if image.mode in ("P", "PA"):
        return _palette_values(image)
    if image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I"):
        values = np.asarray(image)
        values = values[..., 0] if values.ndim == 3 else values
        values = values.astype(np.uint8) if values.dtype == np.bool_ else values
        return _Values(values.astype(np.int32), values)
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image))
        is_whole = bool(values.any() and (values == np.rint(values)).all() and np.abs(values).max() < 1 << 31)
        return _Values(values.astype(np.int32) if is_whole else None, values.clip(0))
    channels = np.asarray(image.convert("RGB"))
    if (channels[..., :1] == channels).all():
        return _Values(channels[..., 0].astype(np.int32), channels[..., 0])
    if is_lossy:
        return _Values(None, np.asarray(Image.fromarray(channels).convert("L")))
    labels: LabelArray = channels.astype(np.int32) @ np.array([1, 1 << 8, 1 << 16], dtype=np.int32)
    codes = _distinct(labels)
    colors = np.stack([codes & 255, codes >> 8 & 255, codes >> 16 & 255], axis=1)
    levels = channels.max(axis=2) if len(codes) <= MAX_LABELS and _are_shades_of_one(colors) else None
    return _Values(labels, levels, colors=channels)


def _palette_values(image: Image.Image) -> _Values:
    index = np.asarray(image)
    index = index[..., 0] if index.ndim == 3 else index
    listed = np.array((image.getpalette() or [])[: 256 * 3], dtype=np.uint8).reshape(-1, 3)
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(listed)] = listed
    used = _distinct(index)
    black = used[(used < len(listed)) & ~palette[used].any(axis=1)]
    # If all colors are black, none of them marks the background.
    black_is_elsewhere = bool(0 < len(black) < len(used) and 0 not in black)
    grays = palette[used, 0]
    is_gray = bool((palette == palette[:, :1]).all())  # unused colors too: all images of a video are alike
    if is_gray and grays.any() and (black_is_elsewhere or len(np.unique(grays)) == len(used)):
        levels = palette[index, 0]
        return _Values(levels.astype(np.int32), levels, index == VOID if (grays == used).all() else None)
    labels = np.arange(256, dtype=np.int32)
    if black_is_elsewhere:
        labels[0] = black[0]
        labels[black] = 0
    has_levels = not is_gray and _are_shades_of_one(palette[used].astype(np.int32))
    return _Values(
        labels[index], palette.max(axis=1)[index] if has_levels else None, index == VOID, colors=palette[index]
    )


def _are_shades_of_one(colors: npt.NDArray[Any]) -> bool:
    """Whether colors, int [N, 3], are at least three shades of the same hue, black included or not."""
    levels = colors.max(axis=1)
    brightest = colors[int(colors.sum(axis=1).argmax())]
    shades = np.rint(levels[:, None] * (brightest / max(1, brightest.max())))
    return bool((np.abs(shades - colors) <= 2).all() and ((levels > 0) & (levels < levels.max())).any())


def _alpha(image: Image.Image) -> npt.NDArray[np.uint8] | None:
    """Return the alpha channel, or that of a transparent color, uint8 [H, W]; None for an opaque image."""
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        alpha = np.asarray(image)[..., -1]
    elif image.info.get("transparency") is not None:
        transparent = image.info["transparency"]
        values = np.asarray(image)
        if image.mode == "P" and isinstance(transparent, bytes):
            table = np.full(256, 255, dtype=np.uint8)
            table[: len(transparent)] = np.frombuffer(transparent, dtype=np.uint8)[:256]
            alpha = table[values]
        else:
            is_transparent = values == np.asarray(transparent)
            is_transparent = is_transparent.all(axis=2) if is_transparent.ndim == 3 else is_transparent
            alpha = np.where(is_transparent, 0, 255).astype(np.uint8)
    else:
        return None
    return None if (alpha == 255).all() else alpha


def _with_alpha(values: _Values, alpha: npt.NDArray[np.uint8], what: str) -> _Values:
    """Combine the values of an image with its alpha channel, uint8 [H, W]."""
    colors = values.levels if values.labels is None else values.labels
    assert colors is not None
    by_alpha = _Values(alpha.astype(np.int32), alpha)
    is_inside = alpha > 0
    seen = colors[..., None] if values.colors is None else values.colors
    if (seen == seen[:1, :1]).all():
        return by_alpha
    if colors[~is_inside].any():
        raise DataError(
            f"{what} has a mask in its colors and another one in its alpha channel: where it is transparent, it is not "
            "black. Save it without an alpha channel; or in one color, so that the alpha channel is the mask."
        )
    inside = _distinct(colors[is_inside])
    has_soft_alpha = bool(((alpha > 0) & (alpha < alpha.max())).any())
    if (len(inside) == 1 and has_soft_alpha) or len(inside) > MAX_COLOR_LABELS:
        return by_alpha
    solid = alpha > alpha.max() / 2  # edges may be soft
    return replace(
        values,
        labels=None if values.labels is None else np.where(solid, values.labels, 0).astype(np.int32),
        levels=None if values.levels is None else np.where(solid, values.levels, 0),
    )


def _distinct(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the distinct values of an array, ascending. It stops after more than `MAX_LABELS` of them."""
    flat = values.reshape(-1)
    found = flat[:0]
    for start in range(0, len(flat), BAND_PIXELS):
        part = flat[start : start + BAND_PIXELS]
        found = np.union1d(found, np.append(part[:1], part[1:][part[1:] != part[:-1]]))
        if len(found) > MAX_LABELS:
            break
    return found


def _soft_pixels(levels: MaskValues, *, is_lossy: bool) -> int | None:
    """Count the pixels of soft edges; see `MaskImage.soft_pixels`."""
    highest = levels.max(initial=0)
    if highest < MIN_SOFT_LEVEL:
        return None
    values = _distinct(levels)
    between = values[(values > 0) & (values < highest)]
    if not is_lossy and not len(between):
        return None
    is_one_mask = _is_one_lossy_mask(levels, highest) if is_lossy else _has_soft_edges(levels, between, highest)
    return int(np.count_nonzero((levels > 0) & (levels < highest))) if is_one_mask else None


def _is_one_lossy_mask(levels: MaskValues, highest: Any) -> bool:
    """Whether nearly all pixels are near one of two levels, without plateaus between these."""
    far = 0
    for band, inner in _bands(levels):
        lowest, top = _extremes(levels[band], 2)
        is_far = (levels[band] > 0.2 * highest) & (levels[band] < 0.8 * highest)
        if (is_far & (top.astype(np.float32) - lowest < 0.15 * float(highest)))[inner].any():
            return False
        far += int(is_far[inner].sum())
    return far <= MAX_FAR_SHARE * levels.size


def _has_soft_edges(levels: MaskValues, between: npt.NDArray[Any], highest: Any) -> bool:
    """Whether values between background and mask form no solid blocks, and lie between lower and higher values."""
    has_many = len(between) >= MANY_LEVELS
    if not has_many and between[-1] <= 0.1 * highest:  # a few small labels beside 255
        return False
    low, high = (0.04 * highest, 0.96 * highest) if has_many else (0, highest)
    ramps = count = solid = 0
    for band, inner in _bands(levels):
        part = levels[band]
        is_solid = _is_solid(part)
        if (is_solid & (part > low) & (part < high))[inner].any():
            return False
        solid += int((is_solid & (part == highest))[inner].sum())
        ramp, is_between = _is_ramp(part), (part > 0) & (part < highest)
        ramps += int((ramp & is_between)[inner].sum())
        count += int(is_between[inner].sum())
    return ramps >= RAMP_SHARE * count and (has_many or solid > 0)


def _has_soft_colors(labels: LabelArray | None, colors: npt.NDArray[np.uint8] | None) -> bool:
    """Whether an image of several colors is antialiased: many colors form no solid block and lie between others."""
    if labels is None or colors is None:
        return False
    codes = _distinct(labels)
    if not MANY_LEVELS < len(codes) <= MAX_LABELS:
        return False
    with_block = labels[:0, 0]
    for band, inner in _bands(labels):
        with_block = np.union1d(with_block, labels[band][inner][_is_solid(labels[band])[inner]])
    if len(codes) - len(with_block) < MANY_LEVELS:
        return False
    ramps = count = 0
    for band, inner in _bands(labels):
        is_thin = ~np.isin(labels[band], with_block)
        brightness = colors[band].sum(axis=2, dtype=np.int32)
        ramps += int((_is_ramp(brightness) & is_thin)[inner].sum())
        count += int(is_thin[inner].sum())
    return ramps >= RAMP_SHARE * count


def _bands(values: npt.NDArray[Any]) -> Iterator[tuple[slice, slice]]:
    """Yield bands of rows, extended by two rows on each side, and the slice of the band without this extension."""
    height, width = values.shape
    step = max(1, BAND_PIXELS // max(1, width))
    for start in range(0, height, step):
        first = max(0, start - 2)
        yield slice(first, start + step + 2), slice(start - first, start - first + step)


def _is_solid(values: npt.NDArray[Any]) -> BoolArray:
    """Return bool [H, W], pixels whose 3x3 neighborhood lies within the image and has a single value."""
    lowest, highest = _extremes(values, 1)
    solid = np.asarray(lowest == highest)
    solid[:1], solid[-1:], solid[:, :1], solid[:, -1:] = False, False, False, False
    return solid


def _is_ramp(levels: MaskValues) -> BoolArray:
    """Return bool [H, W], pixels with both a lower and a higher value within two pixels."""
    lowest, highest = _extremes(levels, 2)
    return np.asarray((lowest < levels) & (levels < highest))


def _extremes(values: npt.NDArray[Any], radius: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the minimum and the maximum, [H, W] each, of a square of side 2 * radius + 1 around each pixel."""
    lowest, highest = values.copy(), values.copy()
    for axis in (0, 1):
        low, high = lowest.copy(), highest.copy()
        for step in range(1, radius + 1):
            ahead, behind = [slice(None)] * 2, [slice(None)] * 2
            ahead[axis], behind[axis] = slice(step, None), slice(None, -step)
            for one, other in ((tuple(ahead), tuple(behind)), (tuple(behind), tuple(ahead))):
                np.minimum(lowest[one], low[other], out=lowest[one])
                np.maximum(highest[one], high[other], out=highest[one])
    return lowest, highest
