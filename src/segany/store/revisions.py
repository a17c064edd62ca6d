"""The states of objects: changes that go in, revisions and what led to them that come out. See `values`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias, get_args

from segany.store.checks import check_choice, check_id, check_json, check_number, check_text
from segany.store.values import MAX_JSON, Item

RevisionSource: TypeAlias = Literal["manual", "assisted", "auto", "imported"]
EventKind: TypeAlias = Literal["point", "box", "mask", "brush", "polygon", "edit", "accept"]

MAX_COUNTS = 1 << 24
"""Characters of a mask's run lengths."""


@dataclass(frozen=True)
class PromptEvent:
    """One thing a person did on the way to a revision.

    Attributes:
        id: UUID that the client made.
        sequence: its place among the events of the object.
        payload: what was done; JSON values.
        model_version: the model that answered; None where none did.
        candidate: which of the model's masks was shown.
        latency_ms: from the prompt to the mask on the screen.
    """

    id: str
    sequence: int
    kind: EventKind
    payload: Mapping[str, Any] = field(default_factory=dict)
    model_version: str | None = None
    candidate: int | None = None
    latency_ms: int | None = None

    def __post_init__(self) -> None:
        check_id(self.id, "The id of a prompt event")
        check_number(self.sequence, "The sequence of a prompt event", 0, 2**62)
        check_choice(self.kind, get_args(EventKind), "The kind of a prompt event")
        check_json(self.payload, "The payload of a prompt event", MAX_JSON)
        if self.model_version is not None:
            check_text(self.model_version, "The model version of a prompt event", 0, 500)
        if self.candidate is not None:
            check_number(self.candidate, "The candidate of a prompt event", 0, 1000)
        if self.latency_ms is not None:
            check_number(self.latency_ms, "The latency of a prompt event", 0, 2**62)


@dataclass(frozen=True)
class Change:
    """A new state of an object.

    Attributes:
        object_id, revision_id: UUIDs that the client made. Saving the same revision again does nothing.
        base_id: the revision the change was made from; None for a new object.
        counts: run lengths of the mask.
        label_id: None for no label.
        attributes: answers by the attribute's name.
        z: order of drawing, low first.
        deleted: whether the object is gone; a later change may bring it back.
        active_ms: how long the person worked on it.
        model_version: the model behind the mask; where None, that of the last event that has one.
        prompt_events: what led from the base to this state.
    """

    object_id: str
    revision_id: str
    base_id: str | None
    counts: str
    label_id: int | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    z: float = 0.0
    source: RevisionSource = "manual"
    deleted: bool = False
    active_ms: int = 0
    model_version: str | None = None
    prompt_events: tuple[PromptEvent, ...] = ()

    def __post_init__(self) -> None:
        check_id(self.object_id, "The id of an object")
        check_id(self.revision_id, "The id of a revision")
        if self.base_id is not None:
            check_id(self.base_id, "The base of a revision")
        check_text(self.counts, "The run lengths of a mask", 1, MAX_COUNTS)
        if self.label_id is not None:
            check_number(self.label_id, "The label of an object", 0, 2**31 - 1)
        check_json(self.attributes, "The attributes of an object", MAX_JSON)
        check_number(self.z, "The z of an object", -1e15, 1e15, whole=False)
        check_choice(self.source, get_args(RevisionSource), "The source of a revision")
        check_number(self.active_ms, "The active time of a revision", 0, 2**62)
        if self.model_version is not None:
            check_text(self.model_version, "The model version of a revision", 0, 500)


@dataclass(frozen=True)
class ObjectState:
    """An object as one of its revisions has it.

    Attributes:
        id: of the object.
        revision_id, parent_id: the revision, and the one it was made from.
        box_xyxy: of the mask in pixels, half-open; zeros for an empty mask.
        area: pixels of the mask.
        label_version: version of the label schema when it was saved.
    """

    id: str
    revision_id: str
    parent_id: str | None
    label_id: int | None
    label_version: int
    attributes: Mapping[str, Any]
    counts: str
    box_xyxy: tuple[int, int, int, int]
    area: int
    z: float
    source: RevisionSource
    author: str
    model_version: str | None
    deleted: bool
    created_at: datetime


@dataclass(frozen=True)
class Saved:
    """A change that the object has now: "saved" by this call, or "known" from an earlier one."""

    object_id: str
    revision_id: str
    status: Literal["saved", "known"]


@dataclass(frozen=True)
class Conflict:
    """A change whose base was no longer the object's state. Its revision is kept, beside the object's state.

    Attributes:
        yours_id: the revision of the change.
        theirs: the object's state. A change with this as its base settles the conflict.
    """

    object_id: str
    yours_id: str
    theirs: ObjectState


@dataclass(frozen=True)
class SaveResult:
    """What became of a batch of changes, in its order."""

    saved: tuple[Saved, ...]
    conflicts: tuple[Conflict, ...]


@dataclass(frozen=True)
class Revision:
    """An entry of an object's history.

    Attributes:
        state: the object as of this revision.
        conflicting: whether it was saved from a stale base, and so never was the object's state.
        active_ms: how long the person worked on it.
        prompt_events: what led to it, in order.
    """

    state: ObjectState
    conflicting: bool
    active_ms: int
    prompt_events: tuple[PromptEvent, ...]


@dataclass(frozen=True)
class Replay:
    """All that a mask was made from.

    Attributes:
        item: the image; its `sha256` is that of the file.
        revisions: from the first one of the object to the one asked for, each the parent of the next.
    """

    item: Item
    revisions: tuple[Revision, ...]
