from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.databases_for_tests import database_url, postgres, shared_postgres_url
from tests.server.serving import Served, make_page, served

from segany.store import Store

__all__ = ["database_url", "postgres", "shared_postgres_url"]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A folder with a built page, if a small one."""
    return make_page(tmp_path / "page")


@pytest.fixture
def server(tmp_path: Path, page: Path) -> Iterator[Served]:
    """A server of an empty project on SQLite."""
    with Store.create(tmp_path / "project", "Cells") as store, served(store, page) as running:
        yield running


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server on SQLite for all tests of a module."""
    folder = tmp_path_factory.mktemp("server")
    with Store.create(folder / "project", "Cells") as store, served(store, make_page(folder / "page")) as running:
        yield running


@pytest.fixture
def any_server(tmp_path: Path, page: Path, database_url: str | None) -> Iterator[Served]:
    """A server of an empty project, on SQLite and on PostgreSQL."""
    with Store.create(tmp_path / "project", "Cells", database=database_url) as store, served(store, page) as running:
        yield running


@pytest.fixture
def start(tmp_path: Path, page: Path) -> Iterator[Callable[..., Served]]:
    """Starts servers of projects of their own, with other settings, and stops them at the end."""
    with contextlib.ExitStack() as stack:

        def start(name: str, database: str | None = None, **settings: Any) -> Served:
            store = stack.enter_context(Store.create(tmp_path / name, database=database))
            return stack.enter_context(served(store, page, **settings))

        yield start
