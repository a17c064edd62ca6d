"""Opening a dataset of any layout."""

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
    """How datasets are read, as `open_dataset` takes it.

    Attributes:
        objects, mask_threshold: as of `MaskOptions`.
        trust_paths: as for `CocoDataset`.
    """

    objects: Objects = "auto"
    mask_threshold: float = 0.5
    trust_paths: bool = False

    @property
    def masks(self) -> MaskOptions:
        """How images of masks are read."""
        return MaskOptions(self.objects, self.mask_threshold)


def open_dataset(
    path: str | os.PathLike[str],
    layout: Layout | None = None,
    *,
    objects: Objects = "auto",
    mask_threshold: float = 0.5,
    trust_paths: bool = False,
) -> Dataset:
    """Open a dataset. Files are found, but images and masks are only read when they are asked for.

    Args:
        path: a folder, a COCO or LVIS file, a data.yaml of YOLO, a tar file, or a pattern of tar files.
        layout: how it is laid out, where that is not to be found out: "sa1b" (`Sa1bFolder`), "labelme"
            (`LabelMeFolder`), "coco" (`CocoDataset`), "yolo" (`YoloFolder`), "masks" (`MaskFolder`), "videos"
            (`VideoFrames`) or "shards" (`TarShards`). These classes have options of their own.
        objects: what is an object in images of masks: each value but 0 ("labels"), the whole "foreground", each
            connected part of it ("parts"), or "auto": the foreground where edges are soft (antialiased, JPEG), and
            labels otherwise. Other layouts do not use it.
        mask_threshold: where foregrounds and soft edges are cut, as a share of the highest value of an image.
        trust_paths: read images that the file of a dataset names outside of its folders, such as ../a.jpg.

    Raises:
        DataError: there is no such path, it is of no known layout, which says what was looked for and what is
            there, it holds several datasets, or it is empty.
        ConfigError: there is no such layout or kind of objects, or the threshold is out of range.
    """
    options = DataOptions(objects, mask_threshold, trust_paths)
    MaskOptions(objects, mask_threshold)  # for its checks, whatever the layout
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
    """Open what `open_dataset` does, or a folder of images alone: for what needs no masks. Arguments as there.

    Raises:
        DataError: as for `open_dataset`, but any folder with images will do.
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
    """The first layout that a folder has; some have the marks of several."""
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
    """Whether any JSON file has an image of its name, in the folders below."""
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
    """Those that may be COCO's: of captions and keypoints there are others, without masks."""
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
