"""Frame source for images: the files of a folder, or a list of images of any type."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

from segany.core.arrays import PixelArray
from segany.core.errors import VideoError
from segany.core.files import path_errors
from segany.imaging.frames.source import FrameSource
from segany.imaging.image import ImageSource, read_image
from segany.imaging.image_formats import readable_suffixes, warn_unreadable_images
from segany.imaging.pixels import AS_STORED, PixelOptions


class ImageFrames(FrameSource):
    """A frame source with one image per frame, decoded on demand."""

    def __init__(
        self, images: Sequence[ImageSource], name: str, max_pixels: int, pixel_options: PixelOptions = AS_STORED
    ) -> None:
        """Open images as frames. The first one is decoded, since it determines the size of all frames."""
        if not len(images):
            raise VideoError(f"{name} has no frames. Give at least one image.")
        self._images: Sequence[ImageSource] = images
        self._one_way: dict[int, bytes] = {}  # content of file objects that cannot seek
        self._max_pixels, self._pixel_options = max_pixels, pixel_options
        first = self._read(0)
        super().__init__(name, (first.shape[0], first.shape[1]), frame_rate=None, can_seek=True)
        paths = [Path(image) for image in images if isinstance(image, (str, Path))]
        by_stem: dict[str, Path] = {}
        for path in paths:
            other = by_stem.setdefault(path.stem.casefold(), path)
            if other.parent == path.parent and other.name != path.name:
                self.warnings.append(f"{other} and {path} differ only in their endings, and both are frames.")
        # Stems become names of output files, so they must be unique: a folder may hold a.jpg and a.png.
        self._has_stems = len(paths) == len(images) == len(by_stem)
        self._has_names = len(paths) == len(images) == len({path.name.casefold() for path in paths})

    @property
    def count(self) -> int:
        return len(self._images)

    def frame_name(self, index: int) -> str:
        """Return the stem of the image file if the stems of all images are unique, else the frame number."""
        image = self._images[index]
        return Path(image).stem if self._has_stems and isinstance(image, (str, Path)) else super().frame_name(index)

    def frame_file_name(self, index: int) -> str:
        image = self._images[index]
        if self._has_names and isinstance(image, (str, Path)):
            return Path(image).name
        return super().frame_file_name(index)

    def frame_label(self, index: int) -> str:
        image = self._images[index]
        return str(image) if isinstance(image, (str, Path)) else super().frame_label(index)

    def _read(self, index: int) -> PixelArray:
        image = self._images[index]
        if isinstance(image, io.IOBase) and not image.seekable():
            if index not in self._one_way:
                self._one_way[index] = image.read()
            image = self._one_way[index]
        return read_image(image, self._max_pixels, options=self._pixel_options)

    def _close(self) -> None:
        self._images = ()
        self._one_way = {}


def images_in(folder: Path) -> list[Path]:
    """List the images of a folder in natural order: img2 comes before img10.

    Files without an image suffix, hidden files and subfolders are ignored.

    Raises:
        VideoError: there are no images, or the folder cannot be read.
    """
    suffixes = readable_suffixes()
    with path_errors(folder, VideoError):
        found = list(folder.iterdir())
        files = [
            file
            for file in found
            if file.suffix.lower() in suffixes and not file.name.startswith(".") and file.is_file()
        ]
    unreadable = warn_unreadable_images(found, str(folder))
    if not files:
        advice = unreadable or "A video file goes in by its own path."
        raise VideoError(f"The folder {folder} holds no images that can be read. {advice}")
    return sorted(files, key=lambda file: natural_key(file.name))


def natural_key(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Return the sort key of a name for natural order."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name.casefold())
    numbered = tuple((0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts)
    return numbered, name  # the name breaks ties between names that differ only in leading zeros or case
