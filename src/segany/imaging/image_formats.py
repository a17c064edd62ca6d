"""The readable image formats, and a warning about image files that cannot be read."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

_logger = logging.getLogger(__name__)

READABLE_FORMATS = (
    "PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "GIF", "PPM", "TGA", "JPEG2000", "AVIF", "HEIF",
)  # fmt: skip
"""Pillow's names of the formats that are read, if this release of Pillow supports them.

Other formats of Pillow are excluded, because some run other programs (EPS runs Ghostscript) or hold an image of another
size than their header states (ICO). HEIF requires the extra `heif`.
"""

RAW_SUFFIXES = frozenset(
    (".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".srf", ".raf", ".orf", ".rw2", ".pef", ".srw", ".raw")
)
"""Suffixes of raw files of cameras. Pillow opens some of them as TIFF, and reads a small preview."""

_RAW = "raw files of cameras: convert them to TIFF, PNG or JPEG"
_OTHER = "convert them to PNG or JPEG"

_WHY_NOT = {
    **dict.fromkeys((".heic", ".heif", ".hif"), 'pip install "segany[heif]"'),
    **dict.fromkeys((".avif", ".avifs"), "this Pillow cannot read them: install a newer one"),
    **dict.fromkeys(RAW_SUFFIXES, _RAW),
    **dict.fromkeys((".jxl", ".psd", ".svg", ".exr", ".hdr", ".xcf", ".dcm", ".nii"), _OTHER),
}
"""Suffixes of image files that may not be readable, with what to do then."""


def readable_formats() -> list[str]:
    """Return Pillow's names of the formats that can be read in this environment."""
    Image.init()  # loads all plugins, so that the result does not depend on earlier calls
    _register_heif()
    return [name for name in READABLE_FORMATS if name in Image.OPEN]


def readable_suffixes() -> frozenset[str]:
    """Return the file suffixes of readable formats, in lower case and with the dot."""
    formats = set(readable_formats())
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


def warn_unreadable_images(files: Iterable[Path], where: str) -> str:
    """Log a warning with the number of image files that cannot be read.

    Args:
        files: the files of a folder or pattern.
        where: name of the folder or pattern in the message.

    Returns:
        The message, for errors if there are no other files; empty if there are no unreadable image files.
    """
    readable = readable_suffixes()
    counts = Counter(file.suffix.lower() for file in files if not file.name.startswith("."))
    unreadable = {suffix: count for suffix, count in counts.items() if suffix in _WHY_NOT and suffix not in readable}
    if not unreadable:
        return ""
    by_reason: dict[str, list[str]] = {}
    for suffix, count in sorted(unreadable.items()):
        by_reason.setdefault(_WHY_NOT[suffix], []).append(f"{count:,} {suffix}")
    reasons = "; ".join(f"{', '.join(some)} ({reason})" for reason, some in by_reason.items())
    text = f"{sum(unreadable.values()):,} image files are skipped: {reasons}."
    _logger.warning("%s: %s", where, text)
    return text


@functools.cache
def _register_heif() -> None:
    """Register the HEIF plugin of Pillow if `pillow_heif` is installed."""
    try:
        import pillow_heif
    except ImportError:
        return
    pillow_heif.register_heif_opener()
