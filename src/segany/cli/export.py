"""`segany export`: models as ONNX files, from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from segany.cli.inputs import find_images
from segany.cli.work_bar import EventBars
from segany.core.errors import ConfigError
from segany.core.progress import ProgressCallback
from segany.models.registry import MODELS
from segany.runtime import RuntimeName, open_export
from segany.runtime.manifest import ExportPrecision, Manifest, read_manifest

if TYPE_CHECKING:
    from segany.runtime.torch_model import TorchModel


def export(
    model: Annotated[
        str | None,
        typer.Argument(help="A name from `segany models`, or the path of a checkpoint.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the export; an earlier export there is replaced.", show_default=False)
    ] = None,
    precision: Annotated[
        ExportPrecision, typer.Option(help="Precision of the arithmetic. fp16 and int8 change masks slightly.")
    ] = "fp32",
    calibrate: Annotated[
        Path | None, typer.Option(help="For int8: a folder of about twenty images like those to be segmented.")
    ] = None,
    min_iou: Annotated[
        float, typer.Option(min=0, max=1, help="For int8: the mean IoU with PyTorch's masks that is required.")
    ] = 0.95,
    opset: Annotated[int, typer.Option(min=18, help="Operator set version of ONNX.")] = 20,
    check: Annotated[
        Path | None,
        typer.Option(help="Do not export, but check this export again against PyTorch.", show_default=False),
    ] = None,
    runtime: Annotated[RuntimeName, typer.Option(help="For --check: the runtime of the export.")] = "onnx",
) -> None:
    """Export a model to ONNX files that run without PyTorch: encoder, decoder, and a manifest.

    An export is checked before it is accepted: prompts with points, boxes and masks on a portrait, a landscape and a
    square image must give PyTorch's masks. SAM 2 has two more files, for the memory of video.
    """
    if check is not None:
        _print_checks(_check(check, model, runtime, min_iou))
        return
    if model is None or out is None:
        raise ConfigError("Give the model and the folder: segany export mobile_sam --out onnx/")
    from segany.export import to_onnx

    images = find_images([calibrate], out) if calibrate is not None else []
    with EventBars() as progress:
        manifest = to_onnx(
            _load(model, progress), out,
            precision=precision, calibrate=images, min_iou=min_iou, opset=opset, progress=progress,
        )  # fmt: skip
    _print_checks(manifest)
    for record in manifest.files.values():
        typer.echo(out / record.path)


def _load(model: str, progress: ProgressCallback) -> TorchModel:
    import segany

    return segany.load(model, runtime="torch", device="cpu", progress=progress)


def _check(folder: Path, model: str | None, runtime: RuntimeName, min_iou: float) -> Manifest:
    manifest = read_manifest(folder)
    if model is None and manifest.model not in MODELS:
        raise ConfigError(
            f"{folder} was exported from a checkpoint. Give it: segany export CHECKPOINT --check {folder}"
        )
    exported = open_export(folder, runtime)
    from segany.export import check_export

    with EventBars() as progress:
        loaded = _load(model or manifest.model, progress)
        return check_export(loaded, folder, exported=exported, min_iou=min_iou, progress=progress)


def _print_checks(manifest: Manifest) -> None:
    table = Table(
        "prompts", "masks", "mean IoU", "least IoU", title=f"{manifest.model} {manifest.precision} beside PyTorch"
    )
    for record in manifest.checks:
        table.add_row(record.kind, str(record.masks), f"{record.mean_iou:.4f}", f"{record.min_iou:.4f}")
    table.add_row("all", str(sum(record.masks for record in manifest.checks)), f"{manifest.mean_iou or 0:.4f}", "")
    for memory in manifest.memory or []:
        table.add_row(memory.file, "", f"error {memory.error:.1e}", "")
    Console().print(table)
