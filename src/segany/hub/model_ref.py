"""A model as a small value: what names it, so that another thread, process or machine can load it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segany.core.errors import CheckpointError
from segany.core.files import path_errors, sha256_of
from segany.core.progress import ProgressCallback
from segany.hub.load import Runtime, load
from segany.models.registry import DEFAULT_MODEL, MODELS
from segany.runtime.manifest import MANIFEST_NAME, is_export, read_manifest

if TYPE_CHECKING:
    from segany.models.promptable import PromptableModel
    from segany.runtime import ExportedModel


@dataclass(frozen=True)
class ModelRef:
    """The arguments of `segany.load`. Hashable and picklable.

    Attributes:
        model: a name, the path of a checkpoint, or the folder of an export.
        runtime: what runs it; None is PyTorch, or ONNX Runtime for an exported folder.
        device: where; None is CUDA where there is any, else the CPU.
    """

    model: str = DEFAULT_MODEL
    runtime: Runtime | None = None
    device: str | None = None

    def load(self, progress: ProgressCallback | None = None) -> PromptableModel | ExportedModel:
        """Load the model; raises as `segany.load` does."""
        if self.runtime is None or self.runtime == "torch":
            return load(self.model, runtime=self.runtime, device=self.device, progress=progress)
        return load(self.model, runtime=self.runtime, device=self.device, progress=progress)

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
