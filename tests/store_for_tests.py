"""Projects with images and masks, for tests."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

import numpy as np

from segany.core.rle import encode_masks
from segany.store import Change, NewItem, PromptEvent, Store

WIDTH, HEIGHT = 30, 20


def new_id() -> str:
    return str(uuid.uuid4())


def square(x: int, y: int, side: int = 4) -> str:
    """Run lengths of a square in an image 30 wide and 20 high."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[y : y + side, x : x + side] = True
    return encode_masks(mask)[0]["counts"]


def add_item(store: Store, name: str = "a.png", data: bytes | None = None) -> str:
    """An item whose bytes are a blob; the store does not look into them."""
    data = name.encode() if data is None else data
    sha256 = store.blobs.put(data, "image/png", WIDTH, HEIGHT)
    return store.items.add([NewItem(name, sha256, WIDTH, HEIGHT, "image/png", len(data))])[0]


def reference_to(path: str, data: bytes, root: str = "photos") -> NewItem:
    return NewItem(
        path[-500:], hashlib.sha256(data).hexdigest(), WIDTH, HEIGHT, "image/png", len(data), root=root, path=path
    )


def change(object_id: str | None = None, base_id: str | None = None, **values: Any) -> Change:
    """A change with new ids where none are given."""
    values.setdefault("counts", square(2, 3))
    values.setdefault("revision_id", new_id())
    return Change(object_id=object_id or new_id(), base_id=base_id, **values)


def save(store: Store, item_id: str, *changes: Change, author: str = "ada") -> Any:
    return store.annotations.save(item_id, new_id(), changes, author)


def click(x: int, y: int, sequence: int = 0, **values: Any) -> PromptEvent:
    return PromptEvent(new_id(), sequence, "point", {"xy": [x, y], "label": 1}, **values)


def content(store: Store) -> dict[str, Any]:
    """All that people see of a project."""
    items = list(store.items.iterate())
    return {
        "labels": [store.labels.version(number + 1) for number in range(store.labels.current().version)],
        "items": [(item.id, item.name, item.state, item.split, item.objects, item.updated_at) for item in items],
        "images": [store.items.file(item.id).read_bytes() for item in items],
        "objects": [store.annotations.objects(item.id, deleted=True) for item in items],
        "history": [
            store.annotations.history(item.id, state.id)
            for item in items
            for state in store.annotations.objects(item.id, deleted=True)
        ],
        "counts": store.items.count_by_state(),
    }
