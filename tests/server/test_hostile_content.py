"""What comes in and goes out: headers, paths, names, files and sizes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tests.server.serving import Served, picture, raw

from segany.server.security import Limits

CSP = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob: data:; "
    "font-src 'self'; connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""Also that of the page's mock server: one tested in the page, the other one here."""


@pytest.fixture
def server(shared_server: Served) -> Served:
    """One for all of these tests, which leave the project's name as it was."""
    return shared_server


@pytest.mark.parametrize(
    "path", ["/", "/index.html", "/assets/app-1a2b3c.js", "/api/project", "/api/nothing", "/nothing", "/api/items/x"]
)
@pytest.mark.parametrize("is_known", [True, False])
def test_every_answer_has_the_headers(server: Served, path: str, is_known: bool) -> None:
    headers = (server.http if is_known else server.stranger()).get(path).headers
    assert headers["content-security-policy"] == CSP
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-embedder-policy"] == "require-corp"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert "server" not in headers


def test_the_mock_server_of_the_page_has_the_same_policy() -> None:
    mock = Path(__file__).parents[2] / "web" / "mock" / "server.ts"
    text = mock.read_text().partition("const CSP =")[2].partition(";\n\n")[0]
    assert "".join(part for part in text.split('"')[1::2]) == CSP


def test_caches(server: Served) -> None:
    assert server.http.get("/").headers["cache-control"] == "no-cache"
    assert "immutable" in server.http.get("/assets/app-1a2b3c.js").headers["cache-control"]
    assert server.http.get("/api/project").headers["cache-control"] == "no-store"
    assert server.http.get("/api/nothing").headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        "/../project/project.json",
        "/assets/../../project/project.json",
        "/%2e%2e/project/project.json",
        "/assets/..%2f..%2fproject/project.json",
        "/..\\project\\project.json",
        "//etc/passwd",
        "/assets//../../../../../../etc/passwd",
        "/assets/app-1a2b3c.js%00.html",
        "/assets/",
        "/assets/secret.key",
        "/api/items/../../project.json",
        "/api/items/..%2f..%2fproject.json/image",
        "/api/exports/..%2f..%2f/file",
        "/api/exports/../project.json/file",
    ],
)
def test_paths_lead_nowhere(server: Served, path: str) -> None:
    status, body = raw(server, "GET", path, [("Host", server.host), ("Cookie", server.cookie)])
    assert status == 404
    assert set(json.loads(body)) == {"message"}


@pytest.mark.parametrize(
    "name",
    [
        "../../evil.png",
        "/etc/passwd",
        "..\\..\\evil.png",
        "C:\\evil.png",
        "<b>.png",
        "a\tb.png",
        "..",
        "ü" * 300,
    ],
)
def test_names_of_uploads_are_data(server: Served, name: str) -> None:
    folder = server.store.folder.parent
    before = files_below(folder)
    seed = len(before)
    answer = server.http.post("/api/items", files={"files": (name, picture(seed=seed))})
    assert answer.status_code == 200
    (item,) = answer.json()["items"]
    assert "/" not in item["name"]
    assert "\\" not in item["name"]
    new = files_below(folder) - before
    assert {path.name for path in new} == {item["image"]}, "the only new file is the blob, named by its content"


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and "sqlite" not in path.name}


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"<html><script>alert(1)</script>", "page.png"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>', "image.svg"),
        (b"%PDF-1.4", "a.pdf"),
        (b"", "empty.png"),
        (picture()[:200], "cut.png"),
    ],
)
def test_what_is_no_image_is_no_item(server: Served, data: bytes, name: str) -> None:
    before = server.http.get("/api/items").json()["total"]
    answer = server.http.post("/api/items", files={"files": (name, data, "image/png")})
    assert answer.json()["items"] == []
    assert [one["name"] for one in answer.json()["skipped"]] == [name]
    assert server.http.get("/api/items").json()["total"] == before


def test_media_types_are_ours(server: Served) -> None:
    """A file that is an image and a page at once is served as an image, whatever it was sent as."""
    data = picture() + b"<script>alert(1)</script>"
    item = server.http.post("/api/items", files={"files": ("a.html", data, "text/html")}).json()["items"][0]["id"]
    answer = server.http.get(f"/api/items/{item}/image")
    assert (answer.headers["content-type"], answer.headers["x-content-type-options"]) == ("image/png", "nosniff")


@pytest.fixture
def strict(start: Callable[..., Served]) -> Served:
    return start("strict", limits=Limits(json=2000, upload=20_000))


def test_a_large_body_is_refused(strict: Served) -> None:
    answer = strict.http.patch("/api/project", json={"name": "x", "settings": {"a": "b" * 3000}})
    assert answer.status_code == 413
    assert "too large" in answer.json()["message"]
    assert strict.http.post("/api/items", files={"files": ("a.png", b"x" * 30_000)}).status_code == 413
    assert strict.http.post("/api/items", files={"files": ("a.png", picture())}).status_code == 200


def test_a_large_body_that_hides_its_size_is_refused(strict: Served) -> None:
    def chunks(whole: bytes) -> Iterator[bytes]:
        for start in range(0, len(whole), 1000):
            yield whole[start : start + 1000]

    body = json.dumps({"name": "x" * 100, "settings": {"a": "b" * 10_000}}).encode()
    answer = strict.http.patch("/api/project", content=chunks(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + b"y" * 100_000
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert strict.http.post("/api/items", content=chunks(form), headers=headers).status_code == 413
    assert strict.http.get("/api/items").json()["total"] == 0


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 50_000, b'{"name": NaN}', b'{"name": "\\ud800"}',
        b'{"\\ud800": 1}', b'{"name": "x", "module": "os"}', b'{"settings": {"a": ' + b"9" * 5000 + b"}}",
        b'{"settings": {"a": NaN}}', b'{"settings": {"a": 1e999}}', b'{"name": "a\\u0000b"}', b'{"settings": []}',
    ],
)  # fmt: skip
def test_odd_json_is_refused_in_words(server: Served, body: bytes) -> None:
    answer = server.http.patch("/api/project", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert set(answer.json()) == {"message"}
    assert "Traceback" not in answer.text
    assert server.store.project.name == "Cells"


def test_json_needs_its_type(server: Served) -> None:
    """Forms of other sites can send text/plain without asking; here that is no JSON."""
    answer = server.http.patch("/api/project", content=b'{"name": "x"}', headers={"Content-Type": "text/plain"})
    assert answer.status_code == 422


def test_a_bug_is_no_traceback(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("a secret of the server")

    monkeypatch.setattr(server.state.model_host, "description", fail)
    answer = server.http.get("/api/project")
    assert answer.status_code == 500
    assert set(answer.json()) == {"message"}
    assert "secret" not in answer.text
    assert answer.headers["content-security-policy"] == CSP


def test_http_is_all_it_speaks(server: Served) -> None:
    assert httpx.get(server.root, trust_env=False).status_code == 200
