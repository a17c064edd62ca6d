"""What a model is trained and measured on: a snapshot of a project, as a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segany.core.errors import DataError, NotFoundError, SeganyError
from segany.core.files import write_file
from segany.core.instance import NO_ID, Category
from segany.core.instances import Instances
from segany.data.item import AnnotatedImage
from segany.engine.rules import EngineRules
from segany.imaging.image import read_image
from segany.store import ModelVersion, Snapshot, Store
from segany.store.revisions import RevisionSource
from segany.store.values import Split

BY_PEOPLE: tuple[RevisionSource, ...] = ("manual", "assisted", "imported")
"""Masks that a person made or chose. From those that nobody touched, "auto", the engine would learn from itself."""


def take_snapshot(store: Store, snapshot_id: str, rules: EngineRules) -> Snapshot:
    """Freeze the masks of all finished items: those to train on, and those to compare models on.

    Validation masks are of objects that no model has proposed, so that a model does not mark its own homework. All
    comparisons of a project use those of its first snapshot while they are there.

    Raises:
        DataError: there are too few masks to train or to validate on.
    """
    train = store.snapshots.heads("train", ["done"], BY_PEOPLE)
    val = _frozen_validation(store) or store.snapshots.heads("val", ["done"], BY_PEOPLE, purely=True)
    for ids, least, what in ((train, rules.min_train, "train"), (val, rules.min_val, "validate")):
        if len(ids) < least:
            raise DataError(
                f"There are {len(ids)} masks to {what} on, and the rules want {least}. Finish more images (state "
                f'"done"): four of five are for training, and one of ten is for validation, by the content of its file.'
            )
    return store.snapshots.put(snapshot_id, {"train": train, "val": val})


def _frozen_validation(store: Store) -> tuple[str, ...]:
    for version in store.models.list():
        if version.snapshot_id is not None:
            return store.snapshots.get(version.snapshot_id).revision_ids.get("val", ())
    return ()


def missing_labels(store: Store, snapshot_id: str) -> list[str]:
    """The labels that masks to train on have and masks to validate on have not."""
    used = {
        split: {state.label_id for states in store.snapshots.objects(snapshot_id, split).values() for state in states}
        for split in ("train", "val")
    }
    names = {label.id: label.name for label in store.labels.current().labels}
    return sorted(names.get(one, str(one)) for one in used["train"] - used["val"] if one is not None)


def model_file(store: Store, version: ModelVersion, folder: Path) -> Path | str:
    """What `segany.load` takes for a version: its name, or a file in `folder` that is linked to its blob.

    Raises:
        NotFoundError: its file is gone.
    """
    blob = store.models.file(version)
    if blob is None:
        return version.model
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{version.sha256}.safetensors"
    if not path.exists():
        try:
            path.hardlink_to(blob)
        except OSError:  # a file system without links
            write_file(path, blob.read_bytes())
    return path


@dataclass(frozen=True, eq=False)
class _Image:
    name: str
    path: Path
    instances: Instances


class SnapshotDataset:
    """One side of a snapshot as a `Dataset`. It can be pickled, and needs no database."""

    def __init__(self, images: Sequence[_Image]) -> None:
        """Use `of`."""
        self._images = tuple(images)

    @classmethod
    def of(cls, store: Store, snapshot_id: str, split: Split) -> SnapshotDataset:
        """Read one side of a snapshot; images are read on demand.

        Raises:
            DataError: the file of an image is gone.
        """
        labels = [Category(label.id, label.name) for label in store.labels.current().labels]
        images = []
        for item, states in store.snapshots.objects(snapshot_id, split).items():
            try:
                path = store.items.file(item.id)
            except (NotFoundError, SeganyError) as error:
                raise DataError(f"The snapshot needs {item.name}, whose file is gone: {error}") from error
            known = {label.id for label in labels}
            instances = Instances(
                [state.counts for state in states],
                item.size_hw,
                category_ids=[state.label_id if state.label_id in known else NO_ID for state in states],
                categories=labels,
                sources="human",
            )
            images.append(_Image(f"{item.position:07d} {item.name}", path, instances))
        return cls(images)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(image.name for image in self._images)

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> AnnotatedImage:
        image = self._images[index]
        try:
            pixels = read_image(image.path)
        except SeganyError as error:
            raise DataError(f"{image.name}: {error}") from error
        return AnnotatedImage(image.name, pixels, image.instances)
