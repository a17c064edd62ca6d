"""The WebSocket of a page."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.websockets import WebSocket, WebSocketDisconnect

from segany.server.state import ServerState


async def serve_live(websocket: WebSocket, state: ServerState) -> None:
    """Tell a page the news until it closes its connection."""
    await websocket.accept()
    async with state.events.subscribe() as queue:

        async def tell() -> None:
            while True:
                await websocket.send_json(await queue.get())

        telling = asyncio.create_task(tell())
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await websocket.receive_text()
                await websocket.send_json({"type": "error", "message": "There is no model."})
        telling.cancel()
