"""Datasets of videos in the layouts of DAVIS, YouTube-VOS and SA-V."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePath

import numpy as np

from segany.core.errors import DataError, VideoError
from segany.core.files import read_text
from segany.core.instances import Instances
from segany.data.annotations import read_json
from segany.data.folders import (
    by_stem,
    check_folder,
    check_not_empty,
    check_size,
    entries,
    files_below,
    find_path,
    name_of,
    nfc,
    stem_key,
    subfolders,
)
from segany.data.formats.mask_image import MaskOptions
from segany.data.item import AnnotatedImage
from segany.data.video import AnnotatedVideo, LabelMapVideo, MaskletVideo, ObjectMaskVideo
from segany.imaging.frames.images import images_in

FRAME_FOLDERS = ("JPEGImages_24fps", "JPEGImages")
MASK_FOLDERS = ("Annotations_6fps", "Annotations")
"""Names of the folders of frames and of masks: first those of SA-V, then those of DAVIS and YouTube-VOS."""

RESOLUTIONS = ("480p", "Full-Resolution")
"""Folders of the resolutions of DAVIS; the first that exists is used. Its benchmark uses 480p."""

SPLIT_FOLDERS = ("train", "valid", "test")
"""Folders of the splits of YouTube-VOS, each with frames, masks and meta.json."""

MASKLET_ENDINGS = ("_manual", "_auto")
"""Suffixes of the two masklet files of a video in SA-V; the first that exists is used."""


def read_video_dataset(
    folder: str | os.PathLike[str], split: str | None = None, masks: MaskOptions | None = None
) -> list[AnnotatedVideo]:
    """Find the annotated videos of a dataset, sorted by name. Frames and masks are read on demand.

    Args:
        folder: the folder of DAVIS or YouTube-VOS (JPEGImages and Annotations, with or without a folder for the
            resolution), of SA-V validation or test (JPEGImages_24fps and Annotations_6fps), or of SA-V training
            (videos and `*_manual.json` or `*_auto.json`, at any depth).
        split: one of `video_splits`, such as "val"; None for all videos.
        masks: options for reading mask images.

    Raises:
        DataError: the folder has none of these layouts or no such split, is empty, a masklet file is damaged, or masks
            belong to no frame.
    """
    root = Path(folder)
    check_folder(root)
    if split is not None:
        return _read_split(root, split, masks)
    parts = [name for name in SPLIT_FOLDERS if has_frame_folders(root / name)]
    if parts and not has_frame_folders(root):
        raise DataError(f"{root} holds the splits {', '.join(parts)}. Say which one.")
    if not has_frame_folders(root) and not masklet_files(root):
        raise DataError(
            f"{root} is no dataset of videos. Looked for JPEGImages and Annotations (DAVIS), JPEGImages_24fps and "
            f"Annotations_6fps (SA-V), and *_manual.json or *_auto.json beside videos; found "
            f"{', '.join(entry.name for entry in entries(root)[:10]) or 'nothing'}."
        )
    videos = _folder_videos(root, masks) if has_frame_folders(root) else _masklet_videos(root)
    check_not_empty(len(videos), root, "annotated videos")
    return videos


def video_splits(folder: str | os.PathLike[str]) -> dict[str, tuple[str, ...] | None]:
    """Return the splits of a video dataset by name.

    DAVIS lists their videos in ImageSets/2017/val.txt and train.txt, SA-V in sav_val.txt and sav_test.txt. YouTube-VOS
    has the folders train, valid and test, whose meta.json lists the videos.

    Returns:
        The names of the videos of each split; None for a split that is a folder.

    Raises:
        DataError: a list cannot be read.
    """
    root = Path(folder)
    lists = {path.stem.removeprefix("sav_"): path for path in sorted(root.glob("sav_*.txt"))}
    for year in ("2017", "2016"):
        if not lists:
            lists = {path.stem: path for path in sorted((root / "ImageSets" / year).glob("*.txt"))}
    splits: dict[str, tuple[str, ...] | None] = {name: _read_list(path) for name, path in lists.items()}
    return splits | {name: None for name in SPLIT_FOLDERS if has_frame_folders(root / name)}


def default_split(folder: str | os.PathLike[str]) -> str | None:
    """Return the default split for evaluation: the validation set, or else the first one; None without splits."""
    splits = list(video_splits(folder))
    return next((name for name in ("val", "valid", *splits[:1]) if name in splits), None)


def _read_split(root: Path, split: str, masks: MaskOptions | None) -> list[AnnotatedVideo]:
    splits = video_splits(root)
    if split not in splits:
        known = f"It has {', '.join(splits)}." if splits else "It has none."
        raise DataError(f"{root} has no split {split!r}. {known}")
    names = splits[split]
    if names is None:
        return read_video_dataset(root / split, masks=masks)
    by_name = {nfc(video.name): video for video in read_video_dataset(root, masks=masks)}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise DataError(f"{len(missing)} videos of the split {split!r} are not in {root}, such as {missing[0]}.")
    return [by_name[name] for name in sorted(set(names))]


def _read_list(path: Path) -> tuple[str, ...]:
    """Read a list with one name of a video per line."""
    lines = read_text(path, DataError).splitlines()
    return tuple(nfc(line.strip()) for line in lines if line.strip())


class VideoFrames:
    """A `Dataset` of the annotated frames of all videos of a dataset, as single images.

    Frames of one video are similar. Keep them in the same set with `split_by_name(by_folder=True)`.
    """

    def __init__(
        self, folder: str | os.PathLike[str], split: str | None = None, masks: MaskOptions | None = None
    ) -> None:
        """Find the videos; arguments and errors are those of `read_video_dataset`."""
        self.videos = read_video_dataset(folder, split, masks)
        self._items = [(video, frame) for video in self.videos for frame in video.annotated]
        self.names = tuple(f"{video.name}/{video.frame_name(frame)}" for video, frame in self._items)

    def __len__(self) -> int:
        return len(self._items)

    def read(self, index: int) -> AnnotatedImage:
        """See `Dataset`."""
        video, frame = self._items[index]
        masks = video.masks(frame)
        image = video.read_frame(frame)
        for mask in masks.values():
            check_size(image, (mask["size"][0], mask["size"][1]), self.names[index])
        instances = Instances.from_rles(
            masks.values(), (image.shape[0], image.shape[1]), object_ids=np.array(list(masks), dtype=np.int64)
        )
        return AnnotatedImage(self.names[index], image, instances)


def has_frame_folders(root: Path) -> bool:
    """Whether a folder contains a folder of frames and a folder of masks, as in DAVIS and SA-V."""
    return _first_of(root, FRAME_FOLDERS) is not None and _first_of(root, MASK_FOLDERS) is not None


def masklet_files(root: Path) -> dict[str, Path]:
    """Find the masklet files below a folder, one for each video, by the name of the video."""
    found: dict[str, Path] = {}
    for ending in MASKLET_ENDINGS:
        for path in files_below(root, {".json"}):
            if path.stem.endswith(ending):
                found.setdefault(name_of(path, root).removesuffix(ending), path)
    return dict(sorted(found.items()))


def _masklet_videos(root: Path) -> list[AnnotatedVideo]:
    videos: list[AnnotatedVideo] = []
    for name, record in masklet_files(root).items():
        title = record.stem.rsplit("_", 1)[0]
        file, folder = (find_path(record.parent, PurePath(name)) for name in (f"{title}.mp4", title))
        is_folder = folder is not None and folder.is_dir()
        frames = images_in(folder) if folder is not None and is_folder else file or record.with_name(f"{title}.mp4")
        if not isinstance(frames, Path):
            by_stem(frames)
        videos.append(MaskletVideo(name, frames, record))
    return videos


def _folder_videos(root: Path, options: MaskOptions | None) -> list[AnnotatedVideo]:
    frame_root, mask_root = _first_of(root, FRAME_FOLDERS), _first_of(root, MASK_FOLDERS)
    assert frame_root is not None
    assert mask_root is not None
    frame_root, mask_root = _at_resolution(frame_root), _at_resolution(mask_root)
    videos: list[AnnotatedVideo] = []
    listed = _listed_in_meta(root)
    for masks in subfolders(mask_root):
        if listed is not None and nfc(masks.name) not in listed:
            continue
        folder = find_path(frame_root, PurePath(masks.name)) or frame_root / masks.name
        try:
            frames = images_in(folder)
        except VideoError as error:
            raise DataError(f"The video {masks.name} has masks but no frames. {error}") from error
        by_stem(frames)  # raises if two frames have the same name, since masks could belong to either
        number_of = {stem_key(frame): number for number, frame in enumerate(frames)}
        objects = subfolders(masks)
        if objects:
            mask_files: dict[int, dict[int, Path]] = {}
            for object_id, object_folder in _numbered(objects):
                for frame, file in _mask_files(object_folder, number_of):
                    mask_files.setdefault(frame, {})[object_id] = file
            videos.append(ObjectMaskVideo(masks.name, frames, mask_files, options))
        else:
            videos.append(LabelMapVideo(masks.name, frames, dict(_mask_files(masks, number_of)), options))
    return [video for video in videos if video.annotated]


def _listed_in_meta(root: Path) -> set[str] | None:
    """Return the names of the videos in the meta.json of YouTube-VOS; None without such a file."""
    path = root / "meta.json"
    if not path.is_file():
        return None
    record = read_json(path)
    videos = record.get("videos") if isinstance(record, dict) else None
    if not isinstance(videos, dict):
        raise DataError(f'{path} is no meta.json of YouTube-VOS: that has "videos" by name.')
    return {nfc(name) for name in videos}


def _mask_files(folder: Path, number_of: dict[str, int]) -> Iterator[tuple[int, Path]]:
    """Yield the mask images of a folder with the numbers of their frames."""
    for file in files_below(folder, {".png"}):
        if stem_key(file) not in number_of:
            raise DataError(f"{file} belongs to no frame: there is none of the name {file.stem}.")
        yield number_of[stem_key(file)], file


def _numbered(folders: list[Path]) -> Iterator[tuple[int, Path]]:
    """Yield the folders of objects with the object ids that are their names; 000 is valid."""
    for folder in folders:
        if not folder.name.isdecimal():
            raise DataError(f"{folder} is no folder of an object: its name is no number.")
        yield int(folder.name), folder


def _at_resolution(root: Path) -> Path:
    return _first_of(root, RESOLUTIONS) or root


def _first_of(root: Path, names: tuple[str, ...]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)
