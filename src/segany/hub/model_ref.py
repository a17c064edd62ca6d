"""A model as a small value that another process can load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segany.core.errors import CheckpointError, ConfigError
from segany.hub.load import Runtime, load
from segany.runtime import ExportedModel

if TYPE_CHECKING:
    from segany.runtime.torch_model import TorchModel


@dataclass(frozen=True)
class ModelRef:
    """Which model a worker loads, and with which weights. It can be pickled.

    Example:
        >>> ref = segany.ModelRef.of(segany.load("mobile_sam"))
        >>> model = ref.load()  # in another process

    Attributes:
        source: a name or an absolute path, for `segany.load`.
        sha256: of the weights; `weights_sha256` of a model.
        runtime: what runs the model.
        device: for `segany.load`; None chooses there.
        precision: the dtype in PyTorch, such as "float32"; of an exported model that of its manifest.
    """

    source: str
    sha256: str
    runtime: Runtime = "torch"
    device: str | None = None
    precision: str = "float32"

    @classmethod
    def of(cls, model: TorchModel | ExportedModel) -> ModelRef:
        """The reference to a model that `segany.load` returned. It takes one pass over all weights.

        Raises:
            ConfigError: the model was not loaded from anywhere, so nobody else can load it.
        """
        if isinstance(model, ExportedModel):
            folder, precision = str(model.folder.absolute()), str(model.manifest.precision)
            return cls(folder, model.weights_sha256, model.runtime, model.device, precision)
        if model.source is None:
            raise ConfigError(f"{model.name} was not loaded from anywhere. Save it, and load the file.")
        precision = str(model.dtype).removeprefix("torch.")
        return cls(model.source, model.weights_sha256, "torch", str(model.device), precision)

    def load(self) -> TorchModel | ExportedModel:
        """Load the model.

        Raises:
            CheckpointError: there are other weights now.
            SeganyError: as for `segany.load`.
        """
        model: TorchModel | ExportedModel
        source = Path(self.source) if Path(self.source).is_absolute() else self.source
        if self.runtime == "torch":
            import torch

            model = load(source, runtime="torch", device=self.device, dtype=getattr(torch, self.precision))
        else:
            model = load(source, runtime=self.runtime, device=self.device)
        if model.weights_sha256 != self.sha256:
            raise CheckpointError(
                f"{self.source} has other weights than it had: their sha256 is {model.weights_sha256[:16]}..., not "
                f"{self.sha256[:16]}.... Make the reference anew; save a model that was changed after it was loaded."
            )
        return model
