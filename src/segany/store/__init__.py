"""The one storage layer: projects with images, labels, objects, their revisions, and jobs, in SQLite or PostgreSQL.

    with Store.create("cells", "Cells") as store:
        store.items.add_root("photos", "photos")

It needs the extra `segany[serve]`; PostgreSQL `segany[postgres]`.
"""

from __future__ import annotations

from segany.core.extras import import_extra

for _module in ("sqlalchemy", "alembic"):
    import_extra(_module, "Projects need a database", "serve")

from segany.store.archive import export_archive  # noqa: E402
from segany.store.items import MAX_PAGE, SPLITS, split_of  # noqa: E402
from segany.store.jobs import MAX_ATTEMPTS  # noqa: E402
from segany.store.restore import restore_archive, restore_into  # noqa: E402
from segany.store.revisions import Change, Conflict, ObjectState, PromptEvent, Replay, Revision, Saved, SaveResult  # noqa: E402
from segany.store.store import Store, default_project  # noqa: E402
from segany.store.values import (  # noqa: E402
    Attribute,
    Item,
    ItemFilter,
    ItemPage,
    Job,
    Label,
    LabelSchema,
    Lease,
    ModelVersion,
    NewItem,
    Place,
    Project,
    Proposals,
    Relinked,
    Root,
    Snapshot,
)

__all__ = [
    "MAX_ATTEMPTS",
    "MAX_PAGE",
    "SPLITS",
    "Attribute",
    "Change",
    "Conflict",
    "Item",
    "ItemFilter",
    "ItemPage",
    "Job",
    "Label",
    "LabelSchema",
    "Lease",
    "ModelVersion",
    "NewItem",
    "ObjectState",
    "Place",
    "Project",
    "PromptEvent",
    "Proposals",
    "Relinked",
    "Replay",
    "Revision",
    "Root",
    "SaveResult",
    "Saved",
    "Snapshot",
    "Store",
    "default_project",
    "export_archive",
    "restore_archive",
    "restore_into",
    "split_of",
]
