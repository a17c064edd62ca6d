"""Options that several commands share: images, formats, the runtime, and the folder of the results."""

from __future__ import annotations

import glob
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segany.cli.work_bar import EventBars
from segany.core.errors import ImageError, OutputError
from segany.core.files import path_errors
from segany.data.folders import matching_files
from segany.data.formats.mask_image import Objects
from segany.hub.load import Runtime
from segany.hub.model_ref import ModelRef
from segany.imaging.image import missing_image
from segany.imaging.image_formats import readable_suffixes, warn_unreadable_images

if TYPE_CHECKING:
    from segany.runtime import ExportedModel
    from segany.runtime.torch_model import TorchModel

RuntimeOption = Annotated[
    Runtime | None,
    typer.Option(
        help="Runtime of the model. All but torch export a model on first use, if it is given by name.",
        show_default="torch; onnx for an exported folder",
    ),
]


ObjectsOption = Annotated[
    Objects,
    typer.Option(
        help="The objects of mask images: each label except 0 (labels), the foreground as one object (foreground), its "
        "connected components (parts), or labels unless edges are soft (auto)."
    ),
]
MaskThresholdOption = Annotated[
    float,
    typer.Option(
        min=0, max=1, help="Threshold of foregrounds and soft edges, as a share of the highest value of a mask image."
    ),
]
TrustPathsOption = Annotated[
    bool,
    typer.Option("--trust-paths", help="Read images that a COCO file names outside of its folder, such as ../a.jpg."),
]


def load_model(ref: ModelRef) -> TorchModel | ExportedModel:
    """Load a model, with progress bars for downloads and exports."""
    with EventBars() as progress:
        return ref.load(progress)


def parse_formats(text: str, known: Collection[str], option: str = "--format", what: str = "format") -> tuple[str, ...]:
    """Parse a list of formats, or other values of an option, that is separated by commas.

    Raises:
        OutputError: the list is empty, or a value is unknown.
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        wrong = f"There is no {what} {unknown[0]!r}" if unknown else f"{option} is empty"
        raise OutputError(f"{wrong}. Known {what}s: {', '.join(known)}.")
    return names


def check_out_folder(folder: Path, option: str) -> None:
    """Raise `OutputError` if the folder of the results, or one above it, is a file."""
    with path_errors(folder, OutputError):
        folder.resolve()
        existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not existing.is_dir():
            raise OutputError(f"{folder} cannot hold the results: {existing} is not a folder. Choose another {option}.")


def find_images(paths: Sequence[Path], out: Path) -> list[Path]:
    """Find the image files of the paths on the command line, each once.

    A file is an image whatever its name. In folders and patterns, files that have the suffix of an image and are not
    hidden are found, in alphabetical order; subfolders are not searched.

    Args:
        paths: files, folders, and patterns (`photos/*.jpg`, `photos/**/*.png`) that the shell did not expand.
        out: the output folder. No folder or pattern may match images in it, because the next run would segment the
            overlays of this one.

    Raises:
        ImageError: a path does not exist, or a folder or pattern has no images.
        OutputError: images would be read from `out`.
    """
    found: dict[Path, Path] = {}
    with path_errors(out, OutputError):
        out = out.resolve()
    for path in paths:
        with path_errors(path, ImageError):
            for image in _images_at(path, out):
                found.setdefault(image.resolve(), image)
    return list(found.values())


def _images_at(path: Path, out: Path) -> list[Path]:
    if path.is_dir():
        candidates: Iterable[Path] = path.iterdir()
        advice = f"The folder {path} has no images. If its subfolders do, give '{path / '**' / '*'}', in quotes."
    elif path.exists():
        return [path]
    elif glob.has_magic(str(path)):
        candidates = matching_files(str(path))
        advice = f"No images match {path}. Check the pattern; in quotes, it works the same in every shell."
    else:
        raise missing_image(path)
    suffixes = readable_suffixes()
    candidates = list(candidates)
    unreadable = warn_unreadable_images(candidates, str(path))
    named_like_images = (file for file in candidates if file.suffix.lower() in suffixes)
    images = sorted(file for file in named_like_images if not file.name.startswith(".") and file.is_file())
    if not images:
        raise ImageError(f"{advice} {unreadable}".strip())
    if any(image.parent.resolve() == out for image in images):
        raise OutputError(f"{path} takes images from the folder of the results, {out}. Choose another --out.")
    return images
