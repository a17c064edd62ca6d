"""Tasks over any number of items, by an executor; automatic masks of images in any storage, as Parquet."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeAlias

from segany.core.arrays import PixelArray
from segany.core.errors import DataError, OutOfMemoryError, SeganyError, check
from segany.core.progress import ProgressCallback, report
from segany.hub.model_ref import ModelRef
from segany.imaging.image import DEFAULT_MAX_PIXELS, read_image
from segany.imaging.pixels import AS_STORED, PixelOptions
from segany.jobs.executors import ChunkWork, Executor, LocalExecutor
from segany.jobs.parquet import ImageMasks, read_done, write_part
from segany.jobs.pipeline import ItemResult, ItemT, Status, Task, Written, run
from segany.jobs.records import DoneRecords
from segany.jobs.sources import ImageBytes, ImageUrl, Shard, Source
from segany.predict.automatic import AutomaticConfig, AutomaticMaskGenerator

ImageItem: TypeAlias = "ImageUrl | ImageBytes"


@dataclass(frozen=True, eq=False)
class _Pixels:
    """An image, uint8 [H, W, 3]; None where its result is there already."""

    sha256: str
    pixels: PixelArray | None


@dataclass(frozen=True)
class ScaleTask(Task[ImageItem, _Pixels, AutomaticMaskGenerator, "ImageMasks | None"]):
    """Automatic masks of images of any storage. The rows of the results are in the facts of `ItemResult`.

    Attributes:
        model: the model.
        out: path or URL of the folder of the results.
        config: config of the automatic mask generator.
        max_pixels: largest number of pixels of an image. Larger images are refused.
        pixel_options: interpretation of the values of images.
    """

    model: ModelRef
    out: str
    config: AutomaticConfig = AutomaticConfig()  # noqa: RUF009 - it is frozen
    max_pixels: int = DEFAULT_MAX_PIXELS
    pixel_options: PixelOptions = AS_STORED

    def settings(self) -> Mapping[str, Any]:
        return {
            "parquet": {
                "model": self.model.identity(),
                "config": asdict(self.config),
                "pixels": asdict(self.pixel_options),
            }
        }

    def settings_text(self) -> str:
        """The settings as JSON: what results are found again by."""
        return json.dumps(self.settings()["parquet"], sort_keys=True, default=str)

    def name(self, item: ImageItem) -> str:
        return item.name

    def open(self, progress: ProgressCallback | None) -> AutomaticMaskGenerator:
        model = self.model.load(progress)
        return AutomaticMaskGenerator(model, self.config, max_pixels=self.max_pixels)

    def read(self, item: ImageItem) -> _Pixels:
        data = item.read()
        digest = hashlib.sha256(data).hexdigest()
        if digest == item.known_sha256:
            return _Pixels(digest, None)
        return _Pixels(digest, read_image(data, self.max_pixels, name=item.url, options=self.pixel_options))

    def process(
        self,
        model: AutomaticMaskGenerator,
        value: _Pixels,
        parts: Sequence[str],  # noqa: ARG002
        progress: ProgressCallback | None,
    ) -> ImageMasks | None:
        if value.pixels is None:
            return None
        started = time.perf_counter()
        found = model.generate(value.pixels, progress=progress)
        seconds = time.perf_counter() - started
        identity, settings = self.model.identity(), self.settings_text()
        return ImageMasks("", "", value.sha256, identity, settings, seconds, time.time(), found)

    def write(self, item: ImageItem, output: ImageMasks | None) -> Written:
        return Written({}, {"row": output and replace(output, url=item.url, version=item.version)})


@dataclass(frozen=True)
class ImageDone:
    """What became of an image.

    Attributes:
        url: path or URL.
        status: "done", "skipped" (the content was done with these settings before) or "failed".
        masks: number of masks.
        seconds: duration in the model.
        error: message of a failed image.
    """

    url: str
    status: Status
    masks: int = 0
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class _Work:
    """A `ChunkWork`: each chunk, of images or of one shard, becomes parts in the folder of the results."""

    task: ScaleTask
    part_images: int

    def open(self) -> Callable[[Sequence[Source]], list[ImageDone]]:
        model = self.task.open(None)

        def run_chunk(chunk: Sequence[Source]) -> list[ImageDone]:
            done: list[ImageDone] = []
            images = _images(chunk, done)
            while group := list(islice(images, self.part_images)):
                results = run(self.task, group, model=model)
                rows = [result.facts["row"] for result in results if result.facts.get("row") is not None]
                write_part(self.task.out, rows, [item.url for item in group])
                done += [_done(result) for result in results]
            return done

        return run_chunk


def run_at_scale(
    task: ScaleTask,
    sources: Sequence[Source],
    executor: Executor | None = None,
    *,
    part_images: int = 16,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
    on_result: Callable[[ImageDone], None] | None = None,
) -> list[ImageDone]:
    """Find the automatic masks of images, and write them as Parquet; see `segany.jobs.parquet`.

    Images that are done with the same settings are skipped: without reading them if their storage says that they did
    not change, else if their content is the same. An image that cannot be read fails alone. An image at which
    workers die is tried alone once more, and then fails. Whatever is killed, the same call resumes, and loses at most
    the parts that were being made.

    Args:
        task: the task.
        sources: images and shards; see `list_sources`.
        executor: runs the chunks; by default `LocalExecutor()`.
        part_images: number of images of a part.
        overwrite: do finished images again.
        progress: called after each part, with the unit "images"; shards count once.
        on_result: called with the result of each image.

    Returns:
        The results, in the order in which the parts ended.

    Raises:
        OutputError: the results cannot be written.
        SeganyError: the model cannot be loaded.
    """
    check(part_images >= 1, f"part_images must be at least 1, got {part_images}.")
    executor = executor or LocalExecutor()
    known = {} if overwrite else read_done(task.out, task.settings_text())
    results: list[ImageDone] = []
    remaining: list[Source] = []

    def end(result: ImageDone) -> None:
        results.append(result)
        if on_result is not None:
            on_result(result)

    for source in sources:
        if isinstance(source, ImageUrl):
            version, sha256 = known.get(source.url, ("", ""))
            if version and version == source.version:
                end(ImageDone(source.url, "skipped"))
                continue
            remaining.append(replace(source, known_sha256=sha256))
        else:
            members = {url: sha256 for url, (_, sha256) in known.items() if url.startswith(f"{source.url}#")}
            remaining.append(replace(source, known=members))
    finished = len(sources) - len(remaining)
    report(progress, "automatic masks", finished, len(sources), "images")
    for count, ended in _over_chunks(executor, _Work(task, part_images), remaining, part_images, _lost):
        for result in ended:
            end(result)
        finished += count
        report(progress, "automatic masks", finished, len(sources), "images")
    return results


def run_on(
    executor: Executor,
    task: Task[ItemT, Any, Any, Any],
    items: Sequence[ItemT],
    records: DoneRecords,
    *,
    chunk_items: int = 8,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
    on_result: Callable[[ItemResult[ItemT]], None] | None = None,
) -> list[ItemResult[ItemT]]:
    """Do what `segany.jobs.run` does by an executor, in chunks of items.

    The workers read, write and keep records themselves: files and records must be on a file system that they share. An
    item at which workers die is tried alone once more, and then fails.

    Args:
        executor: runs the chunks.
        task, items, records, overwrite, on_result: as for `segany.jobs.run`.
        chunk_items: number of items of a chunk.
        progress: called after each chunk with the last item, with the unit "items".

    Raises:
        SeganyError: as for `segany.jobs.run`.
    """
    results: list[ItemResult[ItemT]] = []

    def lost(item: ItemT) -> ItemResult[ItemT]:
        return ItemResult(item, "failed", error=OutOfMemoryError(f"{task.name(item)}: {_DIED}"))

    work = _TaskWork(task, records.folder, overwrite)
    for _, ended in _over_chunks(executor, work, items, chunk_items, lost):
        results += ended
        for result in ended:
            if on_result is not None:
                on_result(result)
        report(progress, task.name(ended[-1].item), len(results), len(items), "items")
    return results


@dataclass(frozen=True)
class _TaskWork(Generic[ItemT]):
    """A `ChunkWork` that runs a task over each chunk."""

    task: Task[ItemT, Any, Any, Any]
    records: Path
    overwrite: bool

    def open(self) -> Callable[[Sequence[ItemT]], list[ItemResult[ItemT]]]:
        model = self.task.open(None)

        def run_chunk(chunk: Sequence[ItemT]) -> list[ItemResult[ItemT]]:
            return run(self.task, chunk, DoneRecords(self.records), overwrite=self.overwrite, model=model)

        return run_chunk


_DIED = "the workers that had it died, for instance because the memory was full."


def _lost(source: Source) -> ImageDone:
    return ImageDone(source.url, "failed", error=f"{source.url}: {_DIED}")


def _over_chunks(
    executor: Executor,
    work: ChunkWork[tuple[Any, ...], list[Any]],
    items: Sequence[Any],
    size: int,
    lost: Callable[[Any], Any],
) -> Iterator[tuple[int, list[Any]]]:
    """Yield the number of items of each chunk and its results. The items of lost chunks are tried alone once more.

    Chunks of few items are smaller than `size`, so that there are some for every worker.
    """
    remaining: list[Any] = list(items)
    for attempt in (max(1, min(size, len(items) // 16)), 1):
        chunks = _chunks(remaining, attempt)
        remaining = []
        for outcome in executor.map(work, chunks):
            chunk = chunks[outcome.index]
            if outcome.result is not None:
                yield len(chunk), outcome.result
            elif len(chunk) > 1:
                remaining += chunk
            else:
                yield len(chunk), [lost(item) for item in chunk]


def _chunks(items: Sequence[Any], size: int) -> list[tuple[Any, ...]]:
    """Items in chunks, and each shard alone."""
    single = [item for item in items if not isinstance(item, Shard)]
    chunks = [tuple(single[first : first + size]) for first in range(0, len(single), size)]
    return chunks + [(item,) for item in items if isinstance(item, Shard)]


def _images(chunk: Sequence[Source], done: list[ImageDone]) -> Iterator[ImageItem]:
    """The images of a chunk. What a damaged shard has after the damage is missing, and reported in `done`."""
    for source in chunk:
        if isinstance(source, ImageUrl):
            yield source
            continue
        try:
            yield from source.images()
        except DataError as error:
            done.append(ImageDone(source.url, "failed", error=str(error)))


def _done(result: ItemResult[ImageItem]) -> ImageDone:
    url, error = result.item.url, result.error
    if error is not None:
        return ImageDone(url, "failed", error=_message(error, url))
    row = result.facts["row"]
    if row is None:
        return ImageDone(url, "skipped")
    return ImageDone(url, "done", len(row.instances), row.seconds)


def _message(error: SeganyError, url: str) -> str:
    return str(error) if url in str(error) else f"{url}: {error}"
