"""The WebSocket of the page."""

from __future__ import annotations

from fastapi import APIRouter, WebSocket

from segany.server.dependencies import State

router = APIRouter()


@router.websocket("/live")
async def live(websocket: WebSocket, state: State) -> None:
    """Prompts up, predictions and progress down."""
    from segany.server.live import serve_live

    await serve_live(websocket, state)
