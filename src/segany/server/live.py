"""The WebSocket of a page: prompts up; predictions, exact masks, progress and news down."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import anyio
import anyio.abc
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from segany.core.arrays import FloatArray
from segany.core.embedding import Embedding
from segany.core.errors import SeganyError
from segany.core.prompt import MaskMode, Prompt
from segany.core.rle import box_xyxy, encode_masks, mask_area
from segany.predict.image import ImagePredictor
from segany.server.embeddings import Urgency, message_of
from segany.server.events import Message as News
from segany.server.live_messages import (
    QUANTIZATION,
    Exact,
    LiveError,
    Open,
    Predict,
    Step,
    Up,
    WantDecoder,
    error_message,
    quantized,
    read_message,
)
from segany.server.state import ServerState
from segany.store import ItemFilter

log = logging.getLogger(__name__)

MAX_TOKENS = 32
"""Predictions of a connection whose logits can be fed back, 0.8 MB each."""

MAX_EXACT = 64
"""Masks to be stored that may wait in a connection."""

PREFETCHED = 2
"""Images after the opened one that are encoded when there is time."""

BY_NAME = ItemFilter(order="name")
"""The order in which the page goes from image to image."""

ResultT = TypeVar("ResultT")
ValueT = TypeVar("ValueT")
MessageT = TypeVar("MessageT", Predict, Exact)


async def serve_live(websocket: WebSocket, state: ServerState) -> None:
    """Serve a page until it closes its connection.

    Args:
        websocket: of somebody who may use the project; accepted here unless it was already.
        state: the project, the model and the news.
    """
    async with state.events.subscribe() as news:  # before the page knows that it is connected, so that it misses none
        if websocket.application_state == WebSocketState.CONNECTING:
            await websocket.accept()
        await _Connection(websocket, state, news).serve()


@dataclass(frozen=True)
class _Asked(Generic[MessageT]):
    """A request for a prediction, when it came, and the logits that it feeds back."""

    message: MessageT
    received: float
    mask_logits: FloatArray | None

    def prompt(self, predictor: ImagePredictor, embedding: Embedding) -> Prompt:
        """The prompt, with the logits that are fed back, which are computed again where only their steps are known."""
        logits = self.mask_logits
        for step in self.message.steps:
            prompt, masks = step.prompt(logits), _mask_mode(step)
            logits = predictor.predict_low_res(embedding, prompt, masks=masks)[0][0, step.candidate]
        return self.message.prompt(logits)


class _Connection:
    """One page. Its requests are answered one at a time; those for masks to be stored come first."""

    def __init__(self, websocket: WebSocket, state: ServerState, news: asyncio.Queue[News]) -> None:
        self.websocket, self.store, self.host, self.news = websocket, state.store, state.model_host, news
        self._tasks: anyio.abc.TaskGroup
        self._sending = asyncio.Lock()
        self._sha256s: OrderedDict[str, str] = OrderedDict()
        self._tokens: OrderedDict[str, FloatArray] = OrderedDict()
        self._exact: asyncio.Queue[_Asked[Exact]] = asyncio.Queue(MAX_EXACT)
        self._newest: _Asked[Predict] | None = None
        self._changed = asyncio.Event()  # there is a newest one
        self._opening = anyio.CancelScope()

    async def serve(self) -> None:
        """Read messages until the connection ends; whatever else runs ends with it."""
        async with anyio.create_task_group() as self._tasks:
            for worker in (self._read, self._tell_news, self._answer_exact, self._answer_newest):
                self._tasks.start_soon(self._until_closed, worker)

    async def _until_closed(self, work: Callable[[], Awaitable[None]]) -> None:
        with contextlib.suppress(WebSocketDisconnect):
            await work()
        self._tasks.cancel_scope.cancel()

    # Messages.

    async def _read(self) -> None:
        while True:
            message = await self.websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            try:
                await self._take(read_message(message.get("text")))
            except LiveError as error:
                await self._send(error_message(error))

    async def _take(self, message: Up) -> None:
        received = time.perf_counter()
        if isinstance(message, WantDecoder):
            self.host.export_decoder()
        elif isinstance(message, Open):
            self._opening.cancel()  # what was to be prepared for the image before is no longer urgent
            self._opening = anyio.CancelScope()
            self._tasks.start_soon(self._open, message.item, self._opening)
        elif isinstance(message, Exact):
            try:
                self._exact.put_nowait(self._asked(message, received))
            except asyncio.QueueFull:
                raise LiveError("Too many masks are to be stored at once.", message.seq, "busy") from None
        else:
            dropped, self._newest = self._newest, self._asked(message, received)
            self._changed.set()
            if dropped is not None:
                await self._send({"type": "busy", "seq": dropped.message.seq})

    async def _send(self, message: dict[str, Any], attachment: bytes | None = None) -> None:
        async with self._sending:
            await self.websocket.send_text(json.dumps(message, separators=(",", ":")))
            if attachment is not None:
                await self.websocket.send_bytes(attachment)

    async def _tell_news(self) -> None:
        await self._send({"type": "model", **self.host.description()})
        while True:
            await self._send(await self.news.get())

    # Images.

    async def _open(self, item: str, scope: anyio.CancelScope) -> None:
        """Get the embedding of the image that somebody looks at, then those of the next ones."""
        with scope, contextlib.suppress(WebSocketDisconnect):
            if await self._prepare(item):
                await self._prefetch(item)

    async def _prepare(self, item: str) -> bool:
        try:
            request = await self._request(item, Urgency.OPENED)
            if not request.done():
                await self._send({"type": "item", "id": item, "embedding": "computing"})
            await asyncio.wrap_future(request)
        except WebSocketDisconnect:
            raise
        except Exception as error:
            if not isinstance(error, SeganyError):
                log.exception("The image of item %s cannot be encoded.", item)
            await self._send({"type": "item", "id": item, "embedding": "failed", "message": message_of(error)})
            return False
        await self._send({"type": "item", "id": item, "embedding": "ready"})
        return True

    async def _prefetch(self, item: str) -> None:
        for _ in range(PREFETCHED):
            with contextlib.suppress(Exception):  # they are told of it when they open that image
                next_item = (await asyncio.to_thread(self.store.items.place, item, BY_NAME)).next_id
                if next_item is None:
                    return
                item = next_item
                await asyncio.wrap_future(await self._request(item, Urgency.PREFETCH))

    async def _request(self, item: str, urgency: Urgency) -> Future[Embedding]:
        sha256 = self._sha256s.get(item)
        if sha256 is None:
            sha256 = (await asyncio.to_thread(self.store.items.get, item)).sha256
            _keep(self._sha256s, item, sha256, 1000)
        return self.host.embeddings.request(sha256, lambda: self.store.items.file(item), urgency)

    # Prompts.

    async def _answer_exact(self) -> None:
        while True:
            asked = await self._exact.get()
            await self._answer(asked, self._measure(asked))

    async def _answer_newest(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            asked, self._newest = self._newest, None
            if asked is not None:
                await self._answer(asked, self._predict(asked))

    async def _answer(self, asked: _Asked[Any], answer: Coroutine[Any, Any, None]) -> None:
        """Answer a request, or say why that is not possible."""
        try:
            await answer
        except WebSocketDisconnect:
            raise
        except Exception as error:
            if not isinstance(error, SeganyError):
                log.exception("A prediction for item %s failed.", asked.message.item)
            await self._send(error_message(LiveError(message_of(error), asked.message.seq)))

    async def _measure(self, asked: _Asked[Exact]) -> None:
        embedding = await asyncio.wrap_future(await self._request(asked.message.item, Urgency.OPENED))
        await self._send(await self._decode(lambda predictor: _exact_mask(predictor, embedding, asked)))

    async def _predict(self, asked: _Asked[Predict]) -> None:
        embedding = await self._embedding_unless_asked_again(asked.message.item)
        if embedding is None:
            await self._send({"type": "busy", "seq": asked.message.seq})
            return
        low_res, scores, logits = await self._decode(lambda predictor: _low_res(predictor, embedding, asked))
        token = str(uuid.uuid4())  # never that of another connection, whose logits are other ones
        _keep(self._tokens, token, low_res, MAX_TOKENS)
        header = {
            "type": "prediction",
            "seq": asked.message.seq,
            "token": token,
            "scores": [float(score) for score in scores],
            "candidates": len(scores),
            "latency_ms": round(1000 * (time.perf_counter() - asked.received), 2),
            "side": low_res.shape[-1],
            "quantization": QUANTIZATION,
        }
        await self._send(header, logits)

    async def _decode(self, work: Callable[[ImagePredictor], ResultT]) -> ResultT:
        return await asyncio.wrap_future(self.host.decode(work))

    async def _embedding_unless_asked_again(self, item: str) -> Embedding | None:
        """The embedding of an image; None if a newer request came before there was one."""
        sha256 = self._sha256s.get(item)
        found = None if sha256 is None else self.host.embeddings.get(sha256)
        if found is not None:
            return found

        async def get() -> Embedding:
            return await asyncio.wrap_future(await self._request(item, Urgency.OPENED))

        getting, changed = asyncio.create_task(get()), asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait((getting, changed), return_when=asyncio.FIRST_COMPLETED)
            return getting.result() if getting.done() else None
        finally:
            getting.cancel()
            changed.cancel()

    def _asked(self, message: MessageT, received: float) -> _Asked[MessageT]:
        """A request with the logits it feeds back, which may be forgotten by the time it is answered."""
        if message.refine is None:
            return _Asked(message, received, None)
        low_res = self._tokens.get(message.refine.token)
        if low_res is None:
            raise LiveError("That prediction is not kept any more. Ask without it.", message.seq, "unknown_token")
        self._tokens.move_to_end(message.refine.token)
        if message.refine.candidate >= len(low_res):
            raise LiveError(f"That prediction has {len(low_res)} candidates.", message.seq, "invalid")
        return _Asked(message, received, low_res[message.refine.candidate])


def _low_res(
    predictor: ImagePredictor, embedding: Embedding, asked: _Asked[Predict]
) -> tuple[FloatArray, FloatArray, bytes]:
    """Logits [M, h, w] and scores [M] of the candidates, and the logits as they are sent."""
    prompt, masks = asked.prompt(predictor, embedding), _mask_mode(asked.message)
    low_res, scores, _ = predictor.predict_low_res(embedding, prompt, masks=masks)
    return low_res[0], scores[0], quantized(low_res[0]).tobytes()


def _mask_mode(message: Predict | Step) -> MaskMode:
    return "multi" if message.multimask else "single"


def _exact_mask(predictor: ImagePredictor, embedding: Embedding, asked: _Asked[Exact]) -> dict[str, Any]:
    candidate = asked.message.candidate
    prompt = asked.prompt(predictor, embedding)
    prediction = predictor.predict(embedding, prompt, masks="single" if candidate is None else "multi")
    mask = prediction.masks[0, candidate or 0]
    encoding = encode_masks(mask)[0]
    return {
        "type": "mask",
        "seq": asked.message.seq,
        "counts": encoding["counts"],
        "score": float(prediction.scores[0, candidate or 0]),
        "area": mask_area(encoding),
        "box_xyxy": [int(side) for side in box_xyxy(encoding)],
    }


def _keep(kept: OrderedDict[str, ValueT], key: str, value: ValueT, most: int) -> None:
    """Keep a value, and forget the one that was not used for longest."""
    kept[key] = value
    while len(kept) > most:
        kept.popitem(last=False)
