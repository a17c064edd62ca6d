"""From values of the store to those of the API."""

from __future__ import annotations

from typing import Any

from segany.server import schemas
from segany.server.state import ServerState
from segany.store import Attribute, Change, Item, Job, Label, ObjectState, Place, PromptEvent, Proposals, SaveResult


def project_answer(state: ServerState) -> schemas.Project:
    """The project as it is now."""
    project, schema = state.store.project, state.store.labels.current()
    return schemas.Project(
        id=project.id,
        name=project.name,
        labels=[label_answer(label) for label in schema.labels],
        label_version=schema.version,
        model=schemas.Model.model_validate(state.model_host.description()),
        counts=schemas.Counts(**state.store.items.count_by_state()),
        settings=dict(project.settings),
    )


def label_answer(label: Label) -> schemas.Label:
    """A label."""
    attributes = [
        schemas.Attribute(name=attribute.name, type=attribute.type, choices=list(attribute.choices))
        for attribute in label.attributes
    ]
    return schemas.Label(
        id=label.id, name=label.name, color=label.color, hotkey=label.hotkey, archived=label.archived,
        attributes=attributes,
    )  # fmt: skip


def label_value(label: schemas.Label) -> Label:
    """A label for the store."""
    attributes = tuple(Attribute(item.name, item.type, tuple(item.choices)) for item in label.attributes)
    return Label(label.id, label.name, label.color, label.hotkey, label.archived, attributes)


def summary_answer(item: Item) -> schemas.ItemSummary:
    """An item in a list."""
    return schemas.ItemSummary(**_summary(item))


def item_answer(item: Item, place: Place) -> schemas.Item:
    """An item in its place."""
    return schemas.Item(**_summary(item), **_place(place))


def item_with_objects(item: Item, place: Place, objects: tuple[ObjectState, ...]) -> schemas.ItemWithObjects:
    """An item with its objects."""
    facts = {**_summary(item), "objects": [object_answer(state) for state in objects]}
    return schemas.ItemWithObjects(**facts, **_place(place))


def _summary(item: Item) -> dict[str, Any]:
    return {
        "id": item.id, "name": item.name, "width": item.width, "height": item.height, "state": item.state,
        "split": item.split, "objects": item.objects, "updated_at": item.updated_at, "image": item.sha256,
    }  # fmt: skip


def _place(place: Place) -> dict[str, Any]:
    return {
        "position": place.index, "total": place.total, "previous_id": place.previous_id, "next_id": place.next_id,
    }  # fmt: skip


def object_answer(state: ObjectState) -> schemas.ObjectState:
    """An object."""
    return schemas.ObjectState(
        id=state.id, revision=state.revision_id, parent=state.parent_id, label_id=state.label_id,
        attributes=dict(state.attributes), counts=state.counts, box_xyxy=state.box_xyxy, area=state.area, z=state.z,
        source=state.source, author=state.author, model_version=state.model_version, deleted=state.deleted,
        created_at=state.created_at,
    )  # fmt: skip


def change_value(change: schemas.Change) -> Change:
    """A change for the store."""
    return Change(
        object_id=change.object, revision_id=change.revision, base_id=change.base, counts=change.counts,
        label_id=change.label_id, attributes=change.attributes, z=change.z, source=change.source,
        deleted=change.deleted, active_ms=round(change.active_ms),
        prompt_events=tuple(_event_value(event) for event in change.prompt_events),
    )  # fmt: skip


def _event_value(event: schemas.PromptEvent) -> PromptEvent:
    latency = None if event.latency_ms is None else round(event.latency_ms)
    return PromptEvent(
        event.id, event.sequence, event.kind, event.payload, event.model_version, event.candidate, latency
    )


def save_answer(result: SaveResult) -> schemas.SaveAnswer:
    """What became of a batch."""
    return schemas.SaveAnswer(
        results=[
            schemas.SaveResult(object=saved.object_id, revision=saved.revision_id, status=saved.status)
            for saved in result.saved
        ],
        conflicts=[
            schemas.SaveConflict(
                object=conflict.object_id, yours=conflict.yours_id, theirs=object_answer(conflict.theirs)
            )
            for conflict in result.conflicts
        ],
    )


def proposals_answer(proposals: Proposals) -> list[schemas.Proposal]:
    """The automatic masks of an item."""
    found = proposals.instances
    scores = {name: found.columns.get(name, found.scores).tolist() for name in ("predicted_iou", "stability_score")}
    return [
        schemas.Proposal(
            counts=counts,
            box_xyxy=tuple(box),
            predicted_iou=predicted_iou,
            stability_score=stability,
            area=int(area),
        )
        for counts, box, predicted_iou, stability, area in zip(
            found.rle_counts, found.boxes_xyxy.tolist(), *scores.values(), found.areas.tolist(), strict=True
        )
    ]


def job_answer(job: Job) -> schemas.Job:
    """A job."""
    item = job.arguments.get("item")
    return schemas.Job(
        id=job.id, kind=job.kind, item=item if isinstance(item, str) else None, state=job.state, done=job.done,
        total=job.total, unit=job.unit, message=job.message,
        result=job.result if isinstance(job.result, dict) else None, created_at=job.created_at,
    )  # fmt: skip


def job_event(job: Job) -> dict[str, Any]:
    """What pages are told when a job changed."""
    return {"type": "job", "job": job_answer(job).model_dump(mode="json")}


ITEMS_CHANGED = {"type": "items_changed"}
