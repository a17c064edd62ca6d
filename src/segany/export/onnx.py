"""Export of a model to ONNX files and a manifest, which is discarded if its masks differ from the model's."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from segany.core.arrays import FloatArray, PixelArray
from segany.core.errors import ConfigError, ExportError, OutputError, check
from segany.core.extras import import_extra
from segany.core.files import path_errors, replacing_folder, sha256_of, write_file
from segany.core.progress import ProgressCallback, report
from segany.core.version import __version__
from segany.export.check import CHECKED_PRECISIONS, run_checks
from segany.export.graphs import Graph, make_graphs
from segany.export.precision import fold_constants, halve, store_in_half
from segany.export.quantize import quantize_matmuls, quantize_weights
from segany.imaging.image import ImageSource, read_image
from segany.runtime.manifest import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    ExportPrecision,
    FileRecord,
    Manifest,
    PreprocessingRecord,
    TensorRecord,
    foreign_files,
)
from segany.runtime.model import OnnxModel
from segany.runtime.torch_model import TorchModel

DEFAULT_OPSET = 20
"""The first opset with GELU as an operator, supported by ONNX Runtime 1.17 (2024) and later."""

MIN_OPSET = 18

DEFAULT_MIN_IOU = 0.95
"""Lowest mean IoU with PyTorch's masks of an int8 export."""

CHECKED_IMAGES = 3
"""Number of the calibration images for int8 that are held out for the check, unless there are no others."""

MAX_BYTES_IN_ONE_FILE = 1_800_000_000
"""Most bytes of weights inside an ONNX file, since protobuf is limited to 2 GB; more go to an external data file."""

_DTYPES = {torch.float32: "float32", torch.int64: "int64", torch.bool: "bool"}


def to_onnx(
    model: TorchModel,
    folder: str | Path,
    *,
    precision: ExportPrecision = "fp32",
    calibrate: Sequence[ImageSource] = (),
    min_iou: float = DEFAULT_MIN_IOU,
    opset: int = DEFAULT_OPSET,
    progress: ProgressCallback | None = None,
) -> Manifest:
    """Export a model to a folder atomically, after checking that the export predicts the same masks.

    Args:
        model: the result of `segany.load`, on the CPU and in float32.
        folder: the folder to create; an earlier export is replaced if the folder holds nothing else.
        precision: "fp32"; "fp16", which computes matrix products and convolutions with weights in float16 and all else
            in float32; or "int8", which quantizes the matrix products of the encoder and stores large weights in int8.
        calibrate: calibration images for int8, similar to the images to segment; about twenty are enough. The first
            three are held out for the check, unless there are no others.
        min_iou: lowest mean IoU with PyTorch's masks of an int8 export.
        opset: the ONNX opset.
        progress: receives the progress of files, calibration and checks. If it raises, no folder is written.

    Returns:
        The manifest, with the results of the checks.

    Raises:
        ConfigError: the model is not a PyTorch model on the CPU in float32, or an option is invalid.
        ExportError: the model cannot be exported, or the masks of the export differ from the model's.
        OutputError: the folder cannot be written, or holds something else.
        MissingExtraError: `segany[export]` is not installed.
    """
    _check_request(model, precision, calibrate, opset)
    for module in ("onnx", "onnxscript", "onnxruntime"):
        import_extra(module, f"Exporting needs {module}", "export")
    images = [read_image(source) for source in calibrate]
    with _environment_kept(), _replacing_export(Path(folder)) as temporary:
        _write(model, temporary, precision, images[CHECKED_IMAGES:] or images, opset, progress)
        manifest = run_checks(model, OnnxModel(temporary), images[:CHECKED_IMAGES], min_iou, progress)
        _write_manifest(manifest, temporary)
    return manifest


def _check_request(model: Any, precision: str, calibrate: Sequence[ImageSource], opset: int) -> None:
    if not isinstance(model, TorchModel):
        raise ConfigError(
            f"A {type(model).__name__} cannot be exported. Give what segany.load returns for a name of segany models."
        )
    check(precision in CHECKED_PRECISIONS, f"precision must be 'fp32', 'fp16' or 'int8', got {precision!r}.")
    check(precision != "int8" or len(calibrate) > 0, "int8 needs images to calibrate the encoder with.")
    check(opset >= MIN_OPSET, f"opset must be at least {MIN_OPSET}, got {opset}.")
    right = model.device.type == "cpu" and model.dtype == torch.float32
    check(right, "Only a model on the CPU in float32 can be exported: load it with device='cpu'.")


