"""An empty cache, a server on localhost, and a model whose weights are there."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.hub.local_server import Page, Server

from segany.hub import fetch
from segany.models.mobile_sam.config import MOBILE_SAM
from segany.models.registry import ModelSpec, UrlSource, WeightSource


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no variable of the user's, and no waiting between attempts."""
    root = tmp_path / "cache"
    monkeypatch.setenv("SEGANY_CACHE", str(root))
    for name in ("SEGANY_OFFLINE", "SEGANY_PYPI_INDEX", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(fetch, "BACKOFF_SECONDS", 0)
    return root


BODY = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def body() -> bytes:
    return BODY


@pytest.fixture
def make_spec() -> Callable[..., ModelSpec]:
    def make(*sources: WeightSource) -> ModelSpec:
        return ModelSpec("tiny", "Tiny", MOBILE_SAM, sources, megabytes=1)

    return make


@pytest.fixture
def url_spec(server: Server, make_spec: Callable[..., ModelSpec]) -> ModelSpec:
    """A model whose only source is `/tiny.pt` of the server, which serves it."""
    server.pages["/tiny.pt"] = Page(BODY)
    return make_spec(UrlSource(f"{server.url}/tiny.pt", SHA256))
