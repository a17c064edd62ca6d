"""What all requests share."""

from __future__ import annotations

from dataclasses import dataclass

from segany.server.events import Events
from segany.server.model_host import ModelHost
from segany.store import Store


@dataclass
class ServerState:
    """The open project and what works on it.

    Attributes:
        store: the project.
        model_host: the model, which may still be loading or missing.
        events: what every open page is told.
        author: who annotates.
    """

    store: Store
    model_host: ModelHost
    events: Events
    author: str
