"""A project, a small model and a WebSocket that predicts with it, for tests."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient, WebSocketTestSession
from starlette.websockets import WebSocket
from tests.models_for_tests import SMALL_TINY_VIT, small_sam

from segany.core.arrays import SizeHW
from segany.hub.model_ref import ModelRef
from segany.models.model_file import save_model
from segany.server.events import Events
from segany.server.live import serve_live
from segany.server.model_host import ModelHost
from segany.server.state import ServerState
from segany.store import NewItem, Store


def model_ref(folder: Path) -> ModelRef:
    """A reference to a model of milliseconds, in a file."""
    path = folder / "small.safetensors"
    return ModelRef(str(path if path.exists() else save_model(small_sam(SMALL_TINY_VIT), path)))


def picture(seed: int, size_hw: SizeHW = (120, 180)) -> bytes:
    """A PNG of smooth waves."""
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]]
    waves = np.random.default_rng(seed).uniform(0.02, 0.2, size=(3, 2))
    pixels = np.stack([127 + 120 * np.sin(a * rows + b * columns) for a, b in waves], axis=-1).astype(np.uint8)
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()


def add_picture(store: Store, seed: int, size_hw: SizeHW = (120, 180)) -> str:
    """An item with a picture of its own."""
    data = picture(seed, size_hw)
    height, width = size_hw
    sha256 = store.blobs.put(data, "image/png", width, height)
    return store.items.add([NewItem(f"{seed}.png", sha256, width, height, "image/png", len(data))])[0]


class News(Events):
    """Remembers what pages were told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[dict[str, Any]] = []

    def publish(self, message: dict[str, Any]) -> None:
        self.told.append(message)
        super().publish(message)


@dataclass
class State(ServerState):
    """The state of a server whose news are remembered."""

    events: News


@contextlib.contextmanager
def serving(folder: Path, ref: ModelRef | None, **options: Any) -> Iterator[State]:
    """A project in a folder, opened or made, and the model of a server."""
    place = folder / "project"
    news = News()
    with Store.open(place) if Store.is_project(place) else Store.create(place) as store:
        host = ModelHost(ref, place / "cache" / "embeddings", news.publish, **options)
        host.start()
        try:
            yield State(store, host, news, "ada")
        finally:
            host.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


@dataclass
class Page:
    """What the page does with its WebSocket."""

    socket: WebSocketTestSession
    seen: list[dict[str, Any]] = field(default_factory=list)

    def send(self, **message: Any) -> None:
        self.socket.send_text(json.dumps(message))

    def receive(self) -> dict[str, Any]:
        """The next message; a prediction with its logits, [M, side, side]."""
        message: dict[str, Any] = json.loads(self.socket.receive_text())
        if message["type"] == "prediction":
            values = np.frombuffer(self.socket.receive_bytes(), dtype=np.int8)
            message["logits"] = values.reshape(message["candidates"], message["side"], message["side"])
        self.seen.append(message)
        return message

    def receive_type(self, *types: str) -> dict[str, Any]:
        """The next message of some type."""
        while (message := self.receive())["type"] not in types:
            pass
        return message

    def open(self, item: str) -> str:
        """Open an item, and return the state of its embedding in the end."""
        self.send(type="open", item=item)
        while True:
            message = self.receive_type("item")
            if message["id"] == item and message["embedding"] != "computing":
                return str(message["embedding"])

    def predict(self, seq: int, item: str, **prompt: Any) -> dict[str, Any]:
        self.send(**{"type": "predict", "seq": seq, "item": item, "multimask": True, **asked(**prompt)})
        return self.receive_type("prediction", "error")

    def exact(self, seq: int, item: str, candidate: int | None = None, **prompt: Any) -> dict[str, Any]:
        self.send(type="exact", seq=seq, item=item, candidate=candidate, **asked(**prompt))
        return self.receive_type("mask", "error")


def asked(
    points: list[list[float]] | None = None,
    labels: list[int] | None = None,
    box: list[float] | None = None,
    refine: dict[str, Any] | None = None,
    **other: Any,
) -> dict[str, Any]:
    """The fields of a prompt."""
    points = points or []
    return {"points": points, "labels": labels or [1] * len(points), "box": box, "refine": refine, **other}


@contextlib.contextmanager
def connected(state: State) -> Iterator[Page]:
    """A page that is connected to a server."""

    async def live(websocket: WebSocket) -> None:
        await serve_live(websocket, state)

    with (
        TestClient(Starlette(routes=[WebSocketRoute("/api/live", live)])) as client,
        client.websocket_connect("/api/live") as socket,
    ):
        yield Page(socket)
