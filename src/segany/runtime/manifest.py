"""The manifest of an exported model, `manifest.json`, and the verification of its files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

from segany.core.arrays import STABILITY_SCORE_THRESH
from segany.core.errors import ConfigError, ExportError
from segany.core.files import path_errors, sha256_of
from segany.core.preprocessing import Preprocessing

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 2
"""Incremented when older versions of segany can no longer read the folder."""

ExportPrecision: TypeAlias = Literal["fp32", "fp16", "int8"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TensorRecord(_Record):
    """An input or an output of a file; dynamic axes have names instead of sizes."""

    name: str
    dtype: str
    shape: list[int | str]


class FileRecord(_Record):
    """A file of the folder. `data` is its external data file with the weights, for models above 2 GB."""

    path: str
    sha256: str
    inputs: list[TensorRecord]
    outputs: list[TensorRecord]
    data: str | None = None
    data_sha256: str | None = None


class CheckRecord(_Record):
    """Agreement with PyTorch's masks for one kind of prompt: IoU over all images and candidates."""

    kind: str
    masks: int
    mean_iou: float
    min_iou: float


class MemoryRecord(_Record):
    """Agreement of a file of SAM 2's memory with PyTorch.

    Attributes:
        file: its name in `files`.
        error: largest root mean square error over all cases, relative to that of PyTorch's output.
    """

    file: str
    error: float


class PreprocessingRecord(_Record):
    """`Preprocessing` as JSON."""

    input_size: int
    resize: Literal["longest_side", "square"]
    mean_rgb: tuple[float, float, float]
    std_rgb: tuple[float, float, float]

    def value(self) -> Preprocessing:
        return Preprocessing(self.input_size, self.resize, self.mean_rgb, self.std_rgb)


class Manifest(_Record):
    """The metadata of an exported model.

    Attributes:
        encoder_id: encoder id of the embeddings: that of the exported model for fp32, another id otherwise.
        weights_id: `encoder_id` of the exported model.
        mean_iou: mean IoU over all checks.
        memory: checks of the files of SAM 2's memory; None for models without memory.
    """

    format_version: int
    segany_version: str
    model: str
    encoder_id: str
    weights_id: str
    precision: ExportPrecision
    opset: int
    preprocessing: PreprocessingRecord
    low_res_size: int
    pads_boxes: bool
    pred_iou_thresh: float
    stability_score_thresh: float = STABILITY_SCORE_THRESH
    files: dict[str, FileRecord]
    checks: list[CheckRecord] = []
    mean_iou: float | None = None
    memory: list[MemoryRecord] | None = None

    def verify(self, folder: Path) -> None:
        """Raise `ExportError` unless all files exist and have the digests of the manifest."""
        for record in self.files.values():
            self._verify(folder, record.path, record.sha256)
            if record.data is not None:
                self._verify(folder, record.data, record.data_sha256 or "")

    def _verify(self, folder: Path, name: str, sha256: str) -> None:
        path = folder / name
        advice = f"Export the model again: segany export {self.model} --out {folder}"
        if Path(name).name != name or not path.is_file():
            raise ExportError(f"{folder} lacks {name}, which its {MANIFEST_NAME} lists. {advice}")
        if sha256_of(path) != sha256:
            raise ExportError(f"{path} is not the file that was exported: its sha256 is another. {advice}")


def is_export(path: str | Path) -> bool:
    """Tell whether a path is a folder: an export is a folder, other models are names or files."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a folder.

    Raises:
        ExportError: the folder is not an export, or its manifest is damaged or newer than this version of segany.
    """
    path = folder / MANIFEST_NAME
    with path_errors(folder, ExportError):
        if not folder.is_dir():
            raise ExportError(f"There is no folder {folder}. Make one: segany export mobile_sam --out {folder}")
        if not path.is_file():
            raise ExportError(
                f"{folder} is no exported model: it has no {MANIFEST_NAME}. Give a folder that segany export made."
            )
        text = path.read_bytes()
    try:
        manifest = Manifest.model_validate_json(text)
        manifest.preprocessing.value()
    except (ValidationError, ConfigError) as error:
        _check_version(text, path)
        first = str(error).splitlines()
        raise ExportError(
            f"{path} is damaged: {'; '.join(line.strip() for line in first[1:3])}. Export again."
        ) from error
    _check_version(text, path)
    for name in ("encoder", "decoder", "shared_image", "proposals"):
        if name not in manifest.files:
            raise ExportError(f"{path} is damaged: it lists no {name}. Export the model again.")
    return manifest


EXPORT_ENDINGS = (".onnx", ".onnx.data")
"""Suffixes of the files that an export writes; other files in a manifest are not treated as part of an export."""


def foreign_files(folder: Path) -> list[str]:
    """Return the sorted names in a folder that do not belong to an exported model of any version.

    A `manifest.json` that is not of an export is included, since other tools use that name too.
    """
    path, known = folder / MANIFEST_NAME, set[str]()
    if path.is_file():
        try:
            parts = _Parts.model_validate_json(path.read_bytes()).files.values()
        except ValidationError:
            pass
        else:
            listed = {part.path for part in parts} | {part.data for part in parts if part.data}
            known = {MANIFEST_NAME} | {name for name in listed if name.endswith(EXPORT_ENDINGS)}
    return sorted(
        entry.name for entry in folder.iterdir() if entry.name not in known or entry.is_symlink() or not entry.is_file()
    )


class _Part(BaseModel):
    path: str
    data: str | None = None


class _Parts(BaseModel):
    format_version: int
    files: dict[str, _Part]


class _Version(BaseModel):
    format_version: int


def _check_version(text: bytes, path: Path) -> None:
    try:
        version = _Version.model_validate_json(text).format_version
    except ValidationError:
        return
    if version != FORMAT_VERSION:
        raise ExportError(
            f"{path} has format version {version}; this segany reads version {FORMAT_VERSION}. "
            "Install a newer segany, or export the model again."
        )
