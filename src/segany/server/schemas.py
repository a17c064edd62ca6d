"""The values of the API, as JSON: what the page's TypeScript types are generated from.

What comes in is refused where it has a field too many, or is larger than anything that makes sense. The store checks
what it means.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StrictStr

ItemState: TypeAlias = Literal["todo", "in_progress", "done", "skipped"]
Source: TypeAlias = Literal["manual", "assisted", "auto", "imported"]
PromptKind: TypeAlias = Literal["point", "box", "mask", "brush", "polygon", "edit", "accept"]
JobState: TypeAlias = Literal["queued", "running", "done", "failed", "canceled"]
ItemSort: TypeAlias = Literal[
    "position", "-position", "name", "-name", "updated_at", "-updated_at", "objects", "-objects"
]  # fmt: skip
ExchangeFormat: TypeAlias = Literal["coco", "yolo-seg", "labelme", "sa-1b", "label-maps", "project"]

Uuid = Annotated[str, Field(pattern="^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")]
Attributes: TypeAlias = "dict[Annotated[str, Field(max_length=200)], StrictStr | StrictInt | StrictFloat]"

MAX_NUMBER = 2**53 - 1
"""Whole numbers that JavaScript has."""

Count = Annotated[int, Field(ge=0, le=MAX_NUMBER)]
Milliseconds = Annotated[float, Field(ge=0, le=MAX_NUMBER)]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Out(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Message(_Out):
    """What went wrong, and what to do."""

    message: str


# Sessions.


class Token(_In):
    """The one-time token of the address that `segany serve` prints."""

    token: Annotated[str, Field(max_length=200)]


class Session(_Out):
    """A session of the page; `csrf` goes into the header X-Segany-CSRF of all that changes something."""

    csrf: str
    author: str
    version: str


# The project.


class Attribute(_In):
    """A question that is asked of every object of a label."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    type: Literal["text", "number", "choice"]
    choices: Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=1000)] = []


class Label(_In):
    """A category of objects."""

    id: Annotated[int, Field(ge=0, le=2**31 - 1)]
    name: Annotated[str, Field(min_length=1, max_length=200)]
    color: Annotated[str, Field(pattern="^#[0-9A-Fa-f]{6}$")]
    hotkey: Annotated[str, Field(pattern="^[1-9]$")] | None = None
    archived: bool
    attributes: Annotated[list[Attribute], Field(max_length=100)]


class Preprocessing(_Out):
    """How the model resizes images."""

    model_config = ConfigDict(extra="ignore")

    input_size: int
    resize: Literal["longest_side", "square"]


class Model(_Out):
    """The model that answers prompts."""

    name: str
    state: Literal["loading", "ready", "failed"]
    message: str
    preprocessing: Preprocessing | None = None
    decoder: bool = Field(default=False, description="Whether the page can have an export of its decoder")


class Counts(_Out):
    """How many items there are of each state."""

    todo: int
    in_progress: int
    done: int
    skipped: int


class Project(_Out):
    """The project."""

    id: str
    name: str
    labels: list[Label]
    label_version: int
    model: Model
    counts: Counts
    settings: dict[str, Any]


class ProjectChange(_In):
    """What of the project is to change; settings that are not named stay."""

    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    settings: dict[str, Any] | None = None


class LabelsChange(_In):
    """A new version of the labels."""

    base_version: Annotated[int, Field(ge=1, le=2**31 - 1)]
    labels: Annotated[list[Label], Field(max_length=5000)]


class StaleLabels(Message):
    """The labels were changed meanwhile; the project as it is now."""

    project: Project


# Items and their objects.


class ItemSummary(_Out):
    """An image in a list. `image` stands for its content."""

    id: str
    name: str
    width: int
    height: int
    state: ItemState
    split: Literal["train", "val", "test"] | None
    objects: int
    updated_at: datetime
    image: str


class ItemPage(_Out):
    """Some of the items, and how many there are in all."""

    total: int
    items: list[ItemSummary]


class Item(ItemSummary):
    """An image, and where it stands in the list."""

    position: int
    total: int
    previous_id: str | None
    next_id: str | None


class ObjectState(_Out):
    """An object as one of its revisions has it."""

    id: str
    revision: str
    parent: str | None
    label_id: int | None
    attributes: dict[str, Any]
    counts: str
    box_xyxy: tuple[int, int, int, int]
    area: int
    z: float
    source: Source
    author: str
    model_version: str | None
    deleted: bool
    created_at: datetime


class ItemWithObjects(_Out):
    """An image with its objects, in the order of drawing."""

    id: str
    name: str
    width: int
    height: int
    state: ItemState
    split: Literal["train", "val", "test"] | None
    objects: list[ObjectState]
    updated_at: datetime
    image: str
    position: int
    total: int
    previous_id: str | None
    next_id: str | None


class ItemChange(_In):
    """The new state of an item."""

    state: ItemState


class Skipped(_Out):
    """A file that was not taken, and why."""

    name: str
    message: str


class Uploaded(_Out):
    """What became of uploaded images."""

    items: list[ItemSummary]
    skipped: list[Skipped]


class Proposal(_Out):
    """An automatic mask."""

    counts: str
    box_xyxy: tuple[float, float, float, float]
    predicted_iou: float
    stability_score: float
    area: int


# Saving.


class PromptEvent(_In):
    """One thing a person did on the way to a revision."""

    id: Uuid
    sequence: Count
    kind: PromptKind
    payload: dict[str, Any]
    model_version: Annotated[str, Field(max_length=500)] | None
    candidate: Annotated[int, Field(ge=0, le=1000)] | None
    latency_ms: Milliseconds | None


class Change(_In):
    """A new state of an object, made from the revision `base`."""

    object: Uuid
    revision: Uuid
    base: Uuid | None
    label_id: Annotated[int, Field(ge=0, le=2**31 - 1)] | None
    attributes: Annotated[Attributes, Field(max_length=1000)]
    counts: Annotated[str, Field(min_length=1, max_length=1 << 24)]
    z: Annotated[float, Field(ge=-1e15, le=1e15)]
    source: Source
    deleted: bool
    active_ms: Milliseconds
    prompt_events: Annotated[list[PromptEvent], Field(max_length=100_000)]


class Batch(_In):
    """Changes of an item's objects. The same batch again changes nothing and gives the same answer."""

    batch: Uuid
    changes: Annotated[list[Change], Field(max_length=10_000)]


class SaveResult(_Out):
    """A change that the object has now."""

    object: str
    revision: str
    status: Literal["saved", "known"]


class SaveConflict(_Out):
    """A change whose base was no longer the object's state: its revision is kept beside it."""

    object: str
    yours: str
    theirs: ObjectState


class SaveAnswer(_Out):
    """What became of a batch."""

    results: list[SaveResult]
    conflicts: list[SaveConflict]


# Jobs.


class Job(_Out):
    """Work that goes on after its request, and after a restart of the server."""

    id: str
    kind: str
    item: str | None
    state: JobState
    done: int
    total: int
    unit: str
    message: str
    result: dict[str, Any] | None
    created_at: datetime


class ImportRequest(_In):
    """Files that were uploaded, and what they are."""

    format: ExchangeFormat
    upload: Uuid


class ExportFilter(_In):
    """Which items to export."""

    state: ItemState | None = None


class ExportRequest(_In):
    """What to export, and how; with `images`, those too where the format has them in its files."""

    format: ExchangeFormat
    filter: ExportFilter = ExportFilter()
    images: bool = False
