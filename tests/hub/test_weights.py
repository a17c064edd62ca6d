"""The cache, the order of the sources, and what is said when nothing helps."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from segany.core.errors import CanceledError, WeightsError
from segany.core.files import sha256_of
from segany.core.progress import Cancellation
from segany.hub import cache, cached_path, fetch_weights, remove_weights, weights_status
from segany.models.registry import MODELS, UrlSource, find_spec


def place(spec, content):
    path = cache.checkpoint_path(spec, spec.sources[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_cache_hit_makes_no_request(server, url_spec):
    first = fetch_weights(url_spec)
    server.requests.clear()
    assert fetch_weights(url_spec) == first == cached_path(url_spec)
    assert server.requests == []


def test_unchanged_file_is_hashed_once(url_spec, body, monkeypatch):
    place(url_spec, body)
    hashed = []
    sha256_of = cache.sha256_of
    monkeypatch.setattr(cache, "sha256_of", lambda path: hashed.append(path) or sha256_of(path))
    assert cached_path(url_spec) == cached_path(url_spec) == hashed[0]
    assert len(hashed) == 1


def test_changed_file_is_found_out_and_replaced(server, url_spec, body):
    path = fetch_weights(url_spec)
    stat = path.stat()
    path.write_bytes(body[:-1] + b"?")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    with pytest.raises(WeightsError, match=r"is damaged or another file.*segany weights pull tiny"):
        cached_path(url_spec)
    assert fetch_weights(url_spec).read_bytes() == body
    assert len(server.gets("/tiny.pt")) == 2


def test_torn_note_is_no_harm(url_spec, body):
    path = fetch_weights(url_spec)
    for torn in ("", "{", "[1, 2]", '{"fingerprint": 3}'):
        path.with_name("tiny.pt.sha256.json").write_text(torn)
        assert cached_path(url_spec) == path


def test_file_placed_by_hand_is_used(server, url_spec, body):
    path = place(url_spec, body)
    assert fetch_weights(url_spec) == path
    assert server.requests == []


def test_wrong_file_placed_by_hand_is_named(server, url_spec):
    path = place(url_spec, b"something else")
    del server.pages["/tiny.pt"]
    with pytest.raises(WeightsError) as caught:
        fetch_weights(url_spec)
    assert f"{path} is damaged or another file" in str(caught.value)
    assert path.read_bytes() == b"something else"  # it is a person's: only a whole file replaces it


@pytest.mark.parametrize("value", ["1", "true", "yes"])
def test_offline_makes_no_request(server, url_spec, monkeypatch, value):
    monkeypatch.setenv("SEGANY_OFFLINE", value)
    with pytest.raises(WeightsError, match="SEGANY_OFFLINE forbids the network") as caught:
        fetch_weights(url_spec)
    assert str(cache.weights_directory(url_spec) / "tiny.pt") in str(caught.value)
    assert server.requests == []


def test_offline_uses_the_cache(url_spec, body, monkeypatch):
    path = place(url_spec, body)
    monkeypatch.setenv("SEGANY_OFFLINE", "1")
    assert fetch_weights(url_spec) == path


@pytest.mark.parametrize("value", ["", "0", "false", "No"])
def test_offline_can_be_off(url_spec, body, monkeypatch, value):
    monkeypatch.setenv("SEGANY_OFFLINE", value)
    assert fetch_weights(url_spec).read_bytes() == body


def test_sources_are_tried_in_order(server, url_spec, make_spec, body):
    good = url_spec.sources[0]
    spec = make_spec(UrlSource(f"{server.url}/gone.pth", good.sha256), good)
    path = fetch_weights(spec)
    assert path.name == "tiny.pt"
    assert [request.path for request in server.requests] == ["/gone.pth", "/tiny.pt"]
    assert sorted(p.name for p in path.parent.iterdir()) == ["tiny.pt", "tiny.pt.sha256.json"]


def test_failure_lists_every_source_and_where_to_place_the_file(server, make_spec):
    gone = UrlSource(f"{server.url}/gone.pth", "0" * 64)
    closed = UrlSource("http://127.0.0.1:1/closed.pt", None)
    spec = make_spec(gone, closed)
    with pytest.raises(WeightsError) as caught:
        fetch_weights(spec)
    message = str(caught.value)
    assert f"{gone.url}: HTTP 404 Not Found" in message
    assert f"{closed.url}: " in message
    directory = cache.weights_directory(spec)
    assert f"{directory / 'gone.pth'} (sha256 {'0' * 64}), from {gone.url}" in message
    assert f"{directory / 'closed.pt'}, from {closed.url}" in message


def test_two_processes_fetch_once(server, url_spec, body):
    source = url_spec.sources[0]
    program = (
        "import sys\n"
        "from segany.hub import fetch_weights\n"
        "from segany.models.mobile_sam.config import MOBILE_SAM\n"
        "from segany.models.registry import ModelSpec, UrlSource\n"
        f"spec = ModelSpec('tiny', 'Tiny', MOBILE_SAM, (UrlSource({source.url!r}, {source.sha256!r}),), megabytes=1)\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "print(fetch_weights(spec, progress=lambda event: print(event.task)))\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=20)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    path = cache.weights_directory(url_spec) / "tiny.pt"
    assert [output[-1] for output in outputs] == [str(path), str(path)]
    assert path.read_bytes() == body
    assert len(server.gets("/tiny.pt")) == 1


def test_waiting_for_another_process_is_reported(url_spec, body):
    reports, waiting, fetched = [], threading.Event(), []

    def report(event):
        reports.append(event.task)
        waiting.set()

    with cache.locked(cache.weights_directory(url_spec), "fetching tiny"):
        thread = threading.Thread(target=lambda: fetched.append(fetch_weights(url_spec, progress=report)))
        thread.start()
        assert waiting.wait(5)
    thread.join(5)
    assert "waiting for another process" in reports[0]
    assert fetched[0].read_bytes() == body


def test_waiting_for_another_process_can_be_canceled(url_spec):
    cancellation = Cancellation()
    with cache.locked(cache.weights_directory(url_spec), "fetching tiny"):
        cancellation.cancel()
        with pytest.raises(CanceledError):
            fetch_weights(url_spec, progress=cancellation.watch())


def test_without_a_network_the_next_source_is_reached_at_once(server, url_spec, make_spec, body, monkeypatch):
    monkeypatch.setattr("segany.hub.fetch.BACKOFF_SECONDS", 5)
    good = url_spec.sources[0]
    refused = UrlSource("http://127.0.0.1:1/tiny.pt", good.sha256)
    unknown = UrlSource("http://nowhere.invalid/tiny.pt", good.sha256)
    began = time.monotonic()
    assert fetch_weights(make_spec(refused, unknown, good)).read_bytes() == body
    assert time.monotonic() - began < 4


def test_remove_deletes_everything_and_says_how_much(url_spec, body):
    assert remove_weights(url_spec) == 0
    path = fetch_weights(url_spec)
    cache.part_path(url_spec, "other.pth").write_bytes(b"12345")
    assert remove_weights(url_spec) > len(body) + 5
    assert cached_path(url_spec) is None
    assert list(path.parent.iterdir()) == []
    assert remove_weights(url_spec) == 0


def test_status_tells_cached_from_damaged_from_absent(url_spec, make_spec, body, monkeypatch):
    monkeypatch.setattr("segany.hub.weights.MODELS", {"tiny": url_spec})
    assert [(s.spec, s.path, s.size_bytes, s.damage) for s in weights_status()] == [(url_spec, None, 0, ())]
    path = place(url_spec, b"damaged")
    [status] = weights_status()
    assert status.path is None
    assert str(path) in status.damage[0]
    place(url_spec, body)
    [status] = weights_status()
    assert (status.path, status.size_bytes, status.damage) == (path, len(body), ())


def test_cache_is_the_users_own_by_default(url_spec, monkeypatch):
    monkeypatch.delenv("SEGANY_CACHE")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: Path("/caches") / name)
    assert cache.weights_directory(url_spec) == Path("/caches/segany/weights/tiny").absolute()


def test_cache_may_be_named_from_home(url_spec, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("SEGANY_CACHE", "~/segany")
    assert cache.weights_directory(url_spec) == tmp_path / "segany" / "weights" / "tiny"


def test_checked_file_takes_its_place_in_one_step(url_spec, body):
    path = place(url_spec, b"the old one")
    arrived = path.with_name("arrived.part")
    arrived.write_bytes(body)
    inode = arrived.stat().st_ino
    with path.open("rb") as reader:
        cache.install(arrived, path, url_spec.sources[0].sha256)
        assert reader.read() == b"the old one"  # whoever reads it meanwhile is not disturbed
    assert path.stat().st_ino == inode
    assert not arrived.exists()
    assert cached_path(url_spec) == path


def test_every_model_has_a_source_whose_digest_is_known():
    for spec in MODELS.values():
        assert spec.sources
        for source in spec.sources:
            assert source.sha256 is not None
            assert len(bytes.fromhex(source.sha256)) == 32


@pytest.mark.weights
def test_the_real_checkpoint_arrives(mobile_sam_path):
    assert mobile_sam_path.stat().st_size == 40_728_226
    assert sha256_of(mobile_sam_path) == find_spec("mobile_sam").sources[0].sha256


def test_a_home_that_is_not_there_names_the_variable(url_spec, monkeypatch):
    monkeypatch.setenv("SEGANY_CACHE", "~no_such_user/cache")
    with pytest.raises(WeightsError, match="SEGANY_CACHE is '~no_such_user/cache'"):
        fetch_weights(url_spec)


def test_without_a_home_the_variable_is_named(url_spec, monkeypatch):
    monkeypatch.delenv("SEGANY_CACHE")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: Path("~/.cache") / name)
    with pytest.raises(WeightsError, match=r"There is no home directory.*SEGANY_CACHE"):
        fetch_weights(url_spec)