def _write(
    model: TorchModel,
    folder: Path,
    precision: ExportPrecision,
    images: Sequence[PixelArray],
    opset: int,
    progress: ProgressCallback | None,
) -> None:
    files: dict[str, FileRecord] = {}
    graphs = list(make_graphs(model.module))
    for number, graph in enumerate(graphs):
        report(progress, f"exporting {model.name}", number, len(graphs), "files")
        path = folder / f"{graph.name}.onnx"
        _export(graph, path, opset)
        if precision == "fp16":
            halve(path)
        elif precision == "int8" and graph.name == "encoder":
            quantize_matmuls(path, "pixels", _encoder_inputs(model, images, progress))
        elif precision == "int8":
            quantize_weights(path)
        if precision == "int8":
            store_in_half(path)
        if precision != "fp32":
            _data_path(path).unlink(missing_ok=True)  # the converted model is one file
        files[graph.name] = _file_record(graph, path)
    weights_id = model.encoder_id
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        segany_version=__version__,
        model=model.name,
        encoder_id=_encoder_id(weights_id, precision, files["encoder"]),
        weights_id=weights_id,
        precision=precision,
        opset=opset,
        preprocessing=PreprocessingRecord(**asdict(model.processor.preprocessing)),
        low_res_size=model.low_res_size,
        pads_boxes=model.pads_boxes,
        pred_iou_thresh=model.pred_iou_thresh,
        stability_score_thresh=model.stability_score_thresh,
        files=files,
    )
    _write_manifest(manifest, folder)


def _encoder_inputs(
    model: TorchModel, images: Sequence[PixelArray], progress: ProgressCallback | None
) -> Iterator[FloatArray]:
    for number, image in enumerate(images):
        report(progress, "calibrating", number, len(images), "images")
        yield model.processor.preprocess([image])


def _encoder_id(weights_id: str, precision: ExportPrecision, encoder: FileRecord) -> str:
    """Return the encoder id, which differs by precision, and for int8 also by the calibration."""
    if precision == "fp32":
        return weights_id
    return f"{weights_id}-fp16" if precision == "fp16" else f"{weights_id}-int8-{encoder.sha256[:8]}"


def _write_manifest(manifest: Manifest, folder: Path) -> None:
    write_file(folder / MANIFEST_NAME, manifest.model_dump_json(indent=2, exclude_none=True).encode())


def _export(graph: Graph, path: Path, opset: int) -> None:
    """Export a graph to a file, with an external data file for weights above `MAX_BYTES_IN_ONE_FILE` bytes."""
    axes: dict[str, Any] = {}
    shapes = tuple(
        {axis: axes.setdefault(name, torch.export.Dim.DYNAMIC) for axis, name in graph.dynamic.get(key, {}).items()}
        for key in graph.inputs
    )
    takes_any = any(one.kind is one.VAR_POSITIONAL for one in signature(graph.module.forward).parameters.values())
    try:
        with torch.no_grad(), _quiet():
            program = torch.export.export(
                graph.module, tuple(graph.inputs.values()), dynamic_shapes=(shapes,) if takes_any else shapes
            )
            exported = torch.onnx.export(
                program,
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                dynamo=True,
                opset_version=opset,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[:1]
        raise ExportError(f"The {graph.name} cannot be exported with opset {opset}: {' '.join(reason)}") from error
    assert exported is not None
    bytes_of_weights = sum(value.nbytes for value in graph.module.state_dict().values())
    # The modules of the other graphs contain the whole model.
    is_large = graph.name == "encoder" and bytes_of_weights > MAX_BYTES_IN_ONE_FILE
    exported.save(str(path), external_data=is_large)
    if not is_large:
        fold_constants(path)


def _file_record(graph: Graph, path: Path) -> FileRecord:
    """Make the manifest's record of a file."""
    data = _data_path(path)
    # Gradients select the plain form of the decoder, as in the export; for an encoder they would take gigabytes.
    with torch.inference_mode(graph.name == "encoder"):
        results = graph.module(*graph.inputs.values())
    results = (results,) if isinstance(results, torch.Tensor) else results
    inputs = [_tensor_record(name, value, graph.dynamic.get(name, {})) for name, value in graph.inputs.items()]
    axes = graph.output_axes
    outputs = [
        _tensor_record(name, value, axes.get(name, {})) for name, value in zip(graph.outputs, results, strict=True)
    ]
    return FileRecord(
        path=path.name,
        sha256=sha256_of(path),
        inputs=inputs,
        outputs=outputs,
        data=data.name if data.exists() else None,
        data_sha256=sha256_of(data) if data.exists() else None,
    )


def _data_path(path: Path) -> Path:
    """Return the path of the external data file of an ONNX file."""
    return path.with_name(f"{path.name}.data")


def _tensor_record(name: str, value: torch.Tensor, axes: dict[int, str]) -> TensorRecord:
    shape: list[int | str] = [axes.get(axis, size) for axis, size in enumerate(value.shape)]
    return TensorRecord(name=name, dtype=_DTYPES[value.dtype], shape=shape)


@contextlib.contextmanager
def _replacing_export(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces `folder`, a new path or an earlier export, at the end of the block."""
    with path_errors(folder, OutputError):
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} is a file. Choose another folder.")
        folder = folder.resolve()  # replace the target of a link, not the link
        foreign = foreign_files(folder) if folder.is_dir() else []
        if foreign:
            raise OutputError(
                f"{folder} holds something else than an exported model: {foreign[0]}. Choose another folder."
            )
    with replacing_folder(folder) as temporary:
        yield temporary


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings and log messages of the exporter."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _environment_kept() -> Iterator[None]:
    """Restore the environment variables of the process: PyTorch's compiler sets the folder of its cache."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
