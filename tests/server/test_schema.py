"""The schema of the API: the committed one is that of the code, and the server keeps to it whatever it is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CheckFunction
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.server.serving import Served, make_page, picture, served

from segany.server.openapi import schema_text
from segany.store import Store

COMMITTED = Path(__file__).parents[2] / "web" / "app" / "api" / "openapi.json"

CHECKS: list[CheckFunction] = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


def test_the_committed_schema_is_this_one() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == schema_text(), (
        "write it again: python -m segany.server.openapi > web/app/api/openapi.json"
    )


def do_nothing(_state: Any) -> Any:
    return lambda _job, _progress: {}


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("fuzzed")
    kinds = dict.fromkeys(("proposals", "import", "export"), do_nothing)
    with (
        Store.create(folder / "project", "Cells") as store,
        served(store, make_page(folder / "page"), kinds=kinds) as server,
    ):
        server.http.post("/api/items", files={"files": ("a.png", picture())})
        yield server


schema = schemathesis.openapi.from_dict(json.loads(schema_text()))


@schema.parametrize()
@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_server_keeps_to_its_schema(case: Any, fuzzed: Served) -> None:
    if "id" in (case.path_parameters or {}) and len(str(case.path_parameters["id"])) % 2:  # not unknown ones alone
        case.path_parameters["id"] = next(fuzzed.store.items.iterate()).id
    headers = {"Cookie": fuzzed.cookie, "X-Segany-CSRF": fuzzed.http.headers["X-Segany-CSRF"]}
    case.call_and_validate(base_url=fuzzed.root, headers=headers, checks=CHECKS)
    assert fuzzed.http.get("/api/session").status_code == 200
