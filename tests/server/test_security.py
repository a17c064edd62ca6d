"""Who may use the server: hosts, origins, sessions and CSRF, for HTTP and WebSocket."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.server.serving import HTML, Served, picture, raw
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect


@pytest.fixture
def server(shared_server: Served) -> Served:
    """One for all of these tests, which leave the project's name as it was."""
    return shared_server


# Host, Origin, Sec-Fetch-Site.


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}"])
@pytest.mark.parametrize("path", ["/", "/api/session", "/api/items"])
def test_another_host_is_refused(server: Served, host: str, path: str) -> None:
    port = server.host.partition(":")[2]
    answer = server.http.get(path, headers={"Host": host.format(port=port)})
    assert answer.status_code == 403
    assert "chelsea" not in answer.text
    assert HTML not in answer.text


def test_two_hosts_are_refused(server: Served) -> None:
    headers = [("Host", server.host), ("Host", "evil.example"), ("Cookie", server.cookie)]
    assert raw(server, "GET", "/api/items", headers)[0] in (400, 403)


def test_localhost_is_the_same_server(server: Served) -> None:
    port = server.host.partition(":")[2]
    assert server.http.get("/api/project", headers={"Host": f"localhost:{port}"}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://{host}", "http://127.0.0.1:1", "http://{host}.evil.example"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE", "OPTIONS"])
def test_another_origin_is_refused(server: Served, origin: str, method: str) -> None:
    headers = {"Origin": origin.format(host=server.host)}
    answer = server.http.request(method, "/api/project", headers=headers, json={"name": "taken over"})
    assert answer.status_code == 403
    assert server.store.project.name == "Cells"
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_another_origin_cannot_enter(server: Served) -> None:
    token = server.sessions.new_token()
    headers = {"Origin": "http://evil.example"}
    assert server.stranger().post("/api/session", json={"token": token}, headers=headers).status_code == 403
    assert server.stranger().post("/api/session", json={"token": token}).status_code == 200, "the token was not used up"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_images_are_not_for_other_pages(server: Served, site: str) -> None:
    """Browsers send the cookie to pages at another port of this machine too, and no Origin with images."""
    item = server.http.post("/api/items", files={"files": ("a.png", picture())}).json()["items"][0]["id"]
    for path in (f"/api/items/{item}/image", f"/api/items/{item}/thumbnail", "/api/items"):
        answer = server.http.get(path, headers={"Sec-Fetch-Site": site})
        assert answer.status_code == 403
    ours = server.http.get(f"/api/items/{item}/image", headers={"Sec-Fetch-Site": "same-origin"})
    assert (ours.status_code, ours.headers["cross-origin-resource-policy"]) == (200, "same-origin")


def test_a_link_from_another_page_opens_ours(server: Served) -> None:
    assert server.stranger().get("/", headers={"Sec-Fetch-Site": "cross-site"}).text == HTML


def test_there_is_no_cors(server: Served) -> None:
    headers = {"Origin": server.root, "Access-Control-Request-Method": "POST"}
    for path in ("/api/project", "/", "/api/nothing"):
        answer = server.http.options(path, headers=headers)
        assert answer.status_code in (403, 404, 405)
        assert not any(name.startswith("access-control") for name in answer.headers)


# Sessions.


def test_a_token_is_used_once(server: Served) -> None:
    token = server.sessions.new_token()
    assert server.stranger().post("/api/session", json={"token": token}).status_code == 200
    again = server.stranger().post("/api/session", json={"token": token})
    assert again.status_code == 401
    assert "set-cookie" not in again.headers
    assert "segany serve" in again.json()["message"]


@pytest.mark.parametrize("token", ["", "x", "mock", "é\u0000", "a" * 200])
def test_a_wrong_token_is_refused(server: Served, token: str) -> None:
    assert server.stranger().post("/api/session", json={"token": token}).status_code == 401


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(server: Served) -> None:
    answer = server.stranger().post("/api/session", json={"token": server.sessions.new_token()})
    name_and_value, *attributes = answer.headers["set-cookie"].split("; ")
    assert name_and_value.startswith(f"segany-{server.store.project.id}=")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(attributes)
    assert not any(part.startswith("Domain") for part in attributes)


API = [
    ("GET", "/api/session"),
    ("GET", "/api/project"),
    ("PATCH", "/api/project"),
    ("PUT", "/api/project/labels"),
    ("GET", "/api/model/decoder/{name}"),
    ("GET", "/api/items"),
    ("POST", "/api/items"),
    ("GET", "/api/items/{item}"),
    ("PATCH", "/api/items/{item}"),
    ("GET", "/api/items/{item}/image"),
    ("GET", "/api/items/{item}/thumbnail"),
    ("GET", "/api/items/{item}/embedding"),
    ("GET", "/api/items/{item}/proposals"),
    ("POST", "/api/items/{item}/proposals"),
    ("POST", "/api/items/{item}/revisions"),
    ("PUT", "/api/uploads/{item}/{part}"),
    ("POST", "/api/imports"),
    ("POST", "/api/exports"),
    ("GET", "/api/exports/{item}/file"),
    ("GET", "/api/jobs"),
    ("GET", "/api/jobs/{item}"),
    ("POST", "/api/jobs/{item}/cancel"),
    ("GET", "/api/openapi.json"),
    ("GET", "/api/nothing"),
    ("GET", "/api"),
]


def test_every_route_of_the_schema_is_tried_here(server: Served) -> None:
    paths = server.http.get("/api/openapi.json").json()["paths"]
    known = {(method, path.replace("{item}", "{id}")) for method, path in API}
    there = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert there - known == {("POST", "/api/session")}


@pytest.mark.parametrize(("method", "path"), API)
def test_nothing_without_a_session(server: Served, method: str, path: str) -> None:
    answer = server.stranger().request(method, path.format(item=uuid.uuid4(), part=0, name="x"))
    assert answer.status_code == 401
    assert "Open the address" in answer.json()["message"]


def forged(value: str) -> Iterator[str]:
    expires, nonce, mac = value.split(".")
    yield f"{int(expires) + 1}.{nonce}.{mac}"
    yield f"{expires}.{nonce[::-1]}.{mac}"
    yield f"{expires}.{nonce}.{mac[::-1]}"
    yield f"{expires}.{nonce}.{'0' * 64}"
    yield f"{expires}.{nonce}."
    yield f"1.{nonce}.{mac}"
    yield "true"
    yield ""


def test_a_forged_cookie_is_refused(server: Served) -> None:
    (name, value), *_ = server.http.cookies.items()
    for wrong in forged(value):
        answer = server.stranger().get("/api/session", headers={"Cookie": f"{name}={wrong}"})
        assert answer.status_code == 401, wrong
    other = {"Cookie": f"segany-{uuid.uuid4()}={value}"}
    assert server.stranger().get("/api/session", headers=other).status_code == 401


def test_a_session_ends(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    now = time.time()
    assert server.http.get("/api/session").status_code == 200
    monkeypatch.setattr(time, "time", lambda: now + 31 * 24 * 3600)
    assert server.http.get("/api/session").status_code == 401


def test_a_session_is_of_its_project_alone(server: Served, start: Callable[..., Served]) -> None:
    (_, value), *_ = server.http.cookies.items()
    other = start("other")
    cookie = f"segany-{other.store.project.id}={value}"
    assert other.stranger().get("/api/session", headers={"Cookie": cookie}).status_code == 401


def test_keys_are_private(server: Served) -> None:
    for path in server.store.folder.rglob("*.sqlite*"):
        assert path.stat().st_mode & 0o077 == 0, path


# CSRF.


@pytest.mark.parametrize("csrf", [None, "", "x", "é", "0" * 64])
@pytest.mark.parametrize(("method", "path"), [row for row in API if row[0] != "GET"])
def test_no_change_without_the_csrf_header(server: Served, method: str, path: str, csrf: str | None) -> None:
    headers = [(b"Cookie", server.cookie.encode())]
    if csrf is not None:
        headers.append((b"X-Segany-CSRF", csrf.encode()))
    answer = server.stranger().request(method, path.format(item=uuid.uuid4(), part=0, name="x"), headers=headers)
    assert answer.status_code == 403
    assert "X-Segany-CSRF" in answer.json()["message"]


def test_the_csrf_header_is_of_its_session(server: Served) -> None:
    other = server.stranger()
    csrf = other.post("/api/session", json={"token": server.sessions.new_token()}).json()["csrf"]
    headers = {"X-Segany-CSRF": csrf}
    assert server.http.patch("/api/project", json={"name": "x"}, headers=headers).status_code == 403
    assert other.patch("/api/project", json={"name": "Cells"}, headers=headers).status_code == 200


@pytest.mark.parametrize("method", ["DELETE", "PUT", "TRACE", "PROPFIND"])
def test_other_methods_are_refused(server: Served, method: str) -> None:
    assert server.http.request(method, "/api/items").status_code in (400, 403, 405)


def test_get_has_no_side_effects(server: Served) -> None:
    item = server.http.post("/api/items", files={"files": ("a.png", picture())}).json()["items"][0]["id"]
    before = server.http.get("/api/project").json(), server.store.items.get(item), server.store.jobs.list()
    for method, path in API:
        if method == "GET":
            server.http.get(path.format(item=item, name="x"))
    assert (server.http.get("/api/project").json(), server.store.items.get(item), server.store.jobs.list()) == before


# The WebSocket.


def open_socket(server: Served, **changes: Any) -> Any:
    """A connection with what a browser sends, unless it is changed; None leaves a header out."""
    headers = {"Cookie": server.cookie, "Origin": server.root, **changes}
    origin = headers.pop("Origin")
    uri = f"ws://{server.host}/api/live"
    rest = {name: value for name, value in headers.items() if value is not None}
    return connect(uri, origin=origin, additional_headers=rest, proxy=None, open_timeout=10)


def test_the_socket_opens_for_the_page(server: Served) -> None:
    with open_socket(server) as live:
        server.state.events.publish({"type": "items_changed"})
        while json.loads(live.recv(timeout=10)) != {"type": "items_changed"}:
            pass


@pytest.mark.parametrize(
    "changes",
    [
        {"Origin": None},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Cookie": None},
        {"Cookie": "segany=mock"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_the_socket_is_not_for_others(server: Served, changes: dict[str, str | None]) -> None:
    with pytest.raises(InvalidStatus) as refused:
        open_socket(server, **changes)
    assert refused.value.response.status_code == 403


def test_the_socket_needs_our_host(server: Served) -> None:
    headers = {
        "Host": "evil.example",
        "Origin": "http://evil.example",
        "Cookie": server.cookie,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    assert raw(server, "GET", "/api/live", list(headers.items()))[0] == 403
