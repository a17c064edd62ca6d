"""Automatic masks in Parquet: a folder of parts with a row for each image, in any file system of fsspec.

A part is written at once and never changed. The name of a part follows from its images and the settings, so that a part
which is written twice, because a worker was killed, is there once.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segany.core.errors import DataError, OutputError
from segany.core.extras import import_extra
from segany.core.instances import Instances
from segany.core.version import __version__
from segany.jobs.sources import filesystem_of

PARTS = "parts"
"""Folder of the parts, in the folder of the results."""

_MASK_COLUMNS = ("predicted_iou", "stability_score")


@dataclass(frozen=True, eq=False)
class ImageMasks:
    """A row: the automatic masks of an image and what they were made from.

    Attributes:
        url: path or URL of the image.
        version: state of the file in its storage; see `ImageUrl`.
        sha256: of the bytes of the file.
        model: identity of the model; see `ModelRef.identity`.
        settings: all settings that the masks depend on, as JSON.
        seconds: duration in the model.
        written_at: seconds since the epoch.
        instances: the masks, with the columns `predicted_iou`, `stability_score`, `point_xy`, `crop_box_xyxy`.
    """

    url: str
    version: str
    sha256: str
    model: str
    settings: str
    seconds: float
    written_at: float
    instances: Instances


def _arrow() -> Any:
    return import_extra("pyarrow", "Parquet needs PyArrow", "scale")


def schema() -> Any:
    """The schema of a part."""
    arrow = _arrow()
    box = arrow.list_(arrow.float32(), 4)
    mask = [
        ("counts", arrow.string()),
        ("box_xyxy", box),
        ("area", arrow.int64()),
        ("score", arrow.float32()),
        *((name, arrow.float32()) for name in _MASK_COLUMNS),
        ("point_xy", arrow.list_(arrow.float32(), 2)),
        ("crop_box_xyxy", box),
    ]
    columns = [
        *((name, arrow.string()) for name in ("url", "version", "sha256", "model", "settings")),
        ("height", arrow.int32()),
        ("width", arrow.int32()),
        ("seconds", arrow.float32()),
        ("written_at", arrow.float64()),
        ("segany", arrow.string()),
        ("masks", arrow.list_(arrow.struct(mask))),
    ]
    return arrow.schema(columns)


def write_part(folder: str, rows: Sequence[ImageMasks], names: Sequence[str]) -> None:
    """Write a part, unless there are no rows.

    Args:
        folder: path or URL of the results.
        rows: the images.
        names: URLs of the images that the part was made for, of which some may have failed. The name of the file
            follows from them and the settings.

    Raises:
        OutputError: it cannot be written.
    """
    if not rows:
        return
    arrow = _arrow()
    from pyarrow import parquet

    filesystem, root = filesystem_of(folder)
    digest = hashlib.sha256(json.dumps([rows[0].settings, *names]).encode()).hexdigest()[:32]
    target, temporary = (
        posixpath.join(root, PARTS, name) for name in (f"{digest}.parquet", f".{uuid.uuid4().hex}.tmp")
    )
    buffer = arrow.BufferOutputStream()
    parquet.write_table(arrow.Table.from_pylist([_row(one) for one in rows], schema()), buffer, compression="zstd")
    try:
        filesystem.makedirs(posixpath.dirname(target), exist_ok=True)
        filesystem.pipe_file(temporary, buffer.getvalue().to_pybytes())
        filesystem.mv(temporary, target)
    except Exception as error:  # each file system raises exceptions of its own
        raise OutputError(f"{folder} cannot be written: {type(error).__name__}: {error}") from error


def read_parts(folder: str) -> Iterator[ImageMasks]:
    """Read the newest result of each image and settings in a folder of results.

    Raises:
        DataError: a part cannot be read, or is none of segany's.
    """
    newest: dict[tuple[str, str], float] = {}
    for row in _rows(folder, ["url", "settings", "written_at"]):
        key = row["url"], row["settings"]
        newest[key] = max(row["written_at"], newest.get(key, 0.0))
    for row in _rows(folder, None):
        if newest.get((row["url"], row["settings"])) == row["written_at"]:
            del newest[row["url"], row["settings"]]
            yield _image_masks(row, folder)


def read_done(folder: str, settings: str) -> dict[str, tuple[str, str]]:
    """The images that are done with some settings: version and SHA-256 by URL. Masks are not read.

    Raises:
        DataError: a part cannot be read, or is none of segany's.
    """
    done: dict[str, tuple[float, str, str]] = {}
    for row in _rows(folder, ["url", "version", "sha256", "settings", "written_at"]):
        if row["settings"] == settings:
            found = row["written_at"], row["version"], row["sha256"]
            done[row["url"]] = max(found, done.get(row["url"], found))
    return {url: (version, sha256) for url, (_, version, sha256) in done.items()}


def _rows(folder: str, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    for table in _tables(folder, columns):
        yield from table.to_pylist()


def _tables(folder: str, columns: Sequence[str] | None) -> Iterator[Any]:
    arrow = _arrow()
    from pyarrow import parquet

    filesystem, root = filesystem_of(folder)
    parts = posixpath.join(root, PARTS)
    try:
        names = sorted(filesystem.ls(parts, detail=False)) if filesystem.exists(parts) else []
    except Exception as error:
        raise DataError(f"{folder} cannot be listed: {type(error).__name__}: {error}") from error
    for name in names:
        if not name.endswith(".parquet"):
            continue
        try:
            with filesystem.open(name, "rb") as file:
                yield parquet.read_table(file, columns=columns, schema=None if columns else schema())
        except (OSError, ValueError, TypeError, arrow.ArrowException) as error:
            raise DataError(
                f"{name} is damaged, or not written by segany: {str(error).splitlines()[0]}. Delete it: its images "
                "are done again."
            ) from error


def _row(one: ImageMasks) -> dict[str, Any]:
    instances = one.instances
    height, width = instances.size_hw
    names = (*_MASK_COLUMNS, "point_xy", "crop_box_xyxy")
    columns = {name: instances.columns[name].tolist() for name in names if name in instances.columns}
    masks = [
        {
            "counts": counts,
            "box_xyxy": box,
            "area": area,
            "score": score,
            **{name: values[number] for name, values in columns.items()},
        }
        for number, (counts, box, area, score) in enumerate(
            zip(
                instances.rle_counts,
                instances.boxes_xyxy.tolist(),
                instances.areas.tolist(),
                instances.scores.tolist(),
                strict=True,
            )
        )
    ]
    return {
        "url": one.url,
        "version": one.version,
        "sha256": one.sha256,
        "model": one.model,
        "settings": one.settings,
        "height": height,
        "width": width,
        "seconds": one.seconds,
        "written_at": one.written_at,
        "segany": __version__,
        "masks": masks,
    }


def _image_masks(row: Mapping[str, Any], folder: str) -> ImageMasks:
    masks = row["masks"] or []
    try:
        columns = {
            name: np.array([mask[name] for mask in masks], dtype=np.float32).reshape(len(masks), *shape)
            for name, shape in (*((name, ()) for name in _MASK_COLUMNS), ("point_xy", (2,)), ("crop_box_xyxy", (4,)))
            if all(mask[name] is not None for mask in masks)
        }
        instances = Instances(
            [mask["counts"] for mask in masks],
            (row["height"], row["width"]),
            boxes_xyxy=np.array([mask["box_xyxy"] for mask in masks], dtype=np.float32).reshape(-1, 4),
            scores=np.array([mask["score"] for mask in masks], dtype=np.float32),
            sources="automatic",
            columns=columns,
        )
        facts = {name: row[name] for name in ("url", "version", "sha256", "model", "settings", "seconds", "written_at")}
        return ImageMasks(**facts, instances=instances)
    except (KeyError, TypeError, ValueError) as error:  # includes InstancesError
        raise DataError(f"{folder} holds a damaged row of {str(row.get('url'))[:200]}: {error}") from error
