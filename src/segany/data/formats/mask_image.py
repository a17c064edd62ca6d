"""Images of masks: one rule for what their values are, wherever a mask is read.

Values are labels: gray levels, integers of 16 bits, colors, or indices of a palette. What the background is, a palette
or an alpha channel may say in several ways; see `MaskImage.decode`. Soft edges, of antialiased or JPEG images, are
recognized: their values are no labels.
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
"""What are objects in an image of masks: each value but 0 ("labels"); everything that is not background, as one; each
connected part of that; or "auto": one foreground where edges are soft, and labels otherwise."""

MaskValues: TypeAlias = npt.NDArray[Any]

MAX_LABELS = 5000
"""An image of more values is no label map but a photograph."""

MAX_COLOR_LABELS = 256
"""Colors inside an alpha channel; where there are more, it cuts out a photograph and is the mask itself."""

VOID = 255
"""The index of a palette that is no object and no background (PASCAL VOC, DAVIS)."""

LOSSY_FORMATS = ("JPEG", "MPO", "WEBP", "AVIF", "HEIF", "JPEG2000")

MIN_SOFT_LEVEL = 128
"""Soft edges lead up to at least this level. Label maps with fewer labels never count as soft."""

MANY_LEVELS = 16
"""From so many levels between background and mask, those near the two may cover solid blocks, as wide blur does."""

RAMP_SHARE = 0.8
"""Share of the pixels of soft edges that have both a lower and a higher one within two pixels."""

BAND_PIXELS = 1 << 20
"""Pixels that are looked at together, which bounds the memory beside the image."""

MAX_FAR_SHARE = 0.35
"""Share of the pixels of a lossy image of one mask that may be far from the levels of both background and mask."""


@dataclass(frozen=True)
class MaskOptions:
    """How images of masks are read.

    Attributes:
        objects: see `Objects`.
        mask_threshold: where "foreground", "parts" and soft edges are cut, as a share of the highest value of the image
            from 0 to 1; what is above belongs to the mask.

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
    """A decoded image of masks.

    Attributes:
        what: begins messages.
        labels: int32 [H, W], 0 for the background; None where the values cannot be labels, for the reason.
        reason: why there are no labels.
        levels: [H, W], gray levels from 0, where the values have an order; None for labels of a palette or of colors.
        void: bool [H, W], where a palette has the index `VOID`; None without a palette of labels.
        soft_pixels: how many pixels are between background and mask in an image of one mask with soft edges; None
            where it is no such image.
        has_soft_colors: whether there are soft edges between several colors, which make no labels and no mask.
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
        """Decode an image.

        - Gray palettes are read by gray level, others by index. Where the first color is not black and another one that
          is used is, the black one is the background; otherwise index 0.
        - In color images each color but black is a label.
        - An alpha channel is the mask where all colors are the same, or where they are a photograph that is black
          outside of it. Labels in color that are black outside of it stay labels. Anything else contradicts.

        Args:
            source: a file, or what it holds.
            what: begins messages.
            max_pixels: images of more pixels are refused.

        Raises:
            DataError: it is missing, no image, or damaged; or its alpha channel contradicts its colors.
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
        """int32 [H, W].

        Raises:
            DataError: the values cannot be labels, or there are too many.
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
        """bool [H, W]: what is above a share of the highest level, or any color or index but the background."""
        if self.levels is None:
            assert self.labels is not None
            return np.asarray(self.labels != 0)
        return np.asarray(self.levels > mask_threshold * self.levels.max(initial=0))


@dataclass(frozen=True, eq=False)
class _Values:
    """What an image holds without its alpha channel; see `MaskImage`. `colors` are uint8 [H, W, 3]; None of grays."""

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
    # Where all colors are black, they tell nothing.
    black_is_elsewhere = bool(0 < len(black) < len(used) and 0 not in black)
    grays = palette[used, 0]
    is_gray = bool((palette == palette[:, :1]).all())  # all of it: the images of a video are to be read alike
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
    """Whether colors int [N, 3] are at least three shades of one, black among them or not."""
    levels = colors.max(axis=1)
    brightest = colors[int(colors.sum(axis=1).argmax())]
    shades = np.rint(levels[:, None] * (brightest / max(1, brightest.max())))
    return bool((np.abs(shades - colors) <= 2).all() and ((levels > 0) & (levels < levels.max())).any())


def _alpha(image: Image.Image) -> npt.NDArray[np.uint8] | None:
    """The alpha channel uint8 [H, W], or that of a transparent color; None where all is opaque."""
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
    """What an image holds that is not opaque everywhere."""
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
    """The different values of an array, ascending; where there are more than `MAX_LABELS`, only some more than that."""
    flat = values.reshape(-1)
    found = flat[:0]
    for start in range(0, len(flat), BAND_PIXELS):
        part = flat[start : start + BAND_PIXELS]
        found = np.union1d(found, np.append(part[:1], part[1:][part[1:] != part[:-1]]))
        if len(found) > MAX_LABELS:
            break
    return found


def _soft_pixels(levels: MaskValues, *, is_lossy: bool) -> int | None:
    """See `MaskImage.soft_pixels`."""
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
    """Whether nearly all pixels are near one of two levels, and no plateau is between them."""
    far = 0
    for band, inner in _bands(levels):
        lowest, top = _extremes(levels[band], 2)
        is_far = (levels[band] > 0.2 * highest) & (levels[band] < 0.8 * highest)
        if (is_far & (top.astype(np.float32) - lowest < 0.15 * float(highest)))[inner].any():
            return False
        far += int(is_far[inner].sum())
    return far <= MAX_FAR_SHARE * levels.size


def _has_soft_edges(levels: MaskValues, between: npt.NDArray[Any], highest: Any) -> bool:
    """Whether values between background and mask are in no solid block, and lie between lower and higher ones."""
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
    """Whether an image of several colors is antialiased: many colors without any solid block, in between others."""
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
    """Rows of an image in bands, each with the two rows around it; and which rows of the band are its own."""
    height, width = values.shape
    step = max(1, BAND_PIXELS // max(1, width))
    for start in range(0, height, step):
        first = max(0, start - 2)
        yield slice(first, start + step + 2), slice(start - first, start - first + step)


def _is_solid(values: npt.NDArray[Any]) -> BoolArray:
    """Where the nine pixels around one, all within the image, have a single value."""
    lowest, highest = _extremes(values, 1)
    solid = np.asarray(lowest == highest)
    solid[:1], solid[-1:], solid[:, :1], solid[:, -1:] = False, False, False, False
    return solid


def _is_ramp(levels: MaskValues) -> BoolArray:
    """Where there are both a lower and a higher value within two pixels."""
    lowest, highest = _extremes(levels, 2)
    return np.asarray((lowest < levels) & (levels < highest))


def _extremes(values: npt.NDArray[Any], radius: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The lowest and the highest value within a square around each pixel."""
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
