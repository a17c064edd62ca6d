"""What the network can do to a download."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections import namedtuple
from pathlib import Path

import httpx
import pytest
from tests.hub.local_server import Page

from segany.core.errors import CanceledError, WeightsError
from segany.core.progress import Cancellation, ProgressEvent
from segany.hub import cache, fetch_weights
from segany.hub.fetch import ATTEMPTS, SourceUnavailable, download
from segany.models.registry import UrlSource


def test_download_arrives_whole_and_reports_its_progress(server, url_spec, body):
    reports = []
    path = fetch_weights(url_spec, progress=reports.append)
    assert path.read_bytes() == body
    assert path == cache.weights_directory(url_spec) / "tiny.pt"
    assert {event.task for event in reports} == {"tiny.pt"}
    assert [event.done for event in reports] == sorted(event.done for event in reports)
    assert reports[-1] == ProgressEvent("tiny.pt", len(body), len(body), "bytes")
    assert sorted(p.name for p in path.parent.iterdir()) == ["tiny.pt", "tiny.pt.sha256.json"]


def test_no_compression_is_asked_for(server, url_spec):
    fetch_weights(url_spec)  # a compressed answer would be written as it comes
    assert [request.encoding for request in server.requests] == ["identity"]


def test_truncated_transfer_is_resumed_at_once(server, url_spec, body):
    server.pages["/tiny.pt"].breaks_after = 300_000
    server.pages["/tiny.pt"].breaks_left = 2
    assert fetch_weights(url_spec).read_bytes() == body
    gets = server.gets("/tiny.pt")
    assert [get.range for get in gets] == [None, "bytes=300000-", "bytes=600000-"]
    assert sum(get.sent for get in gets) == len(body)


def test_canceled_download_is_resumed_by_the_next_call(server, url_spec, body):
    cancellation = Cancellation()

    def cancel(event):
        if event.done >= 500_000:
            cancellation.cancel()

    with pytest.raises(CanceledError):
        fetch_weights(url_spec, progress=cancellation.watch(cancel))
    part = cache.part_path(url_spec, "tiny.pt")
    kept = part.stat().st_size
    assert 500_000 <= kept < len(body)
    assert not part.with_suffix("").exists()

    assert fetch_weights(url_spec).read_bytes() == body
    last = server.gets("/tiny.pt")[-1]
    assert last.range == f"bytes={kept}-"
    assert last.sent == len(body) - kept
    assert not part.exists()


def test_server_that_ignores_range_starts_over(server, url_spec, body):
    page = server.pages["/tiny.pt"]
    page.honors_range, page.breaks_after, page.breaks_left = False, 400_000, 1
    assert fetch_weights(url_spec).read_bytes() == body
    assert [get.range for get in server.gets("/tiny.pt")] == [None, "bytes=400000-"]


def test_wrong_range_starts_over(server, url_spec, body):
    page = server.pages["/tiny.pt"]
    page.range_shift, page.breaks_after, page.breaks_left = 7, 400_000, 1
    assert fetch_weights(url_spec).read_bytes() == body
    assert [get.range for get in server.gets("/tiny.pt")] == [None, "bytes=400000-", None]


@pytest.mark.parametrize("left", [b"left by another version of the file", b"x" * 2_000_000], ids=["short", "too long"])
def test_part_of_another_file_is_thrown_away(server, url_spec, body, left):
    part = cache.part_path(url_spec, "tiny.pt")
    part.parent.mkdir(parents=True)
    part.write_bytes(left)
    assert fetch_weights(url_spec).read_bytes() == body


def test_whole_part_is_used_without_a_transfer(server, url_spec, body):
    part = cache.part_path(url_spec, "tiny.pt")
    part.parent.mkdir(parents=True)
    part.write_bytes(body)
    assert fetch_weights(url_spec).read_bytes() == body
    assert [get.sent for get in server.gets("/tiny.pt")] == [0]


def test_wrong_content_is_refused_and_not_kept(server, url_spec, body):
    server.pages["/tiny.pt"].body = body[:-1] + b"?"
    with pytest.raises(WeightsError, match=r"what arrived \(1048576 bytes\) has sha256 .* expected"):
        fetch_weights(url_spec)
    assert list(cache.weights_directory(url_spec).iterdir()) == []


def test_without_a_known_digest_nothing_is_resumed(server, make_spec, body, url_spec):
    spec = make_spec(UrlSource(f"{server.url}/tiny.pt", None))
    part = cache.part_path(spec, "tiny.pt")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"half of who knows what")
    server.pages["/tiny.pt"].breaks_after, server.pages["/tiny.pt"].breaks_left = 400_000, 1
    assert fetch_weights(spec).read_bytes() == body
    assert [get.range for get in server.gets("/tiny.pt")] == [None, None]


def test_transfer_that_gets_nowhere_is_given_up(server, url_spec):
    server.pages["/tiny.pt"].breaks_after = 0
    with pytest.raises(WeightsError, match=r"tiny\.pt: "):
        fetch_weights(url_spec)
    assert len(server.gets("/tiny.pt")) == ATTEMPTS


def test_transient_status_is_tried_again(server, url_spec):
    server.pages["/tiny.pt"].status = 503
    with pytest.raises(WeightsError, match="HTTP 503 Service Unavailable"):
        fetch_weights(url_spec)
    assert len(server.gets("/tiny.pt")) == ATTEMPTS


def test_missing_file_is_not_tried_again(server, url_spec):
    del server.pages["/tiny.pt"]
    with pytest.raises(WeightsError, match="HTTP 404 Not Found"):
        fetch_weights(url_spec)
    assert len(server.gets("/tiny.pt")) == 1


def test_redirect_keeps_the_range(server, url_spec, make_spec, body):
    server.pages["/moved.pt"] = moved = server.pages.pop("/tiny.pt")
    moved.breaks_after, moved.breaks_left = 400_000, 1
    server.pages["/tiny.pt"] = Page(status=302, headers={"Location": f"{server.url}/moved.pt"})
    assert fetch_weights(url_spec).read_bytes() == body
    assert [get.range for get in server.gets("/moved.pt")] == [None, "bytes=400000-"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/tiny.pt", "gopher://127.0.0.1/tiny.pt", "http://[/tiny.pt"])
def test_unreachable_server_is_a_reason(make_spec, url):
    with pytest.raises(WeightsError, match="could not be fetched from any source") as caught:
        fetch_weights(make_spec(UrlSource(url, None)))
    assert url in str(caught.value)


def test_small_disk_is_refused_before_the_transfer(server, url_spec, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1))
    with pytest.raises(WeightsError, match=r"Not enough disk space in .*: 1 MB needed, 0 MB free.*SEGANY_CACHE"):
        fetch_weights(url_spec)
    assert not cache.part_path(url_spec, "tiny.pt").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_names_the_place_and_the_way_out(server, url_spec):
    part = cache.part_path(url_spec, "tiny.pt")
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")
    with pytest.raises(WeightsError, match=r"The disk is full.*SEGANY_CACHE") as caught:
        fetch_weights(url_spec)
    assert str(part.parent) in str(caught.value)
    assert len(server.gets("/tiny.pt")) == 1  # no other source or attempt can help


def test_denied_directory_names_it(server, url_spec, cache_root, monkeypatch):
    def deny(self, *args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "mkdir", deny)
    with pytest.raises(WeightsError, match=r"You have no permission there.*SEGANY_CACHE") as caught:
        fetch_weights(url_spec)
    assert str(cache_root) in str(caught.value)
    assert server.requests == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_directory_names_it(server, url_spec, cache_root):
    cache_root.mkdir(mode=0o500)
    with pytest.raises(WeightsError, match="You have no permission there"):
        fetch_weights(url_spec)


def test_file_in_place_of_the_cache_names_it(server, url_spec, cache_root):
    cache_root.write_text("not a directory")
    with pytest.raises(WeightsError, match="Not a directory"):
        fetch_weights(url_spec)


def test_silence_is_a_reason(server, url_spec, monkeypatch):
    monkeypatch.setattr("segany.hub.fetch._TIMEOUT", httpx.Timeout(0.05))
    server.pages["/tiny.pt"].waits_for = answer = threading.Event()
    with pytest.raises(WeightsError, match="timed out"):
        fetch_weights(url_spec)
    answer.set()


def test_a_file_without_a_length_arrives(server, url_spec, body):
    server.pages["/tiny.pt"].says_length = False
    assert fetch_weights(url_spec).read_bytes() == body


@pytest.mark.parametrize("says_length", [True, False])
def test_more_than_the_file_can_have_is_not_written(server, says_length, tmp_path):
    server.pages["/endless"] = Page(body=bytes(3_000_000), says_length=says_length)
    largest = []
    with pytest.raises(SourceUnavailable, match=r"more than the 1,000,000 of the file"):
        download(f"{server.url}/endless", tmp_path / "a.part", None, largest.append, max_bytes=1_000_000)
    assert all(event.done <= 1_000_000 for event in largest)
    assert not (tmp_path / "a.part").exists()


def test_without_a_length_the_disk_is_not_filled(server, monkeypatch, tmp_path):
    server.pages["/endless"] = Page(body=bytes(3_000_000), says_length=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(10_000_000))
    with pytest.raises(WeightsError, match="Not enough disk space"):
        download(f"{server.url}/endless", tmp_path / "a.part", None)
