# ruff: noqa: ARG002
"""The model of a server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from segany.hub.model_ref import ModelRef


class ModelHost:
    """No model yet: the page works for brush and polygon."""

    model_version: str | None = None

    def __init__(
        self, ref: ModelRef | None, embeddings_folder: Path, publish: Callable[[dict[str, Any]], None]
    ) -> None:
        self._name = "" if ref is None else ref.model

    def start(self) -> None:
        """Nothing is loaded."""

    def close(self) -> None:
        """Nothing was loaded."""

    def description(self) -> dict[str, Any]:
        """What the page shows of the model."""
        return {"name": self._name, "state": "failed", "message": "There is no model."}

    def embedding_bytes(self, sha256: str) -> bytes | None:
        """None: there is no model."""
        return None
