"""Messages to every open page, from any thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

Message: TypeAlias = "dict[str, Any]"

MAX_WAITING = 1000
"""Messages that wait for a page at most; a page that does not read them loses the oldest."""


class Events:
    """A broadcast of JSON messages.

    async with events.subscribe() as queue:
        message = await queue.get()
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscribers: set[tuple[asyncio.AbstractEventLoop, asyncio.Queue[Message]]] = set()

    def publish(self, message: Message) -> None:
        """Tell all subscribers; callable from any thread, never waits."""
        with self._lock:
            subscribers = list(self._subscribers)
        for loop, queue in subscribers:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and its subscriber with it
                loop.call_soon_threadsafe(_put, queue, message)

    @contextlib.asynccontextmanager
    async def subscribe(self) -> AsyncIterator[asyncio.Queue[Message]]:
        """A queue of the messages that are published inside the `with` block."""
        subscriber = asyncio.get_running_loop(), asyncio.Queue[Message](MAX_WAITING)
        with self._lock:
            self._subscribers.add(subscriber)
        try:
            yield subscriber[1]
        finally:
            with self._lock:
                self._subscribers.discard(subscriber)


def _put(queue: asyncio.Queue[Message], message: Message) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(message)
