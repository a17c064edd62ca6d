"""Lists of images, single ones, and new ones."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, Query, UploadFile

from segany.core.errors import SeganyError
from segany.server import schemas
from segany.server.answers import ITEMS_CHANGED, item_answer, item_with_objects, summary_answer
from segany.server.dependencies import Filter, Id, State
from segany.server.intake import MAX_FILES, MAX_UPLOAD, add_upload, upload_name
from segany.store import MAX_PAGE

router = APIRouter(prefix="/items", tags=["items"])


@router.get("")
def list_items(
    state: State,
    chosen: Filter,
    offset: Annotated[int, Query(ge=0, le=schemas.MAX_NUMBER)] = 0,
    limit: Annotated[int, Query(ge=0, le=MAX_PAGE)] = 100,
) -> schemas.ItemPage:
    """A page of the items that a filter lets through."""
    page = state.store.items.page(chosen, offset, limit)
    return schemas.ItemPage(total=page.total, items=[summary_answer(item) for item in page.items])


@router.post("")
def upload_items(files: Annotated[list[UploadFile], File(max_length=MAX_FILES)], state: State) -> schemas.Uploaded:
    """Add images. Files that cannot be read are listed, and the others added."""
    added, skipped = [], []
    for file in files:
        name = upload_name(file.filename)
        try:
            added.append(add_upload(state.store, name, file.file.read(MAX_UPLOAD + 1)))
        except SeganyError as error:
            skipped.append(schemas.Skipped(name=name, message=str(error)))
    if added:
        state.events.publish(ITEMS_CHANGED)
    items = [summary_answer(state.store.items.get(item_id)) for item_id in dict.fromkeys(added)]
    return schemas.Uploaded(items=items, skipped=skipped)


@router.get("/{id}")
def get_item(id: Id, state: State, chosen: Filter) -> schemas.ItemWithObjects:  # noqa: A002
    """An image with its objects, and its place among those that a filter lets through."""
    item, place = state.store.items.get(id), state.store.items.place(id, chosen)
    return item_with_objects(item, place, state.store.annotations.objects(id))


@router.patch("/{id}")
def change_item(id: Id, change: schemas.ItemChange, state: State, chosen: Filter) -> schemas.Item:  # noqa: A002
    """Change an item's state."""
    return item_answer(state.store.items.set_state(id, change.state), state.store.items.place(id, chosen))
