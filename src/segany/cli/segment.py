"""`segany segment`: masks for points, boxes and rough masks, from the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from segany.cli.inputs import RuntimeName, RuntimeOption, check_folder, load_model, parse_formats
from segany.core.arrays import PixelArray
from segany.core.errors import ImageError, PromptError
from segany.core.files import path_errors
from segany.core.prediction import MaskPrediction
from segany.core.prompt import MaskMode
from segany.data.formats.table import DEFAULT_PROMPT_FORMATS, PROMPT_FORMATS
from segany.data.formats.writing import FormatOptions, bbox_xywh, file_names, instance_facts, write_formats
from segany.data.item import AnnotatedImage
from segany.data.prompts_file import PROMPTS_EXAMPLE, MaskInput, ObjectPrompt, PromptPlan, plan_prompts
from segany.imaging.image import DEFAULT_MAX_PIXELS, image_id, missing_image, read_image
from segany.models.registry import DEFAULT_MODEL

if TYPE_CHECKING:
    from segany.predict.image import ImagePredictor

EPILOG = f"""
A prompts file describes several objects at once: `{PROMPTS_EXAMPLE}`. A mask goes in as
`{{"mask": "rough.png"}}`, its path beginning at the folder of the prompts file. For several images it is
a dictionary: `{{"a.jpg": [...], "b.jpg": [...]}}`.
"""


def segment(
    images: Annotated[list[Path], typer.Argument(help="Image files.", show_default=False)],
    point: Annotated[
        list[str] | None,
        typer.Option(metavar="X,Y[,LABEL]", help="A point on the object (label 1) or beside it (0). Repeatable."),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(metavar="X0,Y0,X1,Y1", help="A box around the object. Repeated: one object a box."),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(help="A rough mask: a picture of the image's size, or low-res logits as .npy or .npz."),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="A JSON file with prompts for many objects or images; see below.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="A name from `segany models`, the path of a checkpoint, or an exported folder.")
    ] = DEFAULT_MODEL,
    runtime: RuntimeOption = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps.", show_default="CUDA where there is any")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results; made when it is missing.")] = Path("out"),
    formats: Annotated[
        str, typer.Option("--format", metavar="LIST", help=f"Any of {', '.join(PROMPT_FORMATS)}; with commas between.")
    ] = ",".join(DEFAULT_PROMPT_FORMATS),
    masks: Annotated[
        MaskMode,
        typer.Option(help="Candidates a prompt: three (multi), one (single), or what suits the prompt (auto)."),
    ] = "auto",
    all_candidates: Annotated[
        bool, typer.Option("--all-candidates", help="Write all candidates of a prompt and not only the best.")
    ] = False,
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse images of more pixels.")] = DEFAULT_MAX_PIXELS,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON for each image, and nothing else.")
    ] = False,
) -> None:
    """Segment objects in images: from points, a box, a rough mask, or a file of prompts.

    Coordinates are pixels of the original image, x then y. All points together are one object, with the
    box and the mask if there are any. Files in the output folder are named after the image and replaced
    when they exist. At the first image that is bad the command stops with exit code 2; the files of the
    images before it are complete.
    """
    plan = plan_prompts(point or (), box or (), mask, prompts)
    chosen_formats = parse_formats(formats, PROMPT_FORMATS)
    _check_paths(images, plan, out)
    predictor: ImagePredictor | None = None
    protected = {path.resolve() for path in (*images, *plan.mask_files, *([prompts] if prompts else []))}
    for image, name in zip(images, file_names(images), strict=True):
        request = ImageRequest.read(image, plan.objects_in(image), max_pixels)
        predictor = predictor or open_predictor(model, runtime, device, max_pixels)  # slow: not before an image is good
        started = perf_counter()
        prediction = request.predict(predictor, masks)
        seconds = perf_counter() - started
        instances = prediction.to_instances(all_candidates=all_candidates)
        annotated = AnnotatedImage(name, request.pixels, instances, image.name)
        encoders = {item: PROMPT_FORMATS[item] for item in chosen_formats}
        files = write_formats(annotated, encoders, out, name, FormatOptions(prediction), protected)
        report = _facts(image, annotated, files, predictor.model.name, seconds)
        if as_json:
            typer.echo(json.dumps(report))
        else:
            _print_summary(report)


def open_predictor(model: str, runtime: RuntimeName | None, device: str | None, max_pixels: int) -> ImagePredictor:
    """Load the model."""
    import segany

    return segany.ImagePredictor(load_model(model, runtime, device), max_pixels=max_pixels)


@dataclass(frozen=True, eq=False)
class ImageRequest:
    """An image that was read and the objects to find in it, all checked as far as that needs no model.

    Attributes:
        pixels: uint8 [H, W, 3].
        objects: what to find.
        masks: of each object the mask to start from, if there is one.
    """

    pixels: PixelArray
    objects: tuple[ObjectPrompt, ...]
    masks: tuple[MaskInput | None, ...]

    @classmethod
    def read(cls, image: Path, objects: tuple[ObjectPrompt, ...], max_pixels: int) -> ImageRequest:
        """Read an image and the masks for it.

        Raises:
            ImageError: the image or the picture of a mask cannot be read.
            PromptError: a prompt does not fit the image.
        """
        pixels = read_image(image, max_pixels)
        size_hw = (pixels.shape[0], pixels.shape[1])
        try:
            for item in objects:
                prompt = item.without_mask()
                if prompt is not None:
                    prompt.check_fits(size_hw)
            return cls(pixels, objects, tuple(item.read_mask(size_hw, max_pixels) for item in objects))
        except PromptError as error:
            raise PromptError(f"{image}: {error}") from error

    def predict(self, predictor: ImagePredictor, masks: MaskMode) -> MaskPrediction:
        """Ask the model."""
        prompts = [item.to_prompt(mask) for item, mask in zip(self.objects, self.masks, strict=True)]
        return predictor.predict(predictor.embed(self.pixels), prompts, masks=masks)


def _check_paths(images: Sequence[Path], plan: PromptPlan, out: Path) -> None:
    """Find what is sure to fail before any work is done for the images before it."""
    for image in images:
        with path_errors(image, ImageError):
            image.resolve()
            if not image.exists():
                raise missing_image(image)
        plan.objects_in(image)
    for mask in plan.mask_files:
        with path_errors(mask, PromptError):
            mask.resolve()
    check_folder(out, "--out")


def _facts(
    source: Path, annotated: AnnotatedImage, files: dict[str, list[Path]], model: str, seconds: float
) -> dict[str, Any]:
    height, width = annotated.instances.size_hw
    return {
        "image": str(source),
        "image_id": image_id(annotated.image),
        "size_hw": [height, width],
        "model": model,
        "seconds": round(seconds, 4),
        "objects": [{**instance_facts(one), "bbox_xywh": bbox_xywh(one)} for one in annotated.instances],
        "files": {name: [str(path) for path in paths] for name, paths in files.items()},
    }


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
