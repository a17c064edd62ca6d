"""Evaluation of a model on a dataset by protocols."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar
from typing import Protocol as Interface

from segany.core.errors import DataError, ImageError, OutputError, SeganyError, VideoError, check
from segany.core.progress import ProgressCallback, ProgressEvent
from segany.data.item import SkippedItem, omitted_by
from segany.evaluate.protocol import Protocol
from segany.evaluate.protocols import ImageSubject
from segany.evaluate.results import ModelFacts, Readable, Results
from segany.evaluate.tracking import VideoProtocol, VideoSubject
from segany.jobs.pipeline import ItemResult, Task, Written, run
from segany.jobs.records import RECORDS_FOLDER, DoneRecords
from segany.predict.image import ImagePredictor


class ModelSource(Interface):
    """Loads a model: a `ModelRef`, or a `LoadedModel` in this process."""

    def load(self, progress: ProgressCallback | None = None) -> Any: ...


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model that is already in memory."""

    model: Any

    def load(self, progress: ProgressCallback | None = None) -> Any:  # noqa: ARG002
        return self.model


@dataclass(frozen=True, eq=False)
class EvaluationTask(Task[int, Any, Any, Mapping[str, Any]]):
    """Measure images or videos by protocols. An item is an index into the dataset.

    Records identify an item by its name and the source of the dataset instead of a digest of its content: reading all
    images and masks only to skip them would take as long as measuring them on a GPU.

    Attributes:
        dataset: a dataset of images or videos, as the protocols need.
        model: the model to measure.
        facts: identity of the model.
        protocols: the protocols, the parts of an item.
        title: name of the dataset.
        source: location of the dataset, and the options with which it is read.

    Raises:
        ConfigError: there is no protocol, or two have the same name.
    """

    item_errors: ClassVar[tuple[type[SeganyError], ...]] = (DataError, ImageError, VideoError)

    dataset: Readable
    model: ModelSource
    facts: ModelFacts
    protocols: tuple[Protocol, ...]
    title: str
    source: str = ""

    def __post_init__(self) -> None:
        check(len(self.protocols) > 0, "There is no protocol. Give at least one.")
        names = {one.name for one in self.protocols}
        check(len(names) == len(self.protocols), "A protocol is given twice. Give each once.")

    def settings(self) -> Mapping[str, Any]:
        shared = {"dataset": self.title, "source": self.source, "model": asdict(self.facts)}
        return {one.name: {**shared, "settings": one.settings} for one in self.protocols}

    def name(self, item: int) -> str:
        return self.dataset.names[item]

    def is_there(self, part: str, value: Any) -> bool:
        """Whether a recorded value can be summarized: a damaged one is measured again."""
        protocol = next(one for one in self.protocols if one.name == part)
        try:
            numbers = protocol.summarize(value["records"])
            scores = [protocol.worst(record) for record in value["records"]]
            return value["left_out"] >= 0 and all(math.isfinite(one) for one in (*numbers.values(), *scores) if one)
        except Exception:  # protocols read their records without checks, each in its way
            return False

    def open(self, progress: ProgressCallback | None) -> Callable[[Any], Any]:
        return subject_maker(self.model.load(progress), self.protocols)

    def read(self, item: int) -> Any:
        return self.dataset.read(item)

    def process(
        self, model: Callable[[Any], Any], value: Any, parts: Sequence[str], progress: ProgressCallback | None
    ) -> Mapping[str, Any]:
        subject = model(value)
        values = {}
        for number, one in enumerate([one for one in self.protocols if one.name in parts]):
            records = one.measure(subject, _share_of(progress, number, len(parts)))
            values[one.name] = {"records": records, "left_out": subject.left_out}
        return values

    def write(self, item: int, output: Mapping[str, Any]) -> Written:  # noqa: ARG002
        return Written(output)


def subject_maker(model: Any, protocols: Sequence[Protocol]) -> Callable[[Any], Any]:
    """A function from what a dataset reads, an `AnnotatedImage` or `AnnotatedVideo`, to the subject of protocols.

    Raises:
        ConfigError: the protocols are for videos, and the model cannot track.
    """
    if any(isinstance(one, VideoProtocol) for one in protocols):
        from segany.predict.video import VideoPredictor

        tracker = VideoPredictor(model)
        return lambda video: VideoSubject(tracker, video)
    predictor = ImagePredictor(model)
    return lambda annotated: ImageSubject(predictor, annotated)


def evaluate(
    task: EvaluationTask,
    folder: Path,
    *,
    max_images: int | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> Results:
    """Evaluate a model on a dataset. Items that an earlier run has measured are taken from the records in the folder.

    Args:
        task: the task.
        folder: folder of the records, and of the report that `write_report` writes.
        max_images: number of images or videos to measure, from the first; None for all.
        overwrite: measure all items again.
        progress: called with the progress of the work.

    Raises:
        DataError: the dataset is empty, or none of its items can be read.
        OutputError: the folder holds results of another model, other data or other settings, or cannot be written to.
        ConfigError: `max_images` is not positive, or the protocols do not fit the model.
    """
    check(max_images is None or max_images >= 1, f"max_images must be at least 1, got {max_images}.")
    names = task.dataset.names[:max_images]
    if not names:
        raise DataError(f"The dataset {task.title} is empty: there is nothing to evaluate.")
    records = DoneRecords(folder / RECORDS_FOLDER)
    if overwrite:
        records.clear()
    conflict = records.find_conflict(task.settings())
    if conflict is not None:
        raise OutputError(
            f"{folder} holds results of another model, other data or other settings, such as those of {conflict}. "
            "Choose another folder, or say that they may be overwritten (--overwrite)."
        )
    results = run(task, range(len(names)), records, progress=progress)
    return _gather(task, sorted(results, key=lambda one: one.item))


def _gather(task: EvaluationTask, results: Sequence[ItemResult[int]]) -> Results:
    skipped = [SkippedItem(task.name(one.item), str(one.error)) for one in results if one.error is not None]
    measured = {task.name(one.item): one.values for one in results if one.error is None}
    if not measured:
        raise DataError(f"Nothing of the dataset {task.title} can be read. The first: {skipped[0].reason}")
    first = task.protocols[0].name
    return Results(
        task.title,
        task.facts,
        task.protocols,
        measured=len(measured),
        left_out=sum(values[first]["left_out"] for values in measured.values()),
        skipped=tuple(skipped),
        records={
            one.name: {name: values[one.name]["records"] for name, values in measured.items()} for one in task.protocols
        },
        omitted=omitted_by(task.dataset),
    )


def _share_of(progress: ProgressCallback | None, number: int, count: int) -> ProgressCallback | None:
    """A callback for one of `count` protocols, which reports its progress as a share of that of all protocols."""
    if progress is None:
        return None

    def tell(event: ProgressEvent) -> None:
        if event.total is not None:
            event = ProgressEvent(event.task, number * event.total + event.done, count * event.total, event.unit)
        progress(event)

    return tell
