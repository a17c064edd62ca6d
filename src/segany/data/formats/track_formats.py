"""The files that tracks become besides pictures: SA-V and YouTube-VIS JSON, label pictures, NumPy arrays."""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from segany.core.arrays import BoolArray, SizeHW
from segany.core.errors import OutputError
from segany.core.rle import encode_masks
from segany.data.formats.tracks import TrackedMask, Tracks
from segany.imaging.frames import FrameSource

DEFAULT_FRAME_RATE = 24.0
"""Frames a second of what has no rate of its own, such as a folder of images; that of the SA-V dataset."""

SMALL_AREA, LARGE_AREA = 32**2, 96**2
"""Where SA-V divides masklets into small, medium and large, by their average area in pixels."""

MAX_LABEL = 255
"""The largest object id that fits into a picture with a palette."""

LABEL_PNG_COMPRESSION = 6
"""Of 9. Labels are so uniform that more effort costs little time."""


def frame_rate_of(source: FrameSource) -> float:
    """Frames a second, of a source that may have no rate of its own."""
    return source.frame_rate or DEFAULT_FRAME_RATE


def to_sav(tracks: Tracks, source: FrameSource, name: str, prompted: Mapping[int, int]) -> dict[str, Any]:
    """What an annotation file of the SA-V dataset holds, field for field where it can be known.

    `masklet` has an entry for every frame of the video and not for every fourth as in the dataset. Frames
    without results hold empty masks; `masklet_frame_count` tells how many have results. `video_environment`
    and `video_split` are left out, and the stability scores are those of automatic masklets only.

    Args:
        tracks: the masks.
        source: the video.
        name: of the video.
        prompted: how many frames each object has prompts on.
    """
    ids = tracks.object_ids
    length = _length(tracks, source)
    height, width = tracks.size_hw
    masklets = [tracks.of_object(object_id, range(length)) for object_id in ids]
    empty = encode_masks(np.zeros((1, height, width), dtype=np.bool_))[0]
    sizes = [_mean_area(masklet) for masklet in masklets]
    return {
        "video_id": name,
        "video_duration": length / frame_rate_of(source),
        "video_frame_count": float(length),
        "video_height": float(height),
        "video_width": float(width),
        "video_resolution": float(height * width),
        "masklet": [[item.rle if item else empty for item in frame] for frame in zip(*masklets, strict=True)],
        "masklet_id": ids,
        "masklet_size_rel": [size / (height * width) for size in sizes],
        "masklet_size_abs": sizes,
        "masklet_size_bucket": [_bucket(size) for size in sizes],
        "masklet_visibility_changes": [_visibility_changes(masklet) for masklet in masklets],
        "masklet_first_appeared_frame": [_first_visible(masklet) for masklet in masklets],
        "masklet_frame_count": [sum(item is not None for item in masklet) for masklet in masklets],
        "masklet_edited_frame_count": [prompted.get(object_id, 0) for object_id in ids],
        "masklet_type": ["manual"] * len(ids),
        "masklet_stability_score": None,
        "masklet_num": len(ids),
    }


def to_coco_video(tracks: Tracks, source: FrameSource, name: str) -> dict[str, Any]:
    """A video in the form of YouTube-VIS: one annotation an object, with a list over all frames of the video.

    Where an object is not visible or has no result, its mask, box and area are null. `scores` are the logits
    of the object being visible, null without a result.
    """
    length = _length(tracks, source)
    height, width = tracks.size_hw
    annotations = []
    for number, object_id in enumerate(tracks.object_ids, start=1):
        items = tracks.of_object(object_id, range(length))
        visible = [item if item and item.area else None for item in items]
        annotations.append(
            {
                "id": number,
                "video_id": 1,
                "category_id": 1,
                "object": object_id,
                "iscrowd": 0,
                "height": height,
                "width": width,
                "length": length,
                "segmentations": [item.rle if item else None for item in visible],
                "bboxes": [item.bbox_xywh if item else None for item in visible],
                "areas": [item.area if item else None for item in visible],
                "scores": [item.score if item else None for item in items],
            }
        )
    video = {
        "id": 1,
        "width": width,
        "height": height,
        "length": length,
        "file_names": [f"{name}/{source.frame_name(frame)}.jpg" for frame in range(length)],
    }
    return {
        "info": {"description": "Masks made with segany"},
        "videos": [video],
        "categories": [{"id": 1, "name": "object", "supercategory": "object"}],
        "annotations": annotations,
    }


