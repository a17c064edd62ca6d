"""What was measured of a dataset, and with which model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from typing import Protocol as Interface

from segany.data.item import SkippedItem
from segany.evaluate.protocol import Numbers, Protocol, Record


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
