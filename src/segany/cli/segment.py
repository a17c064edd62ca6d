"""`segany segment`: masks for points, boxes and rough masks, from the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from segany.cli.inputs import RuntimeOption, check_out_folder, parse_formats
from segany.cli.pixel_options import BandsOption, PageOption, RangeOption, parse_pixel_options
from segany.cli.prompt_options import plan_prompts
from segany.cli.work_bar import LOADING_UNITS, EventBars
from segany.core.errors import ImageError, PromptError
from segany.core.files import path_errors
from segany.core.progress import ProgressEvent
from segany.core.prompt import MaskMode
from segany.data.formats.table import DEFAULT_PROMPT_FORMATS, PROMPT_FORMATS
from segany.data.formats.writing import file_names
from segany.data.prompts_file import PROMPTS_EXAMPLE, PromptPlan
from segany.hub.model_ref import ModelRef
from segany.imaging.image import DEFAULT_MAX_PIXELS, missing_image
from segany.jobs import ItemResult, run
from segany.jobs.segmentation import PromptedItem, SegmentationTask
from segany.models.registry import DEFAULT_MODEL

EPILOG = f"""
A prompts file describes several objects: `{PROMPTS_EXAMPLE}`. A mask is given as `{{"mask": "rough.png"}}`; its path is
relative to the folder of the prompts file. Each label of a label map is an object, and `"label": 2` selects one. For
several images the file is a dictionary: `{{"a.jpg": [...], "b.jpg": [...]}}`.
"""


def segment(
    images: Annotated[list[Path], typer.Argument(help="Image files.", show_default=False)],
    point: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X,Y[,LABEL]", help="A point: foreground (label 1, the default) or background (0). Repeatable."
        ),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(metavar="X0,Y0,X1,Y1", help="A box around the object. Several boxes are several objects."),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            help="A mask prompt: a mask image or a label map of the image's size, or low-res logits as .npy or .npz."
        ),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="A JSON file with prompts for many objects or images; see below.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="A name from `segany models`, the path of a checkpoint, or an exported folder.")
    ] = DEFAULT_MODEL,
    runtime: RuntimeOption = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps.", show_default="CUDA if available")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results; created if it is missing.")] = Path("out"),
    formats: Annotated[
        str, typer.Option("--format", metavar="LIST", help=f"Any of {', '.join(PROMPT_FORMATS)}; separated by commas.")
    ] = ",".join(DEFAULT_PROMPT_FORMATS),
    masks: Annotated[
        MaskMode,
        typer.Option(
            help="Candidates per prompt: three (multi), one (single), or three if the prompt is ambiguous (auto)."
        ),
    ] = "auto",
    all_candidates: Annotated[
        bool,
        typer.Option(
            "--all-candidates", help="Write all candidates of a prompt, not only the one with the highest score."
        ),
    ] = False,
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse images with more pixels.")] = DEFAULT_MAX_PIXELS,
    value_range: RangeOption = None,
    bands: BandsOption = None,
    page: PageOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON for each image, and nothing else.")
    ] = False,
) -> None:
    """Segment objects in images from points, a box, a mask, or a file of prompts.

    Coordinates are pixels of the original image, x then y. All points, the box and the mask are one prompt for one
    object. Files in the output folder are named after the image; existing files are replaced. The command stops
    with exit code 2 at the first image that fails; the files of the images before it are complete.
    """
    plan = plan_prompts(point or (), box or (), mask, prompts)
    chosen_formats = parse_formats(formats, PROMPT_FORMATS)
    _check_paths(images, plan, out)
    task = SegmentationTask(
        model=ModelRef(model, runtime, device),
        out=out,
        formats=chosen_formats,
        masks=masks,
        all_candidates=all_candidates,
        max_pixels=max_pixels,
        pixel_options=parse_pixel_options(value_range, bands, page),
        protected=frozenset(path.resolve() for path in (*images, *plan.mask_files, *([prompts] if prompts else []))),
    )
    items = [
        PromptedItem(image, name, plan.objects_in(image))
        for image, name in zip(images, file_names(images), strict=True)
    ]

    def tell(result: ItemResult[PromptedItem]) -> None:
        report = {**result.facts, "seconds": round(result.seconds, 4)}
        if as_json:
            typer.echo(json.dumps(report))
        else:
            _print_summary(report)

    with EventBars() as bars:

        def show(event: ProgressEvent) -> None:
            if event.unit in LOADING_UNITS:  # segmenting takes no time that a bar could show
                bars(event)

        run(task, items, stop_at_failure=True, progress=show, on_result=tell)


def _check_paths(images: Sequence[Path], plan: PromptPlan, out: Path) -> None:
    """Raise errors that are certain before any image is processed."""
    for image in images:
        with path_errors(image, ImageError):
            image.resolve()
            if not image.exists():
                raise missing_image(image)
        plan.objects_in(image)
    for mask in plan.mask_files:
        with path_errors(mask, PromptError):
            mask.resolve()
    check_out_folder(out, "--out")


def _print_summary(report: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    height, width = report["size_hw"]
    console.print(Text.assemble((report["image"], "bold"), f"  {width} x {height}, {report['seconds']:.2f} s"))
    for item in report["objects"]:
        candidate = f" candidate {item['candidate']}" if "candidate" in item else ""
        x, y, box_width, box_height = item["bbox_xywh"]
        share = item["area"] / (height * width)
        where = f"{box_width} x {box_height} at {x},{y}" if item["area"] else "the mask is empty"
        console.print(
            f"  object {item['object']}{candidate}  score {item['score']:.2f}  "
            f"{item['area']:,} pixels ({share:.1%})  {where}"
        )
    for paths in report["files"].values():
        for path in paths:
            console.print(Text(f"  {path}", style="cyan"))