def label_png(objects: Mapping[int, TrackedMask], size_hw: SizeHW) -> bytes:
    """A PNG with the palette of DAVIS in which a pixel is the id of its object, and 0 where there is none.

    Where objects overlap the one with the higher score has the pixel; of equal ones the one with the higher id.

    Raises:
        OutputError: an object id is not 1 to 255.
    """
    check_labels(objects)
    labels = np.zeros(size_hw, dtype=np.uint8)
    for object_id, item in sorted(objects.items(), key=lambda pair: (pair[1].score, pair[0])):
        labels[item.mask] = object_id
    picture = Image.fromarray(labels)
    picture.putpalette(davis_palette().tobytes())  # makes it a picture of indices
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=LABEL_PNG_COMPRESSION)
    return buffer.getvalue()


def check_labels(object_ids: Iterable[int]) -> None:
    """Raise `OutputError` where an object id does not fit into a picture with a palette."""
    for object_id in object_ids:
        if not 0 < object_id <= MAX_LABEL:
            raise OutputError(
                f"masks-png holds object ids from 1 to {MAX_LABEL}, and one is {object_id}. Choose other ids, or "
                "another format, such as sav."
            )


def davis_palette() -> npt.NDArray[np.uint8]:
    """uint8 [256, 3], the colors of the DAVIS and PASCAL VOC datasets.

    The bits of the index in threes, lowest first, are the bits of red, green and blue, highest first.
    """
    index = np.arange(256)[:, None]
    channel = np.arange(3)[None]
    colors = sum(((index >> (3 * place + channel)) & 1) << (7 - place) for place in range(3))
    return np.asarray(colors, dtype=np.uint8)


def write_npz(tracks: Tracks, path: Path) -> None:
    """Write a NumPy archive, a frame at a time: dense masks of a whole video may not fit into memory.

    Holds `frames` int64 [T], `object_ids` int64 [O], `scores` float32 [T, O] (NaN where an object has no
    result) and `masks` bool [T, O, H, W].
    """
    frames, ids = tracks.frames, tracks.object_ids
    found = [tracks.of_object(object_id, frames) for object_id in ids]
    scores = np.array([[item.score if item else np.nan for item in row] for row in found], dtype=np.float32)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        arrays = {"frames": np.array(frames, np.int64), "object_ids": np.array(ids, np.int64), "scores": scores.T}
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
        header = {"descr": "|b1", "fortran_order": False, "shape": (len(frames), len(ids), *tracks.size_hw)}
        with archive.open("masks.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for frame in frames:
                file.write(_all_masks(tracks, frame, ids).tobytes())


def _all_masks(tracks: Tracks, frame: int, ids: list[int]) -> BoolArray:
    """bool [O, H, W], the masks of these objects, empty where there is no result."""
    masks = np.zeros((len(ids), *tracks.size_hw), dtype=np.bool_)
    for object_id, item in tracks.objects(frame).items():
        masks[ids.index(object_id)] = item.mask
    return masks


def _length(tracks: Tracks, source: FrameSource) -> int:
    """Frames of the video, as far as is known."""
    return max(source.count or 0, *(frame + 1 for frame in tracks.frames[-1:]), 0)


def _mean_area(masklet: list[TrackedMask | None]) -> float:
    areas = [item.area for item in masklet if item and item.area]
    return sum(areas) / len(areas) if areas else 0.0


def _bucket(area: float) -> str:
    if area < SMALL_AREA:
        return "small"
    return "medium" if area < LARGE_AREA else "large"


def _visibility_changes(masklet: list[TrackedMask | None]) -> int:
    """How often the object comes and goes after it first appeared, in the frames that have results."""
    visible = [item.area > 0 for item in masklet if item]
    since = visible[visible.index(True) :] if True in visible else []
    return sum(one != other for one, other in itertools.pairwise(since))


def _first_visible(masklet: list[TrackedMask | None]) -> int:
    """The first frame with some of the object; 0 where there is none."""
    return next((frame for frame, item in enumerate(masklet) if item and item.area), 0)
