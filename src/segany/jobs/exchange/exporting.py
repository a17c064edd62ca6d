"""Exporting the annotations of a project into one file, image by image."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segany.core.errors import ImageError, NotFoundError
from segany.core.files import replacing
from segany.core.instance import NO_ID, Category
from segany.core.instances import Instances
from segany.core.progress import Cancellation, ProgressCallback, report
from segany.jobs.exchange.importing import check_format
from segany.jobs.exchange.reading import ANNOTATION_ID, ISCROWD
from segany.jobs.exchange.writing import WRITERS, Archive, Exported, FileNames, Lost, unique_ids
from segany.store import Item, ItemFilter, ObjectState, Store, export_archive

_ORIENTATION = 0x0112  # tag of EXIF

_CHUNK = 1 << 20


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote.

    Attributes:
        file: the file.
        items: images in it.
        objects: objects of these images in the project.
        lost: what the format cannot hold, a sentence each with how many.
    """

    file: Path
    items: int
    objects: int
    lost: tuple[str, ...]


def export_annotations(
    store: Store,
    destination: str | Path,
    format: str,  # noqa: A002
    *,
    item_filter: ItemFilter | None = None,
    images: bool = False,
    progress: ProgressCallback | None = None,
    cancellation: Cancellation | None = None,
) -> ExportReport:
    """Write the annotations of a project into a zip archive.

    Args:
        store: the project.
        destination: the archive; a file there is replaced at the end.
        format: one of `ExchangeFormat`. The archive of a "project" is that of `export_archive`.
        item_filter: which images; all of them where None.
        images: whether the files of the images are in the archive too.
        progress: is told of every image.
        cancellation: ends the export, of which nothing is left then.

    Raises:
        DataError: there is no such format.
        OutputError: the archive cannot be written.
        CanceledError: it was canceled.
    """
    check_format(format)
    target = Path(destination)
    progress = cancellation.watch(progress) if cancellation else progress
    if format == "project":
        return _export_project(store, target, item_filter, progress)
    lost = Lost()
    total = store.items.page(item_filter, limit=0).total
    items = objects = 0
    labels = [Category(label.id, label.name) for label in store.labels.current().labels]
    used = _used_labels(store)
    with replacing(target) as temporary, zipfile.ZipFile(temporary, "w") as file:
        archive = Archive(file, target.parent)
        writer = WRITERS[format](archive, lost, labels, used)
        names = FileNames(by_stem=writer.by_stem)
        with contextlib.closing(writer):
            for item in store.items.iterate(item_filter):
                name = names.of(item.name, item.media_type)
                if name != item.name:
                    lost.add("Names of images, changed where they were taken or cannot be those of files")
                exported = _exported(item, name, store.annotations.objects(item.id), labels)
                writer.add(exported)
                if images:
                    _write_image(store, archive, item, f"{writer.image_folder}{name}", lost)
                items, objects = items + 1, objects + len(exported.instances)
                report(progress, "exporting", items, max(total, items), "images")
            writer.finish()
    return ExportReport(target, items, objects, lost.sentences)


def _export_project(
    store: Store, target: Path, item_filter: ItemFilter | None, progress: ProgressCallback | None
) -> ExportReport:
    export_archive(store, target, progress)
    items = list(store.items.iterate())
    is_filtered = item_filter is not None and item_filter != ItemFilter(order=item_filter.order)
    lost = ("The choice of images: an archive holds the whole project.",) if is_filtered else ()
    return ExportReport(target, len(items), sum(item.objects for item in items), lost)


def _used_labels(store: Store) -> set[int]:
    """The labels that are offered, and archived ones that objects have."""
    labels = store.labels.current().labels
    return {
        label.id
        for label in labels
        if not label.archived or store.items.page(ItemFilter(label_ids=(label.id,)), limit=0).total
    }


def _exported(item: Item, name: str, states: Sequence[ObjectState], labels: Sequence[Category]) -> Exported:
    known = {label.id for label in labels}
    ids = [_id(state.attributes.get(ANNOTATION_ID)) for state in states]
    instances = Instances(
        [state.counts for state in states],
        item.size_hw,
        boxes_xyxy=np.array([state.box_xyxy for state in states], dtype=np.float32).reshape(-1, 4),
        category_ids=np.array(
            [state.label_id if state.label_id in known else NO_ID for state in states], dtype=np.int64
        ),
        categories=labels,
        columns={
            "annotation_id": np.array(unique_ids(ids), dtype=np.int64),
            "iscrowd": np.array([bool(state.attributes.get(ISCROWD)) for state in states], dtype=np.bool_),
        },
    )
    attributes = [
        {key: value for key, value in state.attributes.items() if key not in (ANNOTATION_ID, ISCROWD)}
        for state in states
    ]
    return Exported(item, name, instances, ids, attributes)


def _id(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62 else NO_ID


def _write_image(store: Store, archive: Archive, item: Item, name: str, lost: Lost) -> None:
    try:
        source = store.items.file(item.id)
        with source.open("rb") as read, archive.open(name, is_packed=True) as write:
            while chunk := read.read(_CHUNK):
                write.write(chunk)
    except (ImageError, NotFoundError):
        lost.add("Images whose files were moved or changed, and are not in the archive")
        return
    if _is_turned(source):
        lost.add(
            "Images with an EXIF orientation: their masks are those of the upright image, and programs that ignore the "
            "orientation show them otherwise"
        )


def _is_turned(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return bool(image.getexif().get(_ORIENTATION, 1) != 1)
    except Exception:  # what Pillow cannot read has no orientation either
        return False
