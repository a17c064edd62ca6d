"""Running protocols on a whole dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

from segany.core.errors import DataError, ImageError, VideoError, check
from segany.data.item import SkippedItem
from segany.evaluate.journal import Entry, Journal
from segany.evaluate.protocol import Numbers, Protocol, Record

DatasetProgress = Callable[[str, float, int], None]
"""Told the name of the image or video in hand, how many are done, and how many there are."""


class Readable(Interface):
    """What is evaluated: a `Dataset` of images, or the same of videos."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> Any: ...


class Subject(Interface):
    """An image or a video with the predictor that it is measured with."""

    @property
    def left_out(self) -> int: ...


@dataclass(frozen=True)
class ModelFacts:
    """Which model was evaluated.

    Attributes:
        name: of the registry.
        encoder_id: digest of the image encoder's weights.
        weights_id: digest of all weights: fine-tuned decoders have the encoder of others.
    """

    name: str
    encoder_id: str
    weights_id: str

    @classmethod
    def of(cls, model: Any) -> ModelFacts:
        """Of what `segany.load` returned."""
        if hasattr(model, "manifest"):
            digests = sorted(record.sha256 for record in model.manifest.files.values())
            return cls(model.name, model.encoder_id, "-".join(digest[:16] for digest in digests))
        from segany.models.convert import encoder_id

        return cls(model.name, model.encoder_id, encoder_id(model))


@dataclass(frozen=True, eq=False)
class Results:
    """What was measured of a dataset.

    Attributes:
        dataset: what it is called.
        model: which model it was.
        protocols: what was measured.
        measured: how many images or videos were, by protocol.
        left_out: how many of their objects have no pixel.
        skipped: those that could not be read.
        records: of every image or video, by protocol and name.
    """

    dataset: str
    model: ModelFacts
    protocols: tuple[Protocol, ...]
    measured: int
    left_out: int
    skipped: tuple[SkippedItem, ...]
    records: Mapping[str, Mapping[str, Sequence[Record]]]

    def numbers(self, protocol: Protocol) -> Numbers:
        """The numbers of one of the protocols."""
        return protocol.summarize(self.flat_records(protocol))

    def flat_records(self, protocol: Protocol) -> list[Record]:
        """The records of one of the protocols, of all images or videos."""
        return [record for records in self.records[protocol.name].values() for record in records]

    def as_json(self) -> dict[str, Any]:
        """Everything but the records, as `results.json` has it."""
        from segany.core.version import __version__

        return {
            "dataset": self.dataset,
            "model": asdict(self.model),
            "segany": __version__,
            "measured": self.measured,
            "objects_left_out": self.left_out,
            "skipped": [asdict(one) for one in self.skipped],
            "protocols": {one.name: {"settings": one.settings, "numbers": self.numbers(one)} for one in self.protocols},
        }


def evaluate(
    dataset: Readable,
    subject_of: Callable[[Any], Subject],
    protocols: Sequence[Protocol],
    folder: Path,
    model: ModelFacts,
    *,
    name: str,
    source: str = "",
    max_images: int | None = None,
    overwrite: bool = False,
    progress: DatasetProgress | None = None,
) -> Results:
    """Run protocols on a dataset. What a run before has measured already is taken from its files.

    Args:
        dataset: images or videos, as the protocols need.
        subject_of: makes what the protocols measure of what the dataset reads.
        protocols: of different names.
        folder: of the files `PROTOCOL.jsonl`, in which every image or video has a line once it is measured.
        model: which model it is; what others have measured is not taken over.
        name: what the dataset is called.
        source: where it is and how it is read; what was measured on data of another source is not taken over.
        max_images: only so many images or videos, the first ones.
        overwrite: measure everything anew.
        progress: told of the work.

    Raises:
        DataError: the dataset is empty, or nothing of it can be read.
        OutputError: the folder holds results of another model, other data or other settings, or cannot be written to.
        ConfigError: there is no protocol, two have the same name, or the max_images is no positive number.
    """
    names = _names(dataset, protocols, name, max_images)
    journals = {
        one.name: Journal(
            folder / f"{one.name}.jsonl",
            {"dataset": name, "source": source, "model": asdict(model), "settings": one.settings},
            overwrite=overwrite,
        )
        for one in protocols
    }
    skipped: list[SkippedItem] = []
    for index, item_name in enumerate(names):
        missing = [one for one in protocols if item_name not in journals[one.name].entries]
        if progress is not None:
            progress(item_name, index, len(names))
        if missing:
            reason = _measure(dataset, index, subject_of, missing, journals, _Teller(progress, item_name, index, names))
            if reason is not None:
                skipped.append(SkippedItem(item_name, reason))
    if len(skipped) == len(names):
        raise DataError(f"Nothing of the dataset {name} can be read. The first: {skipped[0].reason}")
    if progress is not None:
        progress("", len(names), len(names))
    not_read = {one.name for one in skipped}
    read = [one for one in names if one not in not_read]
    first = journals[protocols[0].name].entries
    return Results(
        name,
        model,
        tuple(protocols),
        measured=len(read),
        left_out=sum(first[one].left_out for one in read),
        skipped=tuple(skipped),
        records={key: {one: journal.entries[one].records for one in read} for key, journal in journals.items()},
    )


def _names(dataset: Readable, protocols: Sequence[Protocol], name: str, max_images: int | None) -> tuple[str, ...]:
    """What is to be measured."""
    check(len(protocols) > 0, "There is no protocol. Give at least one.")
    check(len({one.name for one in protocols}) == len(protocols), "A protocol is there twice. Give each once.")
    check(max_images is None or max_images >= 1, f"max_images must be at least 1, got {max_images}.")
    names = dataset.names[:max_images]
    if not names:
        raise DataError(f"The dataset {name} is empty: there is nothing to evaluate.")
    return names


class _Teller:
    """Tells the progress within one image or video."""

    def __init__(self, progress: DatasetProgress | None, name: str, index: int, names: Sequence[str]) -> None:
        self.progress, self.name, self.index, self.total = progress, name, index, len(names)

    def within(self, number: int, count: int) -> Callable[[float], None]:
        """For the protocol of that number, of so many."""

        def tell(share: float) -> None:
            if self.progress is not None:
                self.progress(self.name, self.index + (number + min(1.0, share)) / count, self.total)

        return tell


def _measure(
    dataset: Readable,
    index: int,
    subject_of: Callable[[Any], Subject],
    protocols: Sequence[Protocol],
    journals: Mapping[str, Journal],
    teller: _Teller,
) -> str | None:
    """Measure one image or video. Returns why it cannot be read, if so."""
    name = dataset.names[index]
    try:
        subject = subject_of(dataset.read(index))
        for number, one in enumerate(protocols):
            tell = teller.within(number, len(protocols))
            records = one.measure(subject, tell)
            journals[one.name].add(name, Entry(records, subject.left_out))
            tell(1.0)
    except (DataError, ImageError, VideoError) as error:  # of videos, frames and masks are read on the way
        return str(error)
    return None
