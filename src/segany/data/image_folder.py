"""A folder of images without masks, for distillation and pre-training."""

from __future__ import annotations

import os
from pathlib import Path

from segany.core.errors import DataError
from segany.core.instances import Instances
from segany.data.folders import check_folder, check_not_empty, images_below, name_of, read_item_image
from segany.data.item import AnnotatedImage


class ImageFolder:
    """A `Dataset` of all images below a folder, without masks.

    Its training items need `ItemConfig(needs_masks=False)`.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """List the image files, without reading them.

        Raises:
            DataError: the folder does not exist or has no images, or two images differ only in their suffixes.
        """
        root = Path(folder)
        check_folder(root)
        self._files: dict[str, Path] = {}
        for file in images_below(root):
            other = self._files.setdefault(name_of(file, root), file)
            if other is not file:
                raise DataError(f"{other} and {file} differ only in their endings. Keep only one of them.")
        check_not_empty(len(self._files), root, "images")
        self.names = tuple(self._files)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> AnnotatedImage:
        """See `Dataset`."""
        name = self.names[index]
        image = read_item_image(self._files[name])
        return AnnotatedImage(name, image, Instances.empty((image.shape[0], image.shape[1])), self._files[name].name)
