"""`segany auto`: automatic masks of images, from the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import typer
from rich.console import Console

from segany.cli.auto_report import AutoReporter, list_failures, summarize
from segany.cli.inputs import RuntimeOption, check_out_folder, find_images, parse_formats
from segany.cli.pixel_options import BandsOption, PageOption, RangeOption, parse_pixel_options
from segany.cli.scale import (
    PARQUET,
    AddressOption,
    ExecutorOption,
    WorkerCpusOption,
    WorkerGpusOption,
    WorkersOption,
    auto_at_scale,
    check_local,
    parse_executor,
)
from segany.cli.work_bar import ItemBar
from segany.core.errors import OutputError
from segany.core.instances import LabelOrder
from segany.data.formats.table import AUTOMATIC_FORMATS, DEFAULT_AUTOMATIC_FORMATS
from segany.data.formats.writing import file_names
from segany.hub.model_ref import ModelRef
from segany.imaging.image import DEFAULT_MAX_PIXELS
from segany.jobs import DoneRecords, run
from segany.jobs.automatic import AutomaticTask, ImageItem
from segany.jobs.executors import LocalExecutor
from segany.jobs.records import RECORDS_FOLDER
from segany.jobs.scale import ScaleTask, run_on
from segany.models.registry import DEFAULT_MODEL
from segany.predict.automatic import AutomaticConfig

Preset: TypeAlias = Literal["default", "sa1b"]

SOME_FAILED = 1
"""Exit code when some of the images failed."""


def _setting(name: str, help_text: str, unset: str = "no limit") -> Any:
    """Make an option for a field of `AutomaticConfig` that shows its default; `unset` describes the default None."""
    default = getattr(AutomaticConfig(), name)
    shown = unset if default is None else str(default)
    return typer.Option(help=help_text, show_default=shown, rich_help_panel="Settings of the generator")


def auto(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Image files, folders, and patterns in quotes. With --format parquet also URLs, .tar shards, and .txt "
            "files with a path or URL in each line.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str, typer.Option(help="Folder of the results; created if it is missing. With --format parquet also a URL.")
    ] = "out",
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="LIST",
            help=f"Any of {', '.join(AUTOMATIC_FORMATS)}, separated by commas; or parquet, for any number of images.",
        ),
    ] = ",".join(DEFAULT_AUTOMATIC_FORMATS),
    model: Annotated[
        str, typer.Option(help="A name from `segany models`, the path of a checkpoint, or an exported folder.")
    ] = DEFAULT_MODEL,
    runtime: RuntimeOption = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps.", show_default="CUDA if available")
    ] = None,
    preset: Annotated[
        Preset, typer.Option(help="Settings to start from: the official defaults, or those with which SA-1B was made.")
    ] = "default",
    points_per_side: Annotated[int | None, _setting("points_per_side", "Points along each side of the grid.")] = None,
    pred_iou_thresh: Annotated[
        float | None, _setting("pred_iou_thresh", "Drop masks with a lower predicted IoU.", "0.88; SAM 2: 0.8")
    ] = None,
    stability_score_thresh: Annotated[
        float | None,
        _setting("stability_score_thresh", "Drop masks with a lower stability score.", "0.95, or that of the model"),
    ] = None,
    crop_n_layers: Annotated[
        int | None, _setting("crop_n_layers", "Layers of image crops to search too: layer i has 2^i x 2^i crops.")
    ] = None,
    crop_n_points_downscale_factor: Annotated[
        int | None,
        _setting("crop_n_points_downscale_factor", "Divide the points per side by this for each layer of crops."),
    ] = None,
    min_mask_region_area: Annotated[
        int | None, _setting("min_mask_region_area", "Remove islands and holes with fewer pixels from masks.")
    ] = None,
    min_mask_area: Annotated[int | None, _setting("min_mask_area", "Drop masks with fewer pixels.")] = None,
    max_mask_fraction: Annotated[
        float | None, _setting("max_mask_fraction", "Drop masks that cover this fraction of the image or more.")
    ] = None,
    label_order: Annotated[
        LabelOrder,
        typer.Option(help="Which mask is on top in label maps: the smallest, or the highest-scoring."),
    ] = "area",
    label_fill: Annotated[
        bool, typer.Option("--label-fill", help="In label maps, give pixels without a mask to the nearest mask.")
    ] = False,
    embeddings: Annotated[
        Path | None, typer.Option(help="Folder in which embeddings are cached.", show_default=False)
    ] = None,
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse images with more pixels.")] = DEFAULT_MAX_PIXELS,
    value_range: RangeOption = None,
    bands: BandsOption = None,
    page: PageOption = None,
    executor: ExecutorOption = "local",
    address: AddressOption = None,
    workers: WorkersOption = None,
    worker_cpus: WorkerCpusOption = 1,
    worker_gpus: WorkerGpusOption = 0.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Process images again that are done already.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON for each image, and nothing else.")
    ] = False,
) -> None:
    """Find automatic masks: segment everything in images.

    Images that are done already with the same settings are skipped, so that the same command resumes after an
    interrupt. An image that fails does not stop the others: it is listed at the end, and the exit code is 1.
    """
    config = _config(
        preset,
        points_per_side=points_per_side,
        pred_iou_thresh=pred_iou_thresh,
        stability_score_thresh=stability_score_thresh,
        crop_n_layers=crop_n_layers,
        crop_n_points_downscale_factor=crop_n_points_downscale_factor,
        min_mask_region_area=min_mask_region_area,
        min_mask_area=min_mask_area,
        max_mask_fraction=max_mask_fraction,
    )
    ref, pixel_options = ModelRef(model, runtime, device), parse_pixel_options(value_range, bands, page)
    where = parse_executor(executor, address, workers, worker_cpus, worker_gpus)
    if formats.strip() == PARQUET:
        if embeddings is not None:
            raise OutputError("--format parquet keeps no embeddings: leave out --embeddings.")
        scale_task = ScaleTask(ref, out, config, max_pixels, pixel_options)
        auto_at_scale(scale_task, paths, where, overwrite=overwrite, as_json=as_json)
        return
    check_local([*paths, out])
    folder, images = Path(out), find_images([Path(path) for path in paths], Path(out))
    check_out_folder(folder, "--out")
    if embeddings is not None:
        check_out_folder(embeddings, "--embeddings")
    task = AutomaticTask(
        model=ref,
        out=folder,
        config=config,
        formats=parse_formats(formats, AUTOMATIC_FORMATS),
        label_order=label_order,
        label_fill=label_fill,
        max_pixels=max_pixels,
        pixel_options=pixel_options,
        embeddings=embeddings,
        protected=frozenset(image.resolve() for image in images),
    )
    items = [ImageItem(image, name) for image, name in zip(images, file_names(images), strict=True)]
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        with ItemBar("reading", len(items)) as bar:
            reporter = AutoReporter(bar, as_json=as_json)
            records = DoneRecords(folder / RECORDS_FOLDER)
            if isinstance(where, LocalExecutor):
                results = run(task, items, records, overwrite=overwrite, progress=bar, on_result=reporter)
            else:
                results = run_on(where, task, items, records, overwrite=overwrite, progress=bar, on_result=reporter)
    except KeyboardInterrupt:
        errors.print("Interrupted. Finished images are kept; the same command resumes.")
        raise
    if not as_json:
        Console(soft_wrap=True, highlight=False).print(summarize(results, folder))
    if any(result.status == "failed" for result in results):
        list_failures(results, errors)
        raise typer.Exit(SOME_FAILED)


def _config(preset: Preset, **chosen: Any) -> AutomaticConfig:
    """Return the preset with the given options."""
    base = AutomaticConfig.sa1b() if preset == "sa1b" else AutomaticConfig()
    return replace(base, **{name: value for name, value in chosen.items() if value is not None})
