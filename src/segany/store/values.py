"""The values that go into the store and come out of it: frozen, without a type of the database.

Ids of items, objects, revisions, prompt events and jobs are UUIDs as text, in lower case with hyphens. Coordinates
are pixels of the image shown upright, x then y. Masks are COCO's compressed run lengths (`counts`) of the item's size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from segany.core.arrays import SizeHW
from segany.core.instances import Instances
from segany.store.checks import check_choice, check_number, check_text, refuse

ItemState: TypeAlias = Literal["todo", "in_progress", "done", "skipped"]
Split: TypeAlias = Literal["train", "val", "test"]
JobState: TypeAlias = Literal["queued", "running", "done", "failed", "canceled"]
ModelState: TypeAlias = Literal["candidate", "current", "refused", "retired"]
AttributeType: TypeAlias = Literal["text", "number", "choice"]
ItemOrder: TypeAlias = Literal[
    "position", "-position", "name", "-name", "updated_at", "-updated_at", "objects", "-objects"
]  # fmt: skip

MAX_NAME = 500
"""Characters of an item's name, and `MAX_PATH` of its path: PostgreSQL's indices hold 2,700 bytes a row."""

MAX_PATH = 600

MAX_JSON = 1 << 20
"""Characters of a value that is kept as JSON, such as the payload of a prompt event."""


# Labels.


@dataclass(frozen=True)
class Attribute:
    """A question that is asked of every object of a label.

    Attributes:
        name: unique in its label.
        type: of the answer.
        choices: the possible answers, for "choice".
    """

    name: str
    type: AttributeType
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_text(self.name, "The name of an attribute", 1, 200)
        check_choice(self.type, get_args(AttributeType), "The type of an attribute")
        for choice in self.choices:
            check_text(choice, f"A choice of attribute {self.name!r}", 1, 200)
        if (self.type == "choice") != bool(self.choices):
            raise refuse(f"Attribute {self.name!r}: choices are for the type 'choice', which needs at least one.")


@dataclass(frozen=True)
class Label:
    """A category of objects.

    Attributes:
        id: from 0; stands for this label forever, also after it was removed.
        name: unique in the project.
        color: "#rrggbb".
        hotkey: "1" to "9", unique among labels that are not archived.
        archived: kept for the objects that have it, and not offered for new ones.
        attributes: asked of its objects.
    """

    id: int
    name: str
    color: str = "#ff7f0e"
    hotkey: str | None = None
    archived: bool = False
    attributes: tuple[Attribute, ...] = ()

    def __post_init__(self) -> None:
        check_number(self.id, "The id of a label", 0, 2**31 - 1)
        check_text(self.name, "The name of a label", 1, 200)
        digits = self.color[1:].lower() if isinstance(self.color, str) else ""
        if len(digits) != 6 or self.color[0] != "#" or not set(digits) <= set("0123456789abcdef"):
            raise refuse(f"The color of label {self.name!r} must be like '#1f77b4', got {self.color!r}.")
        if self.hotkey is not None and self.hotkey not in tuple("123456789"):
            raise refuse(f"The hotkey of label {self.name!r} must be '1' to '9', got {self.hotkey!r}.")
        names = [attribute.name for attribute in self.attributes]
        if len(set(names)) != len(names):
            raise refuse(f"Two attributes of label {self.name!r} have the same name.")


@dataclass(frozen=True)
class LabelSchema:
    """The labels of a project at one version; versions count from 1."""

    version: int
    labels: tuple[Label, ...]


# Projects and items.


@dataclass(frozen=True)
class Project:
    """A project: its items share a label schema."""

    id: str
    name: str
    settings: Mapping[str, Any]
    label_version: int
    created_at: datetime


@dataclass(frozen=True)
class Root:
    """A folder that images are read from by reference, and nothing outside it."""

    name: str
    path: Path


@dataclass(frozen=True)
class NewItem:
    """An image to add. Its bytes are a blob of the store, or a file below a root.

    Attributes:
        name: for people; data, never a path.
        sha256: of the file's bytes.
        width, height: of the image shown upright, pixels.
        media_type: such as "image/jpeg".
        byte_count: size of the file.
        root, path: the root's name and the path below it, with forward slashes; None where the bytes are a blob.
    """

    name: str
    sha256: str
    width: int
    height: int
    media_type: str
    byte_count: int
    root: str | None = None
    path: str | None = None

    def __post_init__(self) -> None:
        check_text(self.name, "The name of an item", 1, MAX_NAME)
        check_text(self.media_type, "The media type of an item", 1, 100)
        if len(self.sha256) != 64 or not set(self.sha256) <= set("0123456789abcdef"):
            raise refuse(f"{self.name!r}: the sha256 must be 64 hexadecimal digits.")
        check_number(self.width, "The width of an item", 1, 2**31 - 1)
        check_number(self.height, "The height of an item", 1, 2**31 - 1)
        check_number(self.byte_count, "The size of an item's file", 0, 2**62)
        if (self.root is None) != (self.path is None):
            raise refuse(f"{self.name!r}: a reference needs both the root and the path below it.")
        if self.path is not None:
            check_text(self.path, "The path of an item", 1, MAX_PATH)
            if self.path.startswith("/") or "\\" in self.path or {"", ".", ".."} & set(self.path.split("/")):
                raise refuse(f"{self.path!r} is no path below a root.")


@dataclass(frozen=True)
class Item:
    """An image of a project.

    Attributes:
        position: its place in the order in which items were added, from 0.
        split: decided by the content of the file alone, so that equal images are on the same side.
        objects: how many objects it has that are not deleted.
        root, path: where the bytes lie by reference; None where they are a blob.
    """

    id: str
    position: int
    name: str
    width: int
    height: int
    state: ItemState
    split: Split
    objects: int
    sha256: str
    media_type: str
    byte_count: int
    root: str | None
    path: str | None
    created_at: datetime
    updated_at: datetime

    @property
    def size_hw(self) -> SizeHW:
        """Height and width in pixels."""
        return self.height, self.width


@dataclass(frozen=True)
class ItemFilter:
    """Which items to list, and in what order.

    Attributes:
        state: only items of this state.
        label_ids: only items with an object of one of these labels; all items where there are none.
        text: only items whose names contain this, whatever the case.
        order: what to sort by, names with their numbers as numbers; a minus reverses it.
    """

    state: ItemState | None = None
    label_ids: tuple[int, ...] = ()
    text: str = ""
    order: ItemOrder = "position"

    def __post_init__(self) -> None:
        if self.state is not None:
            check_choice(self.state, get_args(ItemState), "The state to filter by")
        for label_id in self.label_ids[:1000]:
            check_number(label_id, "A label to filter by", 0, 2**31 - 1)
        check_number(len(self.label_ids), "The number of labels to filter by", 0, 1000)
        check_text(self.text, "The text to filter by", 0, 1000)
        check_choice(self.order, get_args(ItemOrder), "The order of items")


@dataclass(frozen=True)
class ItemPage:
    """Some of the items that a filter lets through.

    Attributes:
        total: how many it lets through in all.
        items: those of the page.
    """

    total: int
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Place:
    """Where an item stands among those that a filter lets through.

    Attributes:
        index: how many come before it.
        total: how many the filter lets through in all.
        previous_id, next_id: the items before and after it; None at the ends.
    """

    index: int
    total: int
    previous_id: str | None
    next_id: str | None


@dataclass(frozen=True)
class Relinked:
    """What looking for moved images found: how many were found again, and the items still missing."""

    found: int
    missing: tuple[Item, ...]


@dataclass(frozen=True)
class Proposals:
    """Automatic masks of an item that were found by a model and are kept."""

    model_version: str
    instances: Instances
    created_at: datetime


# Models.


@dataclass(frozen=True)
class Snapshot:
    """Annotations as they were at one moment.

    Attributes:
        digest: SHA-256 of the ids of its revisions, by side: equal snapshots have equal ones.
        revision_ids: the revisions on each side.
    """

    id: str
    digest: str
    revision_ids: Mapping[Split, tuple[str, ...]]
    created_at: datetime


@dataclass(frozen=True)
class ModelVersion:
    """A model of a project.

    Attributes:
        number: 1 for the model that the project began with, and counted up.
        state: "candidate" while it is trained and measured; then "current", which annotates, or "refused"; "retired"
            after a later one was promoted.
        model: a registered name, or the name of the model in its file.
        sha256: of its file, a blob; None for a registered model.
        parent_id: the version that its training began with.
        snapshot_id: what it was trained and measured on.
        recipe: name of the recipe.
        figures: measurements; JSON values.
        message: why it was promoted or refused.
    """

    id: str
    number: int
    state: ModelState
    model: str
    sha256: str | None
    parent_id: str | None
    snapshot_id: str | None
    recipe: str
    figures: Mapping[str, Any]
    message: str
    created_at: datetime
    updated_at: datetime


# Jobs.


@dataclass(frozen=True)
class Job:
    """Work that outlives the process.

    Attributes:
        kind: says which function does it.
        arguments: for that function; JSON values.
        done, total, unit, message: the progress; total 0 where it is not known.
        result: JSON value, once it is done.
        attempts: how often it was started.
        cancel_requested: whether it is to end soon.
    """

    id: str
    kind: str
    arguments: Mapping[str, Any]
    state: JobState
    done: int
    total: int
    unit: str
    message: str
    result: Any
    attempts: int
    cancel_requested: bool
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Lease:
    """The right to work on a job, which ends unless it is extended.

    Attributes:
        job: as of when the lease was given.
        token: what proves the right.
    """

    job: Job
    token: str
