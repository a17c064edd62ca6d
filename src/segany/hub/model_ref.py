"""A picklable reference to a model, with which another thread, process or machine can load it."""

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
    """The arguments of `segany.load` and the SHA-256 of the weights. Hashable and picklable.

    Processes that load models must be started with "spawn", not with "fork", the default of Python before 3.14 on
    Linux. A fork of a process in which PyTorch has computed with several threads hangs at its first computation,
    because the threads do not exist in the fork.

    Example:
        >>> ref = segany.ModelRef.of(segany.load("mobile_sam"))
        >>> context = multiprocessing.get_context("spawn")
        >>> with ProcessPoolExecutor(2, mp_context=context) as pool:  # under if __name__ == "__main__":
        ...     pool.map(segment, [ref] * 2)  # segment is a function of a module, and calls ref.load()

    Attributes:
        model: a name, the path of a checkpoint, or the folder of an export.
        runtime: the runtime; None for PyTorch, or ONNX Runtime for an exported folder.
        device: the device; None for CUDA if available, else the CPU.
        precision: the dtype in PyTorch, by default "float32"; for an exported model the precision of its files.
        weights_sha256: SHA-256 of the weights, which `load` verifies; None to accept any weights.
    """

    model: str = DEFAULT_MODEL
    runtime: Runtime | None = None
    device: str | None = None
    precision: str | None = None
    weights_sha256: str | None = None

    @classmethod
    def of(cls, model: TorchModel | ExportedModel) -> ModelRef:
        """Make a reference to a model that `segany.load` returned. All weights are hashed once.

        Raises:
            ConfigError: the model was not loaded from a file or by name, so no other process can load it.
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
            CheckpointError: the weights do not have the SHA-256 `weights_sha256`.
            SeganyError: as for `segany.load`.
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
        """Return a string that identifies the masks of this model, without loading it.

        It is the name of a registered model, else the SHA-256 of the file, followed by the runtime, since runtimes
        round differently.

        Raises:
            CheckpointError: the path cannot be accessed.
            ExportError: the folder is not an exported model.
        """
        identity = self.model
        path = Path(self.model)
        with path_errors(path, CheckpointError):
            if self.model not in MODELS and path.is_file():
                identity = f"sha256:{sha256_of(path)}"
            elif self.model not in MODELS and is_export(self.model):
                read_manifest(path)  # raises if the folder is not an export
                identity = f"sha256:{sha256_of(path / MANIFEST_NAME)}"
        return identity if self.runtime in (None, "torch") else f"{identity} in {self.runtime}"
