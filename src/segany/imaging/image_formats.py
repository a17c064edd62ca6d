"""Which image files can be read, and telling of those in a folder that cannot."""

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
"""Pillow's names of the formats that are tried, where this Pillow knows them.

Pillow reads more, but some of those run other programs (EPS runs Ghostscript) or hide a picture of
another size behind their header (ICO). HEIF is there with the extra `heif`.
"""

RAW_SUFFIXES = frozenset(
    (".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".srf", ".raf", ".orf", ".rw2", ".pef", ".srw", ".raw")
)
"""Raw files of cameras. Some open as TIFF, and then what is seen is a small preview."""

_RAW = "raw files of cameras: convert them to TIFF, PNG or JPEG"
_OTHER = "convert them to PNG or JPEG"

_WHY_NOT = {
    **dict.fromkeys((".heic", ".heif", ".hif"), 'pip install "segany[heif]"'),
    **dict.fromkeys((".avif", ".avifs"), "this Pillow cannot read them: install a newer one"),
    **dict.fromkeys(RAW_SUFFIXES, _RAW),
    **dict.fromkeys((".jxl", ".psd", ".svg", ".exr", ".hdr", ".xcf", ".dcm", ".nii"), _OTHER),
}
"""Endings of files that are images too, and what to do about those that cannot be read."""


def readable_formats() -> list[str]:
    """Pillow's names of the formats that can be read here."""
    Image.init()  # every plugin, so that the answer does not depend on what was opened before
    _register_heif()
    return [name for name in READABLE_FORMATS if name in Image.OPEN]


def readable_suffixes() -> frozenset[str]:
    """Endings of the names of files that can be read, in lower case and with the dot."""
    formats = set(readable_formats())
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


def tell_passed_over(files: Iterable[Path], where: str) -> str:
    """Warn of the image files among some that cannot be read.

    Args:
        files: as a folder or a pattern has them.
        where: what the message calls that.

    Returns:
        What was told, for errors where there is nothing else; empty where there are no such files.
    """
    readable = readable_suffixes()
    counts = Counter(file.suffix.lower() for file in files if not file.name.startswith("."))
    passed_over = {suffix: count for suffix, count in counts.items() if suffix in _WHY_NOT and suffix not in readable}
    if not passed_over:
        return ""
    by_reason: dict[str, list[str]] = {}
    for suffix, count in sorted(passed_over.items()):
        by_reason.setdefault(_WHY_NOT[suffix], []).append(f"{count:,} {suffix}")
    reasons = "; ".join(f"{', '.join(some)} ({reason})" for reason, some in by_reason.items())
    text = f"{sum(passed_over.values()):,} image files are passed over: {reasons}."
    _logger.warning("%s: %s", where, text)
    return text


@functools.cache
def _register_heif() -> None:
    """Let Pillow read HEIC, where `pillow_heif` is installed."""
    try:
        import pillow_heif
    except ImportError:
        return
    pillow_heif.register_heif_opener()
