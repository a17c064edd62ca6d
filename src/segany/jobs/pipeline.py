"""Automatic masks of many images: one is read and another written while the model works on a third."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Protocol

from segany.core.arrays import PixelArray
from segany.core.embedding import Embedding
from segany.core.errors import EmbeddingError, ImageError, OutputError, SeganyError
from segany.core.files import sha256_of
from segany.core.instances import Instances
from segany.data.formats.table import AUTOMATIC_FORMATS
from segany.data.formats.writing import FormatOptions, write_files
from segany.data.item import AnnotatedImage
from segany.imaging.image import image_id, read_image
from segany.jobs.done_notes import DoneNotes
from segany.predict.automatic import AutomaticMaskGenerator

READ_AHEAD = 2
"""Images that are read before the model gets to them, and results that wait to be written: what bounds the memory."""


@dataclass(frozen=True)
class AutoPlan:
    """What to do with many images.

    Attributes:
        images: the files, and for each what the names of its results begin with.
        out: folder of the results.
        formats: keys of `AUTOMATIC_FORMATS`.
        notes: on what was done already.
        again: do that anew.
        options: of the formats.
        max_pixels: larger images are refused.
        embeddings: folder where embeddings are kept and looked for.
    """

    images: Sequence[tuple[Path, str]]
    out: Path
    formats: tuple[str, ...]
    notes: DoneNotes
    again: bool
    options: FormatOptions
    max_pixels: int
    embeddings: Path | None


@dataclass(frozen=True, eq=False)
class ImageReport:
    """An image that is done: how large it is, how many masks it has, how long they took, and the files."""

    source: Path
    instances: Instances
    seconds: float
    files: dict[str, list[Path]]


class Watcher(Protocol):
    """Is told how the work goes on, in the main thread."""

    def started(self, source: Path) -> None: ...

    def progressed(self, done: int, total: int) -> None: ...

    def skipped(self, source: Path) -> None: ...

    def failed(self, source: Path, error: SeganyError) -> None: ...

    def finished(self, report: ImageReport) -> None: ...


@dataclass(frozen=True, eq=False)
class _Picture:
    source: Path
    name: str
    sha256: str
    pixels: PixelArray


class Pipeline:
    """Runs a plan. Reading and writing have a thread each; the model runs in the one that calls `run`."""

    def __init__(self, plan: AutoPlan, open_generator: Callable[[], AutomaticMaskGenerator], watcher: Watcher) -> None:
        """Prepare to run a plan.

        Args:
            plan: what to do.
            open_generator: loads the model; called when the first image needs it, and then never again.
            watcher: is told of every image.
        """
        self.plan, self.open_generator, self.watcher = plan, open_generator, watcher
        self._reader, self._writer = ThreadPoolExecutor(1, "read"), ThreadPoolExecutor(1, "write")
        self._writing: deque[Future[ImageReport | None]] = deque()
        self._stopped = threading.Event()
        self._sources = {source.resolve() for source, _ in plan.images}

    def run(self) -> None:
        """Do all images. What is wrong with one of them goes to the watcher, and the others are done.

        Raises:
            OutputError: results cannot be written; there is no point in going on.
            SeganyError: the model cannot be loaded.
        """
        generator: AutomaticMaskGenerator | None = None
        try:
            for source, reading in self._read_ahead():
                try:
                    picture = reading.result()
                except ImageError as error:
                    self.watcher.failed(source, error)
                    continue
                if picture is None:
                    self.watcher.skipped(source)
                    continue
                self.watcher.started(source)
                generator = generator or self.open_generator()
                self._find_masks(generator, picture)
                self._report_written(at_most_waiting=READ_AHEAD - 1)
            self._report_written(at_most_waiting=0)
        finally:
            self._stopped.set()
            for thread in (self._reader, self._writer):
                thread.shutdown(cancel_futures=True)

    def _read_ahead(self) -> Iterator[tuple[Path, Future[_Picture | None]]]:
        ahead: deque[tuple[Path, Future[_Picture | None]]] = deque()
        for source, name in self.plan.images:
            ahead.append((source, self._reader.submit(self._read, source, name)))
            if len(ahead) > READ_AHEAD:
                yield ahead.popleft()
        while ahead:
            yield ahead.popleft()

    def _read(self, source: Path, name: str) -> _Picture | None:
        """The image; None where it is done already."""
        try:
            sha256 = sha256_of(source)
        except OSError:
            sha256 = ""  # what the matter is, reading the image tells
        if not self.plan.again and self.plan.notes.is_done(name, sha256, self.plan.formats):
            return None
        return _Picture(source, name, sha256, read_image(source, self.plan.max_pixels))

    def _find_masks(self, generator: AutomaticMaskGenerator, picture: _Picture) -> None:
        started = perf_counter()
        try:
            kept = self.plan.embeddings
            image = picture.pixels if kept is None else self._embed(generator, picture, kept)
            instances = generator.generate(image, progress=self._progressed)
        except OutputError:  # of an earlier image: see _progressed
            raise
        except SeganyError as error:
            self.watcher.failed(picture.source, error)
            return
        seconds = perf_counter() - started
        self._writing.append(self._writer.submit(self._write, picture, instances, seconds))

    def _progressed(self, done: int, total: int) -> None:
        """Tell of the points that are done, and of images written meanwhile; fail where those cannot be."""
        self.watcher.progressed(done, total)
        self._report_written(at_most_waiting=READ_AHEAD)

    def _embed(self, generator: AutomaticMaskGenerator, picture: _Picture, folder: Path) -> Embedding:
        """The embedding of an image: from its file where there is a good one, and else into it."""
        model = generator.predictor.model
        path = folder / f"{image_id(picture.pixels)}_{model.encoder_id}.safetensors"
        with contextlib.suppress(EmbeddingError):  # none yet, or a damaged one
            embedding = Embedding.load(path)
            embedding.check_model(model.name, model.encoder_id, model.preprocessing)
            return embedding
        embedding = generator.predictor.embed(picture.pixels)
        self._writing.append(self._writer.submit(self._save, embedding, path))
        return embedding

    def _save(self, embedding: Embedding, path: Path) -> None:
        embedding.save(path)

    def _write(self, picture: _Picture, instances: Instances, seconds: float) -> ImageReport | None:
        """Write all files of an image, and then the note that they are there. None where the run has stopped."""
        plan = self.plan
        annotated = AnnotatedImage(picture.name, picture.pixels, instances, picture.source.name)
        files: dict[str, list[Path]] = {}
        for item in plan.formats:
            if self._stopped.is_set():
                return None
            encoded = AUTOMATIC_FORMATS[item](annotated, plan.options)
            files[item] = write_files(encoded, plan.out, f"{picture.name}_auto", self._sources)
        _remove_other_masks(files.get("masks-png", ()))
        plan.notes.write(picture.name, picture.sha256, files)
        return ImageReport(picture.source, instances, seconds, files)

    def _report_written(self, at_most_waiting: int) -> None:
        """Tell of the results that are written, waiting for the oldest ones until few enough are left."""
        while self._writing and (self._writing[0].done() or len(self._writing) > at_most_waiting):
            report = self._writing.popleft().result()
            if report is not None:
                self.watcher.finished(report)


def _remove_other_masks(written: Sequence[Path]) -> None:
    """Delete masks of an earlier run that found more, so that a folder holds what its metadata.csv lists."""
    for folder in {path.parent for path in written}:
        for path in folder.glob("*.png"):
            if path.stem.isdigit() and path not in written:
                path.unlink(missing_ok=True)
