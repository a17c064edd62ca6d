"""The model of a server: loaded in a thread, shared by clicks and jobs, and the embeddings that it makes."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar, cast

from segany.core.errors import ConfigError, EmbeddingError, SeganyError
from segany.core.progress import Cancellation, ProgressCallback, ProgressEvent, report
from segany.hub.model_ref import ModelRef
from segany.imaging.amg import Proposals
from segany.predict.automatic import ProposingModel
from segany.predict.image import ImagePredictor
from segany.runtime.model import ExportedModel
from segany.server.embeddings import MAX_BYTES, MAX_DISK_BYTES, Embeddings
from segany.server.page_decoder import PageDecoder

log = logging.getLogger(__name__)

REPORT_SECONDS = 0.25
"""How often the progress of loading is published at most."""

ResultT = TypeVar("ResultT")


class ModelHost:
    """The model of a server and its embeddings. Threads may share it.

    Attributes:
        model_version: the name and the weights of the model, for revisions and proposals; None until it is loaded.
        embeddings: of the images that were asked for.
    """

    def __init__(
        self,
        ref: ModelRef | None,
        embeddings_folder: Path,
        publish: Callable[[dict[str, Any]], None],
        max_embedding_bytes: int = MAX_BYTES,
        max_disk_bytes: int = MAX_DISK_BYTES,
        page_decoder: PageDecoder | None = None,
    ) -> None:
        """Prepare; `start` loads the model.

        Args:
            ref: the model; None for a server without one.
            embeddings_folder: where embeddings are kept on disk.
            publish: is called with the message {"type": "model", ...} whenever the state has changed, in any thread.
            max_embedding_bytes: size of the embeddings in memory.
            max_disk_bytes: size of the embeddings in the folder.
            page_decoder: exports the decoder for the page; None leaves all decoding to the server.
        """
        self.model_version: str | None = None
        self.embeddings = Embeddings(embeddings_folder, max_embedding_bytes, max_disk_bytes)
        self._ref, self._publish, self._page_decoder = ref, publish, page_decoder
        self._description: dict[str, Any] = {
            "name": "" if ref is None else Path(ref.model).name,
            "state": "loading",
            "message": "",
        }
        self._loaded: Future[ImagePredictor] = Future()
        self._closing = Cancellation()
        self._turns = _Turns()
        self._decoding = ThreadPoolExecutor(1, "decode")
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._exporting: threading.Thread | None = None
        self._last_report = 0.0

    def start(self) -> None:
        """Load the model in a thread. A failure is published like success."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the image and the click that are computed now."""
        self._closing.cancel()
        self.embeddings.close()
        self._decoding.shutdown(cancel_futures=True)
        if self._page_decoder is not None:
            self._page_decoder.close()
        for thread in (self._thread, self._exporting):
            if thread is not None and thread.is_alive():
                thread.join()

    def description(self) -> dict[str, Any]:
        """What the page shows of the model."""
        return dict(self._description)

    def embedding_bytes(self, sha256: str) -> bytes | None:
        """The embedding of an image as a file for the page, by the sha256 of the image file; None while there is none.

        It is of float16, of half the size, unless a value is too large for that.
        """
        embedding = self.embeddings.find(sha256)
        if embedding is None:
            return None
        try:
            return embedding.to_bytes(precision="fp16")
        except EmbeddingError:
            return embedding.to_bytes()

    def export_decoder(self) -> None:
        """Export the decoder for the page in a thread, once. The description says when pages can have it."""
        if self._page_decoder is None or self._exporting is not None or not self._loaded.done():
            return
        self._exporting = threading.Thread(target=self._export, name="decoder", daemon=True)
        self._exporting.start()

    def decoder_file(self, name: str) -> Path | None:
        """A file of the decoder that the page runs itself; None if it has no such file, or is not exported."""
        return None if self._page_decoder is None else self._page_decoder.file(name)

    def decode(self, work: Callable[[ImagePredictor], ResultT]) -> Future[ResultT]:
        """Call a function with the predictor in the thread for clicks, which do not wait for each other's jobs.

        Args:
            work: decodes one prompt. Its embedding shows that the model was loaded.

        Raises:
            SeganyError: the server is stopping.
        """
        if self._closing.is_canceled:
            raise SeganyError("The server is stopping.")
        self.embeddings.note_use()

        def run() -> ResultT:
            with self._turns.first():
                return work(self._loaded.result(timeout=0))

        return self._decoding.submit(run)

    def model_for_jobs(self, progress: ProgressCallback | None = None) -> tuple[ProposingModel, str]:
        """Wait for the model and its version. The model lets clicks go first, between its batches of prompts.

        Args:
            progress: is called while waiting, and may raise to end it.

        Raises:
            SeganyError: the model could not be loaded.
        """
        predictor = wait_for(self._loaded, progress, "waiting for the model")
        model = cast(ProposingModel, _PatientModel(predictor.model, self._turns))
        return model, self.model_version or predictor.model.name

    def _run(self) -> None:
        try:
            predictor = self._load()
        except Exception as error:
            self._fail(error)
            return
        self._loaded.set_result(predictor)
        self.embeddings.run(predictor)

    def _export(self) -> None:
        assert self._page_decoder is not None
        assert self._ref is not None
        if self._page_decoder.prepare(self._loaded.result(timeout=0).model, self._ref):
            self._tell(decoder=True)

    def _load(self) -> ImagePredictor:
        if self._ref is None:
            raise ConfigError("None was chosen when the server was started.")
        self._tell(state="loading")
        model = self._ref.load(self._closing.watch(self._report))
        version = f"{model.name}@{model.weights_sha256[:16]}"
        # Runtimes round differently.
        self.model_version = f"{version} in {model.runtime}" if isinstance(model, ExportedModel) else version
        shape = model.processor.preprocessing
        facts = {"input_size": shape.input_size, "resize": shape.resize}
        self._tell(name=model.name, state="ready", message="", preprocessing=facts)
        return ImagePredictor(model)

    def _fail(self, error: Exception) -> None:
        message = str(error)
        if not isinstance(error, SeganyError):
            log.error("The model cannot be loaded.", exc_info=error)
            message = f"{type(error).__name__}: {error}"
        failure = f"The model is not available: {message}"
        self._loaded.set_exception(SeganyError(failure))
        self.embeddings.fail(failure)
        if not self._closing.is_canceled:
            self._tell(state="failed", message=message)

    def _report(self, event: ProgressEvent) -> None:
        if time.monotonic() - self._last_report < REPORT_SECONDS:
            return
        self._last_report = time.monotonic()
        share = f" {event.done / event.total:.0%}" if event.total else ""
        self._tell(message=f"{event.task}{share}")

    def _tell(self, **changes: Any) -> None:
        self._description = {**self._description, **changes}
        self._publish({"type": "model", **self._description})


