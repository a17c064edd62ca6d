"""Automatic masks that a model found in items: kept, so that thresholds can be tried without the model."""

from __future__ import annotations

import json
import re
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from segany.core.errors import DataError, NotFoundError
from segany.core.instance import Category
from segany.core.instances import Instances
from segany.store.checks import check_text
from segany.store.database import Database
from segany.store.rows import find_item, item_value, now
from segany.store.tables import ProposalsRow
from segany.store.values import Proposals

MAX_BYTES = 1 << 28
"""Of an item's proposals when they are decompressed."""

_KINDS = "biufU"
"""NumPy's letters of the dtypes that columns may have."""


class ProposalStore:
    """The proposals of a project's items, by the model that found them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, item_id: str, model_version: str, instances: Instances) -> None:
        """Keep proposals in place of what the model had found before.

        Raises:
            NotFoundError: the project has no such item.
            DataError: the masks are of another size than the image.
        """
        check_text(model_version, "The model version", 1, 500)
        data = pack(instances)
        with self._database.write() as session:
            item = find_item(session, self._database.project, item_id)
            if item_value(item).size_hw != instances.size_hw:
                raise DataError(f"The proposals are {instances.size_hw} high and wide, unlike {item.name!r}.")
            session.merge(
                ProposalsRow(
                    item=item.key, project=item.project, model_version=model_version, instances=data, created_at=now()
                )
            )

    def get(self, item_id: str, model_version: str | None = None) -> Proposals:
        """The proposals of a model, or the newest ones.

        Raises:
            NotFoundError: there are none.
        """
        with self._database.read() as session:
            item = find_item(session, self._database.project, item_id)
            query = sa.select(ProposalsRow).where(ProposalsRow.item == item.key)
            if model_version is not None:
                query = query.where(ProposalsRow.model_version == model_version)
            row = session.scalar(query.order_by(ProposalsRow.created_at.desc()).limit(1))
            if row is None:
                raise NotFoundError(f"The item {item.name!r} has no proposals yet.")
            return Proposals(row.model_version, unpack(row.instances), row.created_at)


def pack(instances: Instances) -> bytes:
    """Instances as compressed JSON."""
    content = {
        "size_hw": instances.size_hw,
        "counts": instances.rle_counts,
        "boxes_xyxy": instances.boxes_xyxy.tolist(),
        "scores": instances.scores.tolist(),
        "category_ids": instances.category_ids.tolist(),
        "categories": [[item.id, item.name, item.supercategory] for item in instances.categories],
        "object_ids": instances.object_ids.tolist(),
        "sources": instances.sources.tolist(),
        "columns": {name: [array.dtype.str, array.tolist()] for name, array in instances.columns.items()},
    }
    odd = next((name for name, array in instances.columns.items() if array.dtype.kind not in _KINDS), None)
    if odd is not None:
        raise DataError(f"The column {odd!r} of the proposals holds neither numbers nor text.")
    return zlib.compress(json.dumps(content, separators=(",", ":")).encode())  # NaN and all: only unpack reads it


def unpack(data: bytes) -> Instances:
    """What `pack` made of instances.

    Raises:
        DataError: it is damaged.
    """
    try:
        inflater = zlib.decompressobj()
        text = inflater.decompress(data, MAX_BYTES)
        if not inflater.eof:
            raise DataError("The proposals are too large or cut off.")
        content: dict[str, Any] = json.loads(text)
        return Instances(
            content["counts"],
            tuple(content["size_hw"]),
            boxes_xyxy=content["boxes_xyxy"],
            scores=content["scores"],
            category_ids=content["category_ids"],
            categories=[Category(*item) for item in content["categories"]],
            object_ids=content["object_ids"],
            sources=content["sources"],
            columns={name: _array(kind, values) for name, (kind, values) in content["columns"].items()},
        )
    except (zlib.error, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(f"The proposals are damaged: {error}.") from error


def _array(kind: str, values: Any) -> npt.NDArray[Any]:
    if not re.fullmatch(f"[<>|=][{_KINDS}][0-9]{{1,5}}", kind):
        raise DataError(f"The proposals are damaged: {kind!r} is no dtype of a column.")
    return np.array(values, dtype=kind)
