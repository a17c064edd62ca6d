"""Which image of the project a name in a file stands for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from segany.core.arrays import SizeHW
from segany.jobs.exchange.reading import Entry, aliases, same_name, stem_of
from segany.store import Item, Store


@dataclass(frozen=True)
class KnownImage:
    """An image of the project, under one of its names."""

    item_id: str
    name: str
    size_hw: SizeHW


class ImageIndex:
    """Images by their names: with folders or without, with ending or without, in any form of Unicode."""

    def __init__(self, images: Iterable[KnownImage] = ()) -> None:
        self._whole: dict[str, list[KnownImage]] = defaultdict(list)
        self._base: dict[str, list[KnownImage]] = defaultdict(list)
        for image in images:
            self.add(image)

    def add(self, image: KnownImage) -> None:
        """Add an image, which may have other names already."""
        key = same_name(image.name)
        for name in {key, stem_of(key)}:
            for names, part in ((self._whole, name), (self._base, name.rpartition("/")[2])):
                if all(known.item_id != image.item_id for known in names[part]):
                    names[part].append(image)

    def whole(self, name: str) -> Sequence[KnownImage]:
        """The images of a name with all its folders."""
        return self._whole.get(same_name(name), ())

    def base(self, name: str) -> Sequence[KnownImage]:
        """The images of a name, whatever the folders."""
        return self._base.get(same_name(name).rpartition("/")[2], ())


class ProjectImages:
    """The images of a project by name and by content."""

    def __init__(self, store: Store) -> None:
        self.by_name = ImageIndex()
        self._by_content: dict[str, list[KnownImage]] = defaultdict(list)
        for item in store.items.iterate():
            self.add(item)

    def add(self, item: Item) -> KnownImage:
        """Add an item."""
        known = KnownImage(item.id, item.name, item.size_hw)
        self.by_name.add(known)
        if all(other.item_id != item.id for other in self._by_content[item.sha256]):
            self._by_content[item.sha256].append(known)
        return known

    def of_content(self, sha256: str, name: str) -> KnownImage | None:
        """The image of some bytes; of several, the one whose name is most alike."""
        found = self._by_content.get(sha256, ())
        key = same_name(name)
        base = key.rpartition("/")[2]

        def likeness(image: KnownImage) -> tuple[bool, bool]:
            other = same_name(image.name)
            return other == key, other.rpartition("/")[2] == base

        return max(found, key=likeness, default=None)


@dataclass(frozen=True)
class Matched:
    """What became of the entries: the image of each, and why others have none."""

    pairs: list[tuple[Entry, KnownImage]]
    skipped: list[tuple[str, str]]


def match(entries: Sequence[Entry], given: ImageIndex, project: ImageIndex, top: str = "") -> Matched:
    """Find the image of each entry: by its whole name, or by its name without folders where only one has it.

    Args:
        entries: what the files say.
        given: images that came with the files, by their names there. They come first.
        project: all images of the project.
        top: the folder that all files are in, which the names of images may have or not.
    """
    pairs, skipped = [], []
    by_base: dict[str, list[tuple[Entry, KnownImage]]] = defaultdict(list)
    taken: set[str] = set()
    for entry in entries:
        image, reason, is_whole = _find(entry, given, project, top)
        if image is None:
            skipped.append((entry.image, reason))
        elif is_whole:
            pairs.append((entry, image))
            taken.add(image.item_id)
        else:
            by_base[image.item_id].append((entry, image))
    for item_id, group in by_base.items():
        names = {entry.image for entry, _ in group}
        if item_id not in taken and len(names) == 1:
            pairs += group
        else:
            skipped += [
                (entry.image, f"It could be {image.name!r}, but so could another image of the files.")
                for entry, image in group
            ]
    return Matched(pairs, skipped)


def _find(entry: Entry, given: ImageIndex, project: ImageIndex, top: str) -> tuple[KnownImage | None, str, bool]:
    """The image of an entry, or why there is none; and whether its whole name was found."""
    reason = "The project has no image of this name."
    for is_whole in (True, False):
        for name in aliases(entry.image, top) if is_whole else [entry.image]:
            for index in (given, project):
                found = _of_size(index.whole(name) if is_whole else index.base(name), entry.size_hw)
                if len(found) == 1:
                    return found[0], "", is_whole
                if found:
                    names = ", ".join(sorted({repr(image.name) for image in found})[:3])
                    reason = f"{len(found)} images could be meant: {names}. Give its folders."
    return None, reason, False


def _of_size(found: Sequence[KnownImage], size_hw: SizeHW | None) -> Sequence[KnownImage]:
    """Of several images those of the right size, if there are any."""
    if len(found) < 2 or size_hw is None:
        return found
    return [image for image in found if image.size_hw == size_hw] or found
