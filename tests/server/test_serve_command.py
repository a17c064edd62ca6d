"""`segany serve` as a process."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.server.serving import make_page, picture, until
from tests.store_for_tests import square
from websockets.sync.client import connect

from segany import Client, StoreError
from segany.server.schemas import Change
from segany.store import Store

COMMAND = [sys.executable, "-c", "from segany.cli import main; main()", "serve"]


class Process:
    """A running `segany serve`, and what it has printed."""

    def __init__(self, page: Path, *arguments: object, port: int = 0) -> None:
        options = ["--no-browser", "--page", str(page), "--port", str(port)]
        options += [] if "--model" in arguments else ["--model", "none"]
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, arguments), *options],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
        )  # fmt: skip
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    @property
    def address(self) -> str:
        """The newest address."""
        pattern = re.compile(r"http://127\.0\.0\.1:\d+/#token=\S+")
        return until(lambda: pattern.findall(self.output) or self.process.poll() is not None)[-1]

    def stop(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(60)
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


Start = Callable[..., Process]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Start]:
    page, started = make_page(tmp_path / "page"), []

    def start(*arguments: object, **options: int) -> Process:
        started.append(Process(page, *arguments, **options))
        return started[-1]

    yield start
    for process in started:
        if process.process.poll() is None:
            process.process.kill()
            process.wait()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    (folder / "a.png").write_bytes(picture(seed=1))
    (folder / "more" / "b.png").write_bytes(picture(seed=2))
    (folder / "cut\x1b[2J.png").write_bytes(picture(seed=3)[:100])
    return folder


def change() -> Change:
    return Change(
        object=str(uuid.uuid4()), revision=str(uuid.uuid4()), base=None, label_id=None, attributes={},
        counts=square(2, 3), z=0.0, source="manual", deleted=False, active_ms=0.0, prompt_events=[],
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serves_a_folder_and_stops(serve: Start, photos: Path, tmp_path: Path, number: int) -> None:
    server = serve(photos, "--project", tmp_path / "project")
    with Client(server.address) as client:
        assert [item.name for item in client.items()] == ["a.png", "more/b.png"]
        assert client.project().name == "project"
        root = server.address.partition("/#")[0]
        cookies = "; ".join(f"{name}={value}" for name, value in client.http.cookies.items())
        headers = {"Cookie": cookies}
        with connect(f"ws{root[4:]}/api/live", origin=root, additional_headers=headers, proxy=None):
            started = time.monotonic()
            assert server.stop(number) == 0
            assert time.monotonic() - started < 4, "an open page must not hold it up"
    assert "skipped cut\\x1b[2J.png: " in server.output
    assert "\x1b" not in server.output
    assert "2 images added, 1 skipped." in server.output
    assert server.lines[-1] == "Stopped. Everything that the page shows as saved is in the project."
    assert "Traceback" not in server.output
    with Store.open(tmp_path / "project") as store:
        items = list(store.items.iterate())
        assert [store.items.file(item.id) for item in items] == [photos / "a.png", photos / "more" / "b.png"]


def test_the_same_command_again_adds_nothing(serve: Start, photos: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    first = serve(photos, "--project", project)
    assert first.address
    assert first.stop() == 0
    (photos / "more" / "c.png").write_bytes(picture(seed=4))
    second = serve(photos / "more", photos / "a.png", "--project", project)
    with Client(second.address) as client:
        assert [item.name for item in client.items()] == ["a.png", "more/b.png", "c.png"]
    assert "1 images added" in second.output
    assert second.stop() == 0


def test_copies_outlive_the_originals(serve: Start, photos: Path, tmp_path: Path) -> None:
    server = serve(photos, "--copy", "--project", tmp_path / "project")
    with Client(server.address) as client:
        (photos / "a.png").unlink()
        first = next(client.items())
        assert client.image(first.id) == picture(seed=1)
    assert server.stop() == 0


def test_a_session_survives_a_restart_and_tokens_do_not(serve: Start, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    first = serve("--project", tmp_path / "project", port=port)
    unused = first.address
    with Client(unused) as client:
        again = until(lambda: first.address != unused and first.address)
        assert first.stop() == 0
        with pytest.raises(StoreError, match="Is it running"):
            client.project()
        second = serve("--project", tmp_path / "project", port=port)
        assert second.address
        assert client.project().name == "project"
        for used in (unused, again):
            with pytest.raises(StoreError, match="not valid"):
                Client(used)
    assert second.stop() == 0


def refused(serve: Start, *arguments: object, **options: int) -> str:
    process = serve(*arguments, **options)
    assert process.wait() == 2, process.output
    assert "Traceback" not in process.output
    assert process.output.startswith("error: ")
    return process.output


def test_port_in_use(serve: Start, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        output = refused(serve, "--project", tmp_path / "project", port=other.getsockname()[1])
    assert "--port" in output
    assert not (tmp_path / "project").exists()


def test_locked_by_another_server(serve: Start, tmp_path: Path) -> None:
    first = serve("--project", tmp_path / "project")
    assert first.address
    assert "open in another server" in refused(serve, "--project", tmp_path / "project")
    assert first.stop() == 0


def test_database_of_a_newer_version(serve: Start, tmp_path: Path) -> None:
    Store.create(tmp_path / "project").close()
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'project' / 'project.sqlite'}")
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    output = refused(serve, "--project", tmp_path / "project")
    assert "newer" in output


def test_page_that_was_not_built(serve: Start, tmp_path: Path) -> None:
    (tmp_path / "page" / "index.html").unlink()
    output = refused(serve, "--project", tmp_path / "project")
    assert "make web" in output
    assert not (tmp_path / "project").exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "localhost"])
def test_other_addresses_are_refused(serve: Start, tmp_path: Path, host: str) -> None:
    output = refused(serve, "--project", tmp_path / "project", "--host", host)
    assert "127.0.0.1 only" in output
    assert not (tmp_path / "project").exists()


def test_unknown_model(serve: Start, tmp_path: Path) -> None:
    assert "nonsense" in refused(serve, "--project", tmp_path / "project", "--model", "nonsense")
    assert not (tmp_path / "project").exists()


def test_path_that_is_not_there(serve: Start, tmp_path: Path) -> None:
    output = refused(serve, tmp_path / "nothing", "--project", tmp_path / "project")
    assert "nothing" in output
    assert not (tmp_path / "project").exists()


def test_missing_extra(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['fastapi'] = None; sys.argv = ['segany', 'serve'];from segany.cli import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert 'pip install "segany[serve]"' in result.stderr
    assert "Traceback" not in result.stderr


def test_what_was_acknowledged_is_there_after_kill(serve: Start, photos: Path, tmp_path: Path) -> None:
    """Four annotators save until the server is killed; then everything acknowledged is there once."""
    server = serve(photos, "--project", tmp_path / "project")
    acknowledged: list[Change] = []
    sent: list[Change] = []
    clients = []
    for _ in range(4):
        address = server.address
        clients.append(Client(address))
        until(lambda: server.address != address)  # noqa: B023
    item = next(clients[0].items())

    def annotate(client: Client) -> None:
        while True:
            one = change()
            sent.append(one)
            try:
                client.save(item.id, [one])
            except StoreError:
                return
            acknowledged.append(one)

    threads = [threading.Thread(target=annotate, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    until(lambda: len(acknowledged) >= 40)
    server.process.kill()
    for thread in threads:
        thread.join()
    for client in clients:
        client.close()
    server.wait()

    again = serve(photos, "--project", tmp_path / "project")
    with Client(again.address) as client:
        there = [state.id for state in client.item(item.id).objects]
        assert len(set(there)) == len(there)
        assert {one.object for one in acknowledged} <= set(there) <= {one.object for one in sent}
        for one in sent:  # what the page does with what was not acknowledged
            client.save(item.id, [one])
        assert {state.id for state in client.item(item.id).objects} == {one.object for one in sent}
    assert again.stop() == 0
