"""Importing annotations into a project. Doing it again, also after it was interrupted, changes nothing more."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
from PIL import Image

from segany.core.errors import ConflictError, DataError, ImageError, InstancesError
from segany.core.instance import Category
from segany.core.progress import Cancellation, ProgressCallback, report
from segany.core.rle import Rle, run_lengths
from segany.data.annotations import encode_runs
from segany.data.folders import nfc
from segany.data.formats.coco import NO_CLASS
from segany.imaging.image import decode_image
from segany.jobs.exchange.bundle import Bundle, Limits, SourceFile, opened
from segany.jobs.exchange.matching import ImageIndex, KnownImage, ProjectImages, match
from segany.jobs.exchange.reading import (
    Entry,
    Found,
    Reading,
    aliases,
    image_name,
    is_image,
    read_coco,
    read_labelme,
    read_sa1b,
    read_yolo,
)
from segany.jobs.exchange.reading_masks import read_label_maps
from segany.store import Change, Label, NewItem, ObjectState, Store, restore_into

ExchangeFormat: TypeAlias = Literal["coco", "yolo-seg", "labelme", "sa-1b", "label-maps", "project"]

_READERS: Mapping[str, Callable[[Bundle], Reading]] = {
    "coco": read_coco,
    "yolo-seg": read_yolo,
    "labelme": read_labelme,
    "sa-1b": read_sa1b,
    "label-maps": read_label_maps,
}

_AT_ONCE = 1000  # changes of a batch


@dataclass(frozen=True)
class Skipped:
    """Something that was not imported, or not as it was: what, and why."""

    name: str
    message: str


@dataclass(frozen=True)
class ImportReport:
    """What an import did.

    Attributes:
        items: images of the project that the files have annotations for, or that came with them.
        objects: objects of the files that the project has now, those of an earlier import of the same files included.
        skipped: all that was left out or changed.
    """

    items: int
    objects: int
    skipped: tuple[Skipped, ...]


def import_annotations(
    store: Store,
    source: str | Path | Sequence[SourceFile],
    format: str,  # noqa: A002
    *,
    author: str = "import",
    limits: Limits | None = None,
    progress: ProgressCallback | None = None,
    cancellation: Cancellation | None = None,
) -> ImportReport:
    """Add the annotations of files, and images that came with them, to a project.

    An image that came with the files is the one of the project with the same bytes, or is added. Other names are
    matched with the names in the project: whole paths first, then names without folders where only one image has it.
    Categories become the labels of the same names; an archived label is taken back into use. An object that the image
    has already, with the same mask and label, is not added again, and one that an earlier import added and somebody
    has changed or deleted since stays as it is.

    Args:
        store: the project.
        source: a file, or several: JSON, text and images, and zip archives of them.
        format: one of `ExchangeFormat`. An archive of a "project" is restored into an empty project.
        author: of the revisions.
        limits: how much is read at most.
        progress: is told of every image.
        cancellation: ends the import; what was imported until then stays.

    Raises:
        DataError: a file is missing or damaged, an archive is malicious, or there is nothing of the format in it.
        CanceledError: it was canceled.
    """
    check_format(format)
    sources = [SourceFile(Path(source).name, Path(source))] if isinstance(source, (str, Path)) else list(source)
    progress = cancellation.watch(progress) if cancellation else progress
    if format == "project":
        return _restore(store, sources, progress)
    with opened(sources, limits or Limits()) as bundle:
        reading = _READERS[format](bundle)
        if not reading.entries and not reading.used:
            raise DataError(f"{', '.join(one.name for one in sources)[:200]}: there is nothing of the format {format}.")
        return _Import(store, bundle, author, progress).run(reading)


def check_format(name: str) -> None:
    """Raise `DataError` where there is no such format."""
    if name not in get_args(ExchangeFormat):
        raise DataError(f"The format must be one of {', '.join(get_args(ExchangeFormat))}; got {name[:50]!r}.")


def _restore(store: Store, sources: Sequence[SourceFile], progress: ProgressCallback | None) -> ImportReport:
    if len(sources) != 1:
        raise DataError("An archive of a project is one file.")
    is_new = restore_into(store, sources[0].path, progress=progress)
    items = list(store.items.iterate())
    known = [] if is_new else [Skipped(sources[0].name, "The project has its images already. Nothing was changed.")]
    return ImportReport(len(items), sum(item.objects for item in items), tuple(known))


@dataclass
class _Import:
    """One import on its way."""

    store: Store
    bundle: Bundle
    author: str
    progress: ProgressCallback | None
    skipped: list[Skipped] = field(default_factory=list)

    def run(self, reading: Reading) -> ImportReport:
        self.skipped += [Skipped(name, message) for name, message in reading.skipped]
        self.project_id = uuid.UUID(self.store.project.id)
        self.labels = _LabelNames(self.store, self.author)
        pictures = [name for name in self.bundle.names if is_image(name) and name not in reading.used]
        total = len(pictures) + len(reading.entries)
        images = ProjectImages(self.store)
        given, items, objects = ImageIndex(), set[str](), 0
        for done, name in enumerate(pictures, start=1):
            known = self._add_image(name, images)
            if known is not None:
                items.add(known.item_id)
                for alias in aliases(name, self.bundle.top):
                    given.add(KnownImage(known.item_id, alias, known.size_hw))
            report(self.progress, "importing images", done, total, "images")
        self._tell_unused(reading, pictures)
        matched = match(reading.entries, given, images.by_name, self.bundle.top)
        self.skipped += [Skipped(name, message) for name, message in matched.skipped]
        for done, (entry, image) in enumerate(matched.pairs, start=len(pictures) + len(matched.skipped) + 1):
            objects += self._add_objects(entry, image)
            items.add(image.item_id)
            report(self.progress, "importing annotations", done, total, "images")
        self.skipped += self.labels.notes
        return ImportReport(len(items), objects, tuple(self.skipped))

    def _tell_unused(self, reading: Reading, pictures: Sequence[str]) -> None:
        unused = sorted(set(self.bundle.names) - reading.used - set(pictures))
        self.skipped += [Skipped(name, "It is no file of this format, and no image.") for name in unused]

    # Images.

    def _add_image(self, name: str, images: ProjectImages) -> KnownImage | None:
        """The item of an image that came with the files, made where there is none of the same bytes."""
        try:
            data = self.bundle.read(name)
            known = images.of_content(hashlib.sha256(data).hexdigest(), image_name(name))
            if known is not None:
                return known
            image = decode_image(data, name=name)
            (width, height), media_type = image.size, Image.MIME.get(image.format or "", "application/octet-stream")
            sha256 = hashlib.sha256(data).hexdigest()
            new = NewItem(image_name(name), sha256, width, height, media_type, len(data))
            if images.by_name.whole(new.name):
                self.skipped.append(Skipped(name, "The project has another image of this name. It was added beside."))
            self.store.blobs.put(data, media_type, width, height)
            (item_id,) = self.store.items.add([new])
            return images.add(self.store.items.get(item_id))
        except (ImageError, DataError) as error:
            self.skipped.append(Skipped(name, str(error)))
            return None

    # Objects.

    def _add_objects(self, entry: Entry, image: KnownImage) -> int:
        """Save the objects of an image, and return how many of the file it has now."""
        if entry.size_hw is not None and entry.size_hw != image.size_hw:
            (height, width), (own_height, own_width) = entry.size_hw, image.size_hw
            self.skipped.append(
                Skipped(
                    entry.image,
                    f"Its annotations in {entry.file} are for an image {width} wide and {height} high, but it is "
                    f"{own_width} wide and {own_height} high, shown upright.",
                )
            )
            return 0
        try:
            found = entry.read(image.size_hw)
            if found.instances.size_hw != image.size_hw:
                raise DataError(f"Its masks in {entry.file} are of another size.")  # noqa: TRY301
        except (DataError, InstancesError, ImageError) as error:
            self.skipped.append(Skipped(entry.image, str(error)))
            return 0
        left_out = Counter(found.left_out)
        changes, known = self._changes(image, found, left_out)
        batch = str(uuid.uuid5(self.project_id, f"import {image.item_id}"))
        for start in range(0, len(changes), _AT_ONCE):
            self.store.annotations.save(image.item_id, batch, changes[start : start + _AT_ONCE], self.author)
        self.skipped += [
            Skipped(entry.image, f"Left out, {what}: {count:,}.") for what, count in left_out.items() if count > 0
        ]
        return known + len(changes)

    def _changes(self, image: KnownImage, found: Found, left_out: Counter[str]) -> tuple[list[Change], int]:
        """What is to be saved, and how many objects the image has already."""
        states = self.store.annotations.objects(image.item_id, deleted=True)
        there = _Objects([state for state in states if not state.deleted], self.labels)
        ids, top = {state.id for state in states}, max((state.z for state in states), default=-1.0)
        seen: Counter[str] = Counter()
        changes: list[Change] = []
        known = 0
        for index, instance in enumerate(found.instances):
            counts, attributes = _canonical(instance.rle), found.attributes[index]
            name = None if instance.category is None else instance.category.name
            if counts is None:
                left_out["masks without a pixel"] += 1
                continue
            identity = json.dumps([counts, name, attributes], sort_keys=True)
            seen[identity] += 1
            if there.take(counts, name):
                known += 1
                continue
            digest = hashlib.sha256(identity.encode()).hexdigest()
            object_id = str(uuid.uuid5(self.project_id, f"{image.item_id} {digest} {seen[identity]}"))
            if object_id in ids:
                left_out["objects of an earlier import that were changed or deleted since, and stay as they are"] += 1
                continue
            try:
                changes.append(
                    Change(
                        object_id=object_id,
                        revision_id=str(uuid.uuid5(uuid.UUID(object_id), "imported")),
                        base_id=None,
                        counts=counts,
                        label_id=self.labels.id_of(name),
                        attributes=attributes,
                        z=top + 1 + index,
                        source="imported",
                    )
                )
            except DataError as error:
                left_out[f"objects that cannot be stored ({error})"] += 1
        return changes, known


class _Objects:
    """The objects of an image, each of which stands for one of a file at most."""

    def __init__(self, states: Sequence[ObjectState], labels: _LabelNames) -> None:
        self._by_mask: dict[str, list[str | None]] = defaultdict(list)
        for state in states:
            self._by_mask[state.counts].append(labels.name_of(state.label_id))

    def take(self, counts: str, name: str | None) -> bool:
        """Whether there is one of that mask and label that was not taken yet. None stands for any label."""
        names = self._by_mask.get(counts, [])
        wanted = None if name is None else nfc(name)
        # Formats that need a label call objects without one NO_CLASS.
        others = names if wanted is None else [None] if wanted == NO_CLASS else []
        for alike in (wanted, *others):
            if alike in names:
                names.remove(alike)
                return True
        return False


class _LabelNames:
    """The labels of the project by name, made or taken back into use when an object needs them."""

    def __init__(self, store: Store, author: str) -> None:
        self.store, self.author = store, author
        self.notes: list[Skipped] = []
        self._ids: dict[str, int | None] = {}
        self._names = {label.id: nfc(label.name) for label in store.labels.current().labels}

    def name_of(self, label_id: int | None) -> str | None:
        """The name of a label."""
        return None if label_id is None else self._names.get(label_id)

    def id_of(self, name: str | None) -> int | None:
        """The label of a name; None where there can be none of that name."""
        if name is None:
            return None
        key = nfc(name)
        if key not in self._ids:
            self._ids[key] = self._find(name, key)
        return self._ids[key]

    def _find(self, name: str, key: str) -> int | None:
        for _ in range(10):
            schema = self.store.labels.current()
            label = next((label for label in schema.labels if nfc(label.name) == key), None)
            if label is None:
                try:
                    label_id = self.store.labels.ensure([Category(0, name)], self.author)[0]
                except DataError as error:
                    self.notes.append(Skipped(name[:100], f"Its objects have no label: {error}"))
                    return None
                self._names[label_id] = key
                return label_id
            if not label.archived:
                return label.id
            taken = {other.hotkey for other in schema.labels if not other.archived}
            back = Label(
                label.id, label.name, label.color, None if label.hotkey in taken else label.hotkey, False,
                label.attributes,
            )  # fmt: skip
            try:
                self.store.labels.replace(
                    schema.version, [back if one is label else one for one in schema.labels], self.author
                )
            except ConflictError:  # somebody else changed the labels
                continue
            self.notes.append(Skipped(name, "The label was archived, and is in use again."))
            return label.id
        raise DataError("The labels are changed all the time by others. Import again.")


def _canonical(rle: Rle) -> str | None:
    """The run lengths of a mask in the one form that every other encoder gives; None for an empty mask."""
    lengths = run_lengths(rle)
    is_run = lengths > 0
    lengths, is_mask = lengths[is_run], np.flatnonzero(is_run) % 2 == 1
    if not is_mask.any():
        return None
    first = np.append(0, np.flatnonzero(is_mask[1:] != is_mask[:-1]) + 1)  # runs of nothing join their neighbors
    joined = np.add.reduceat(lengths, first)
    lengths = np.append(0, joined) if is_mask[0] else joined
    return encode_runs(lengths, (rle["size"][0], rle["size"][1]))["counts"]
