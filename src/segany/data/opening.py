"""Detection of the layout of a dataset, and its readers."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from segany.core.errors import DataError, check
from segany.core.files import path_errors
from segany.data.coco import CocoDataset
from segany.data.folders import entries, files_below, walk_files
from segany.data.formats.mask_image import MaskOptions, Objects
from segany.data.image_folder import ImageFolder
from segany.data.item import Dataset
from segany.data.labelme import LabelMeFolder, is_labelme
from segany.data.mask_folder import IMAGE_FOLDERS, MASK_FOLDERS, MaskFolder
from segany.data.sa1b import Sa1bFolder
from segany.data.shards import TarShards
from segany.data.video_folder import VideoFrames, has_frame_folders, masklet_files
from segany.data.yolo import YoloFolder, has_yolo_labels
from segany.imaging.image_formats import readable_suffixes

Layout: TypeAlias = Literal["sa1b", "labelme", "coco", "yolo", "masks", "videos", "shards"]

LOOKED_FOR = """\
  shards  a .tar file, a folder of them, or a pattern such as sa_{000000..000009}.tar
  coco    a .json file of COCO or LVIS, or a folder with one, in annotations/ or itself
  videos  JPEGImages/ and Annotations/ (DAVIS), JPEGImages_24fps/ and Annotations_6fps/ (SA-V), or *_manual.json
  yolo    images/ and labels/ with .txt files of the same names, or a data.yaml
  masks   images/ and masks/
  sa1b    images and .json files of the same names, at any depth
  labelme the same, where the .json files have shapes"""

ENTRIES_SHOWN = 10


@dataclass(frozen=True)
class DataOptions:
    """Options of `open_dataset`.

    Attributes:
        objects, mask_threshold: as for `MaskOptions`.
        trust_paths: as for `CocoDataset`.
    """

    objects: Objects = "auto"
    mask_threshold: float = 0.5
    trust_paths: bool = False

    @property
    def masks(self) -> MaskOptions:
        """Options for reading mask images."""
        return MaskOptions(self.objects, self.mask_threshold)


def open_dataset(
    path: str | os.PathLike[str],
    layout: Layout | None = None,
    *,
    objects: Objects = "auto",
    mask_threshold: float = 0.5,
    trust_paths: bool = False,
) -> Dataset:
    """Open a dataset. Images and masks are read on demand.

    Args:
        path: a folder, a COCO or LVIS file, a data.yaml of YOLO, a tar file, or a pattern of tar files.
        layout: the layout: "sa1b" (`Sa1bFolder`), "labelme" (`LabelMeFolder`), "coco" (`CocoDataset`), "yolo"
            (`YoloFolder`), "masks" (`MaskFolder`), "videos" (`VideoFrames`) or "shards" (`TarShards`). By default, it
            is detected. These classes have further options.
        objects: the objects of mask images: each label except 0 ("labels"), the "foreground" as one object, each
            connected component of it ("parts"), or "auto", which is "foreground" for images with soft edges
            (antialiased, JPEG), and "labels" otherwise. Other layouts ignore it.
        mask_threshold: threshold of foregrounds and soft edges, as a share of the highest value of an image.
        trust_paths: allow paths in the file of a dataset that leave its folders, such as ../a.jpg.

    Raises:
        DataError: the path does not exist, has no known layout (the message lists the layouts and what was found),
            holds several datasets, or is empty.
        ConfigError: there is no such layout or kind of objects, or the threshold is out of range.
    """
    options = DataOptions(objects, mask_threshold, trust_paths)
    MaskOptions(objects, mask_threshold)  # validates them for every layout
    check(
        layout is None or layout in get_args(Layout),
        f"layout must be one of {', '.join(get_args(Layout))}, got {layout!r}.",
    )
    if layout is None:
        layout = _recognize(Path(path))
    return _OPENERS[layout](Path(path), options)


def open_images(
    path: str | os.PathLike[str],
    *,
    objects: Objects = "auto",
    mask_threshold: float = 0.5,
    trust_paths: bool = False,
) -> Dataset:
    """Open a dataset, or a folder of images without masks. Arguments are those of `open_dataset`.

    Raises:
        DataError: as for `open_dataset`, but every folder with images is accepted.
    """
    folder = Path(path)
    with path_errors(folder, DataError):
        is_folder = folder.is_dir()
    if is_folder and entries(folder) and _layout_of_folder(folder) is None:
        return ImageFolder(folder)
    return open_dataset(folder, objects=objects, mask_threshold=mask_threshold, trust_paths=trust_paths)


def _recognize(path: Path) -> Layout:
    with path_errors(path, DataError):
        if path.is_dir():
            return _recognize_folder(path)
        if path.suffix.lower() == ".json":
            return "coco"
        if path.suffix.lower() in (".yaml", ".yml"):
            return "yolo"
        if path.name.lower().endswith((".tar", ".tar.gz", ".tgz")) or any(mark in str(path) for mark in "{*?"):
            return "shards"
        if not path.exists():
            raise DataError(f"There is no {path}. Check the path.")
    raise DataError(f"{path} is no dataset. Looked for:\n{LOOKED_FOR}")


def _recognize_folder(folder: Path) -> Layout:
    found = entries(folder)
    if not found:
        raise DataError(f"The folder {folder} is empty.")
    layout = _layout_of_folder(folder)
    if layout is not None:
        return layout
    shown = ", ".join(entry.name + "/" * entry.is_dir() for entry in found[:ENTRIES_SHOWN])
    more = f" and {len(found) - ENTRIES_SHOWN} more" if len(found) > ENTRIES_SHOWN else ""
    raise DataError(f"{folder} is of no known layout. It holds {shown}{more}. Looked for:\n{LOOKED_FOR}")


def _layout_of_folder(folder: Path) -> Layout | None:
    """Return the first layout whose test a folder passes; it may pass several."""
    tests: list[tuple[Layout, Callable[[Path], object]]] = [
        ("shards", lambda root: any(entry.suffix.lower() == ".tar" for entry in entries(root))),
        ("videos", has_frame_folders),
        ("yolo", has_yolo_labels),
        ("masks", _has_masks),
        # Before COCO: a folder of images with a JSON file each may be called annotations as well.
        ("labelme", lambda root: _has_image_with_json(root) and is_labelme(files_below(root, {".json"}))),
        ("sa1b", _has_image_with_json),
        ("videos", masklet_files),
        ("coco", _coco_files),
    ]
    return next((layout for layout, is_layout in tests if is_layout(folder)), None)


def _has_masks(folder: Path) -> bool:
    names = {entry.name.lower() for entry in entries(folder) if entry.is_dir()}
    has_both = bool(names & set(IMAGE_FOLDERS) and names & set(MASK_FOLDERS))
    return has_both and not _json_files(folder / "annotations")


def _has_image_with_json(folder: Path) -> bool:
    """Whether any JSON file below the folder has the name of an image."""
    suffixes = readable_suffixes()
    images: set[str] = set()
    records: set[str] = set()
    for file in walk_files(folder):
        if file.suffix.lower() == ".json":
            records.add(file.stem)
        elif file.suffix.lower() in suffixes:
            images.add(file.stem)
        else:
            continue
        if file.stem in images and file.stem in records:
            return True
    return False


def _coco_files(folder: Path) -> list[Path]:
    """Return the JSON files that may have masks: not those of captions and keypoints, if there are others."""
    files = _json_files(folder / "annotations") or _json_files(folder)
    return [file for file in files if file.stem.startswith(("instances", "lvis"))] or files


def _json_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [file for file in entries(folder) if file.suffix.lower() == ".json" and file.is_file()]


def _open_coco(path: Path, options: DataOptions) -> CocoDataset:
    if not path.is_dir():
        return CocoDataset(path, trust_paths=options.trust_paths)
    files = _coco_files(path)
    if not files:
        raise DataError(f"{path} has no .json file, nor has a folder annotations in it.")
    if len(files) > 1:
        raise DataError(f"{path} holds several datasets: give one of {', '.join(str(file) for file in files)}.")
    return CocoDataset(files[0], trust_paths=options.trust_paths)


_OPENERS: dict[Layout, Callable[[Path, DataOptions], Dataset]] = {
    "sa1b": lambda path, _: Sa1bFolder(path),
    "labelme": lambda path, _: LabelMeFolder(path),
    "coco": _open_coco,
    "yolo": lambda path, _: YoloFolder(path),
    "masks": lambda path, options: MaskFolder(path, options.objects, mask_threshold=options.mask_threshold),
    "videos": lambda path, options: VideoFrames(path, masks=options.masks),
    "shards": lambda path, options: TarShards(path, options.objects, mask_threshold=options.mask_threshold),
}
