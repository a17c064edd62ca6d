"""The decoder that the page runs itself where the server is far or busy: an export of the model, made once."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segany.core.errors import SeganyError
from segany.core.version import __version__
from segany.hub.exports import exported_folder
from segany.hub.model_ref import ModelRef
from segany.models.registry import MODELS
from segany.runtime.manifest import MANIFEST_NAME, read_manifest
from segany.runtime.model import ExportedModel

log = logging.getLogger(__name__)

_CHILD = "import sys; from segany.server.page_decoder import export; export(*sys.argv[1:])"


class PageDecoder:
    """Exports the decoder of a model in a process of low priority, and knows its files."""

    def __init__(self, folder: Path) -> None:
        """Keep exports of models that are given by path in a folder; those of models by name are in segany's cache."""
        self._folder = folder
        self._files: dict[str, Path] = {}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._is_closed = False

    def file(self, name: str) -> Path | None:
        """A file of the export by its name: the manifest, the decoder and its weights; None for any other name."""
        return self._files.get(name)

    def prepare(self, model: Any, ref: ModelRef) -> bool:
        """Export the model, unless that was done before, and return whether the page can have the decoder.

        Args:
            model: what `ref.load()` returned.
            ref: the model.
        """
        if isinstance(model, ExportedModel):
            folder: Path | None = Path(model.folder)
        else:
            folder = self._exported(ModelRef(ref.model, "torch", "cpu"), model.weights_sha256)
        if folder is None:
            return False
        try:
            decoder = read_manifest(folder).files["decoder"]
        except (SeganyError, KeyError):
            return False
        names = [MANIFEST_NAME, decoder.path] + ([decoder.data] if decoder.data else [])
        self._files = {name: folder / name for name in names if Path(name).name == name}
        return True

    def close(self) -> None:
        """Stop an export that is being made."""
        with self._lock:
            self._is_closed = True
            if self._process is not None:
                self._process.kill()

    def _exported(self, ref: ModelRef, weights_sha256: str) -> Path | None:
        if any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")):
            log.info("The page cannot decode itself without the extra segany[export].")
            return None
        own = self._folder / f"{weights_sha256[:16]}-{__version__}"
        command = [sys.executable, "-c", _CHILD, json.dumps(asdict(ref)), str(own)]
        with self._lock:
            if self._is_closed:
                return None
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        assert self._process.stdout is not None
        with self._process as process:  # `communicate` would close its stdin, at which it ends
            lines = self._process.stdout.read().splitlines()
        if process.returncode == 0:
            return Path(lines[-1])
        if not self._is_closed:
            log.warning("The decoder for the page was not exported: %s", lines[-1] if lines else "it was killed")
        return None


def export(ref_json: str, own: str) -> None:
    """Export a model, in a process of its own, and print the folder.

    Args:
        ref_json: the `ModelRef` as JSON.
        own: the folder for a model that is given by path.
    """
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    with contextlib.suppress(OSError, AttributeError):  # AttributeError: Windows has no such call
        os.nice(10)  # clicks go first
    ref = ModelRef(**json.loads(ref_json))
    if ref.model in MODELS:
        print(exported_folder(MODELS[ref.model]))
        return
    from segany.export import to_onnx

    folder = Path(own)
    if not (folder / MANIFEST_NAME).is_file():
        to_onnx(ref.load(), folder)  # type: ignore[arg-type] # its runtime is "torch"
    print(folder)


def _end_with_the_server() -> None:
    """Exit when the other end of the pipe is closed: the server was killed."""
    sys.stdin.read()
    os._exit(1)
