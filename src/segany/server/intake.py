"""Images into a project: files and folders that a person named, and uploads. Each is decoded before it is added."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from segany.core.errors import ImageError, OutputError, SeganyError
from segany.core.files import path_errors, read_file
from segany.core.progress import Cancellation
from segany.data.folders import images_below, printable
from segany.imaging.image import missing_image, read_image
from segany.server.pictures import media_type_of
from segany.store import NewItem, Root, Store

MAX_UPLOAD = 512 << 20
"""Bytes of an uploaded image."""

MAX_FILES = 1000
"""Files of a request. What parses forms refuses more, before the route is called."""

BATCH = 64
"""Images that are added at a time."""


@dataclass(frozen=True)
class NamedFile:
    """An image file to add, and the folder its name is relative to."""

    folder: Path
    file: Path

    @property
    def name(self) -> str:
        return printable(self.file.relative_to(self.folder).as_posix())


def find_files(paths: Sequence[Path], project: Path) -> list[NamedFile]:
    """The image files that paths stand for: a file itself, a folder those below it.

    Args:
        paths: files and folders.
        project: folder of the project, which has images of its own and may lie in one of the others.

    Raises:
        ImageError: a path is not there.
        DataError: a folder cannot be read.
    """
    found: dict[Path, NamedFile] = {}
    with path_errors(project, ImageError):
        project = project.resolve()
    for path in paths:
        with path_errors(path, ImageError):
            if not path.exists():
                raise missing_image(path)
            place = path.resolve()
            is_folder = place.is_dir()
        for file in images_below(place) if is_folder else [place]:
            if not file.is_relative_to(project):
                found.setdefault(file, NamedFile(place if is_folder else place.parent, file))
    return list(found.values())


def add_files(
    store: Store,
    files: Sequence[NamedFile],
    *,
    copy: bool = False,
    on_skipped: Callable[[str, str], None],
    on_added: Callable[[int], None],
    on_found: Callable[[int], None] = lambda _count: None,
    cancellation: Cancellation | None = None,
) -> None:
    """Add image files to a project, some at a time. Those that are there already are not read again.

    A file with the content of an image whose own file is missing is that image, which was moved.

    Args:
        store: the project.
        files: what `find_files` returned.
        copy: keep the bytes in the project, instead of a reference.
        on_skipped: is called with the name of a file that is not added, and the reason.
        on_added: is called with the number of images that were added, after each batch.
        on_found: is called with the number of images that were moved, if any, after each batch.
        cancellation: ends it between two batches.

    Raises:
        OutputError: the project cannot be written.
    """
    roots = {} if copy else _roots(store, {file.folder for file in files})
    known = {(item.root, item.path) for item in store.items.iterate() if item.root is not None} if roots else set()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1), "intake") as pool:
        for batch in _batches(files, BATCH):
            if cancellation is not None:
                cancellation.check()
            before = store.items.page(limit=0).total
            new = [file for file in batch if copy or _reference(roots[file.folder], file) not in known]
            results = pool.map(lambda file: _try(store, file, roots.get(file.folder)), new)
            good = []
            for file, result in zip(new, results, strict=True):
                if isinstance(result, NewItem):
                    good.append(result)
                else:
                    on_skipped(file.name, result)
            rest = good if copy else store.items.find_moved(good)
            if len(rest) < len(good):
                on_found(len(good) - len(rest))
            store.items.add(rest)
            on_added(store.items.page(limit=0).total - before)


def add_upload(store: Store, name: str, data: bytes) -> str:
    """Add an uploaded image, and return the item's id.

    Raises:
        ImageError: it is too large, or no image that can be read.
        DataError: the name cannot be that of an item.
    """
    if len(data) > MAX_UPLOAD:
        raise ImageError(f"{name} is too large: at most {MAX_UPLOAD >> 20} MB.")
    item = _checked(name, data)
    store.blobs.put(data, item.media_type, item.width, item.height)
    return store.items.add([item])[0]


def upload_name(name: str | None) -> str:
    """The name of an uploaded file, without folders: it is shown, and never a path."""
    return printable((name or "").replace("\\", "/").rpartition("/")[2]) or "image"


def _try(store: Store, file: NamedFile, root: Root | None) -> NewItem | str:
    try:
        with path_errors(file.file, ImageError):
            if root is not None and not file.file.resolve().is_relative_to(root.path):
                raise ImageError(f"{file.file} is a link that leads out of {root.path}.")
        data = read_file(file.file, ImageError)
        if root is None:
            item = _checked(file.name, data)
            store.blobs.put(data, item.media_type, item.width, item.height)
            return item
        return _checked(file.name, data, root.name, file.file.relative_to(root.path).as_posix())
    except OutputError:
        raise
    except (SeganyError, MemoryError) as error:
        return str(error) or "There is not enough memory for it."


def _checked(name: str, data: bytes, root: str | None = None, path: str | None = None) -> NewItem:
    """Decode an image, and describe it."""
    height, width = read_image(data, name=name).shape[:2]
    sha256 = hashlib.sha256(data).hexdigest()
    return NewItem(name, sha256, width, height, media_type_of(data), len(data), root, path)


def _roots(store: Store, folders: Iterable[Path]) -> dict[Path, Root]:
    """The root of each folder: one that has it already, or a new one."""
    roots = {}
    for folder in sorted(folders):
        known = store.items.roots()
        root = next((root for root in known if folder.is_relative_to(root.path)), None)
        if root is None:
            names = {root.name for root in known}
            base = printable(folder.name)[:80] or "images"
            name = next(name for name in _numbered(base) if name not in names)
            root = store.items.add_root(name, folder)
        roots[folder] = root
    return roots


def _numbered(base: str) -> Iterator[str]:
    yield base
    number = 2
    while True:
        yield f"{base} ({number})"
        number += 1


def _reference(root: Root, file: NamedFile) -> tuple[str, str]:
    return root.name, file.file.relative_to(root.path).as_posix()


def _batches(values: Sequence[NamedFile], size: int) -> Iterator[list[NamedFile]]:
    iterator = iter(values)
    while batch := list(islice(iterator, size)):
        yield batch
