"""A model as a small value: what names it, so that another thread, process or machine can load it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segany.core.errors import CheckpointError, ConfigError
from segany.core.files import path_errors, sha256_of
from segany.core.progress import ProgressCallback
from segany.hub.load import Runtime, load
from segany.models.registry import DEFAULT_MODEL, MODELS
from segany.runtime import ExportedModel
from segany.runtime.manifest import MANIFEST_NAME, is_export, read_manifest

if TYPE_CHECKING:
    from segany.runtime.torch_model import TorchModel


@dataclass(frozen=True)
class ModelRef:
    """The arguments of `segany.load`, and which weights are meant. Hashable and picklable.

    Example:
        >>> ref = segany.ModelRef.of(segany.load("mobile_sam"))
        >>> model = ref.load()  # in another process

    Attributes:
        model: a name, the path of a checkpoint, or the folder of an export.
        runtime: what runs it; None is PyTorch, or ONNX Runtime for an exported folder.
        device: where; None is CUDA where there is any, else the CPU.
        precision: the dtype in PyTorch, such as "float32", which None is; of an exported model that of its files.
        weights_sha256: of the weights, which `load` checks; None takes what is there.
    """

    model: str = DEFAULT_MODEL
    runtime: Runtime | None = None
    device: str | None = None
    precision: str | None = None
    weights_sha256: str | None = None

    @classmethod
    def of(cls, model: TorchModel | ExportedModel) -> ModelRef:
        """The reference to a model that `segany.load` returned, with its weights. It reads all weights once.

        Raises:
            ConfigError: the model was not loaded from anywhere, so that nobody else can load it.
        """
        if isinstance(model, ExportedModel):
            folder, precision = str(model.folder.absolute()), str(model.manifest.precision)
            return cls(folder, model.runtime, model.device, precision, model.weights_sha256)
        if model.source is None:
            raise ConfigError(f"{model.name} was not loaded from anywhere. Save it, and load the file.")
        precision = str(model.dtype).removeprefix("torch.")
        return cls(model.source, "torch", str(model.device), precision, model.weights_sha256)

    def load(self, progress: ProgressCallback | None = None) -> TorchModel | ExportedModel:
        """Load the model.

        Raises:
            CheckpointError: the weights are others than those that are meant.
            SeganyError: as of `segany.load`.
        """
        model: TorchModel | ExportedModel
        source = Path(self.model) if Path(self.model).is_absolute() else self.model
        if self.runtime is None or self.runtime == "torch":
            dtype = None
            if self.precision is not None and not is_export(self.model):
                import torch

                dtype = getattr(torch, self.precision)
            model = load(source, runtime=self.runtime, device=self.device, dtype=dtype, progress=progress)
        else:
            model = load(source, runtime=self.runtime, device=self.device, progress=progress)
        if self.weights_sha256 is not None and model.weights_sha256 != self.weights_sha256:
            raise CheckpointError(
                f"{self.model} has other weights than it had: their sha256 is {model.weights_sha256[:16]}..., not "
                f"{self.weights_sha256[:16]}.... Make the reference anew, or save a changed model and load the file."
            )
        return model

    def identity(self) -> str:
        """What tells the masks of this model from those of others, without loading it.

        That is its name where its weights are published, else the sha256 of the file; and the runtime, as
        runtimes round differently.

        Raises:
            CheckpointError: the path cannot be used.
            ExportError: the folder is no exported model.
        """
        identity = self.model
        path = Path(self.model)
        with path_errors(path, CheckpointError):
            if self.model not in MODELS and path.is_file():
                identity = f"sha256:{sha256_of(path)}"
            elif self.model not in MODELS and is_export(self.model):
                read_manifest(path)  # raises where the folder is no export
                identity = f"sha256:{sha256_of(path / MANIFEST_NAME)}"
        return identity if self.runtime in (None, "torch") else f"{identity} in {self.runtime}"