class _Turns:
    """Lets one thread at a time decode: first those with a click, then those with a job."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._is_taken = False
        self._first = 0

    @contextlib.contextmanager
    def first(self) -> Iterator[None]:
        """Take the next turn."""
        with self._changed:
            self._first += 1
            self._changed.wait_for(lambda: not self._is_taken)
            self._first -= 1
            self._is_taken = True
        try:
            yield
        finally:
            self._give_back()

    @contextlib.contextmanager
    def last(self) -> Iterator[None]:
        """Take a turn when nobody else wants one."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_taken and self._first == 0)
            self._is_taken = True
        try:
            yield
        finally:
            self._give_back()

    def _give_back(self) -> None:
        with self._changed:
            self._is_taken = False
            self._changed.notify_all()


class _PatientModel:
    """A model that decodes when nobody else does, a batch at a time. In all else it is the model."""

    def __init__(self, model: Any, turns: _Turns) -> None:
        self._model, self._turns = model, turns

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def predict_low_res(self, *args: Any, **kwargs: Any) -> Any:
        with self._turns.last():
            return self._model.predict_low_res(*args, **kwargs)

    def propose(self, *args: Any) -> Iterator[Proposals]:
        batches = self._model.propose(*args)
        while True:
            with self._turns.last():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


def wait_for(future: Future[ResultT], progress: ProgressCallback | None, task: str) -> ResultT:
    """Wait in a job for a result, reporting, so that the job can be canceled meanwhile."""
    while not wait([future], REPORT_SECONDS).done:
        report(progress, task, 0, None, "")
    return future.result()
