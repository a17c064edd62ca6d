from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.databases_for_tests import database_url, empty_database_url, postgres, shared_postgres_url

from segany.store import Store

__all__ = ["database_url", "empty_database_url", "postgres", "shared_postgres_url", "store"]


@pytest.fixture
def store(tmp_path: Path, database_url: str | None) -> Iterator[Store]:
    with Store.create(tmp_path / "project", "Cells", database=database_url) as opened:
        yield opened
