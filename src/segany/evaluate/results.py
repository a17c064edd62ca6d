"""The results of an evaluation, and the identity of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from typing import Protocol as Interface

from segany.data.item import SkippedItem
from segany.evaluate.protocol import Numbers, Protocol, Record


class Readable(Interface):
    """A dataset to evaluate: a `Dataset` of images, or one of videos."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> Any: ...


class Subject(Interface):
    """An image or a video, and the predictor to measure."""

    @property
    def left_out(self) -> int: ...


@dataclass(frozen=True)
class ModelFacts:
    """The identity of the evaluated model.

    Attributes:
        name: name of the model in the registry.
        encoder_id: digest of the image encoder's weights.
        weights_id: digest of all weights, because models with fine-tuned decoders share an encoder.
    """

    name: str
    encoder_id: str
    weights_id: str

    @classmethod
    def of(cls, model: Any) -> ModelFacts:
        """The identity of a model that `segany.load` returned."""
        return cls(model.name, model.encoder_id, model.weights_id)


@dataclass(frozen=True, eq=False)
class Results:
    """The results of an evaluation on a dataset.

    Attributes:
        dataset: name of the dataset.
        model: identity of the model.
        protocols: the protocols.
        measured: number of images or videos that were measured.
        left_out: number of their objects without a pixel.
        skipped: images or videos that could not be read.
        records: records of each image or video, by protocol and name.
        omitted: what the dataset leaves out without reading it, such as images without masks: counts by kind.
    """

    dataset: str
    model: ModelFacts
    protocols: tuple[Protocol, ...]
    measured: int
    left_out: int
    skipped: tuple[SkippedItem, ...]
    records: Mapping[str, Mapping[str, Sequence[Record]]]
    omitted: Mapping[str, int] = field(default_factory=dict)

    def numbers(self, protocol: Protocol) -> Numbers:
        """The metrics of one of the protocols."""
        return protocol.summarize(self.flat_records(protocol))

    def flat_records(self, protocol: Protocol) -> list[Record]:
        """The records of one of the protocols, for all images or videos."""
        return [record for records in self.records[protocol.name].values() for record in records]

    def as_json(self) -> dict[str, Any]:
        """The content of `results.json`: everything except the records."""
        from segany.core.version import __version__

        return {
            "dataset": self.dataset,
            "model": asdict(self.model),
            "segany": __version__,
            "measured": self.measured,
            "objects_left_out": self.left_out,
            "omitted": dict(self.omitted),
            "skipped": [asdict(one) for one in self.skipped],
            "protocols": {one.name: {"settings": one.settings, "numbers": self.numbers(one)} for one in self.protocols},
        }
