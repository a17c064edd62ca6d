"""What every format needs: the protocol of its function, bytes of PNG and JSON, file names, and writing files."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy.typing as npt
from PIL import Image

from segany.core.errors import OutputError
from segany.core.files import path_errors, write_file
from segany.core.instance import NO_ID, Instance
from segany.core.instances import Instances, LabelOrder
from segany.core.prediction import MaskPrediction
from segany.data.item import AnnotatedImage

MAX_STEM_BYTES = 180
"""File systems allow 255 bytes for a name, of which formats and numbers add a few dozen."""

PNG_COMPRESSION = 3
"""Of 9. More takes several times as long for files a few per cent smaller."""


@dataclass(frozen=True, eq=False)
class FormatOptions:
    """What some formats need besides the annotated image.

    Attributes:
        prediction: what the instances come from, where that is prompts: overlays show the prompts.
        label_order, label_fill: as `Instances.to_label_map` takes them.
    """

    prediction: MaskPrediction | None = None
    label_order: LabelOrder = "area"
    label_fill: bool = False


Encoder: TypeAlias = Callable[[AnnotatedImage, FormatOptions], Iterator[tuple[str, bytes]]]
"""A format: yields its files, each as the end of its name (after that of the image) and its content."""


def png_bytes(pixels: npt.NDArray[Any]) -> bytes:
    """A PNG file of uint8 [H, W] or [H, W, 3 | 4], or uint16 [H, W]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=PNG_COMPRESSION)
    return buffer.getvalue()


def json_bytes(value: Any) -> bytes:
    """JSON on one line."""
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def write_files(files: Iterable[tuple[str, bytes]], folder: Path, name: str, keep: Collection[Path] = ()) -> list[Path]:
    """Write files as they are made, each whole or not at all.

    Args:
        files: what each is called after `name`, and what it holds.
        folder: where to; made when it is missing.
        name: what the files' names begin with.
        keep: resolved paths that must not be overwritten, such as the images and masks read.

    Raises:
        OutputError: a file could not be written; earlier ones are kept.
    """
    written = []
    for suffix, data in files:
        path = folder / f"{name}{suffix}"
        check_not_kept(path, keep)
        written.append(write_file(path, data))
    return written


def write_formats(
    annotated: AnnotatedImage,
    encoders: Mapping[str, Encoder],
    folder: Path,
    name: str,
    options: FormatOptions | None = None,
    keep: Collection[Path] = (),
) -> dict[str, list[Path]]:
    """Write an annotated image in some formats: all files, or none.

    Args:
        annotated: the image and its instances.
        encoders: formats by name.
        folder: where to; made when it is missing.
        name: what the files' names begin with.
        options: of the formats.
        keep: resolved paths that must not be overwritten, such as the images themselves.

    Returns:
        For every format the files that were written, each whole.

    Raises:
        OutputError: a file could not be written; those written before it are removed again.
    """
    options = options or FormatOptions()
    encoded = {
        item: [(folder / f"{name}{suffix}", data) for suffix, data in encode(annotated, options)]
        for item, encode in encoders.items()
    }
    files = [file for group in encoded.values() for file in group]
    for path, _ in files:
        check_not_kept(path, keep)
    written: list[Path] = []
    try:
        for path, data in files:
            written.append(write_file(path, data))
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return {item: [path for path, _ in group] for item, group in encoded.items()}


def check_not_kept(path: Path, keep: Collection[Path]) -> None:
    """Raise `OutputError` where a file to be written is one of these resolved paths."""
    with path_errors(path, OutputError):
        if path.resolve() in keep:
            raise OutputError(f"{path} is one of the inputs and is not overwritten. Choose another folder.")


def file_names(sources: Sequence[Path]) -> list[str]:
    """A name for the files of each image: its own without the ending, numbered where two are the same.

    Names that differ only in upper and lower case count as the same, as they do on many disks. Long ones are cut.
    """
    stems = [_short_stem(source.stem) for source in sources]
    taken: set[str] = {stem.casefold() for stem in stems}
    seen: set[str] = set()
    names = []
    for stem in stems:
        name, number = stem, 1
        while name.casefold() in (seen if number == 1 else taken):
            number += 1
            name = f"{stem}_{number}"
        seen.add(name.casefold())
        taken.add(name.casefold())
        names.append(name)
    return names


def _short_stem(stem: str) -> str:
    """A stem that leaves room for what is added to it; a long one ends with a digest of what is cut off."""
    encoded = os.fsencode(stem)
    if len(encoded) <= MAX_STEM_BYTES:
        return stem
    digest = hashlib.sha256(encoded).hexdigest()[:8]
    kept = encoded[: MAX_STEM_BYTES - len(digest) - 1].decode("utf-8", "ignore")
    return f"{kept}_{digest}"


def file_suffixes(instances: Instances) -> list[str]:
    """What tells the files of each instance apart: its object id and candidate, or its place from 1 without ids."""
    ids = instances.object_ids.tolist()
    candidates = instances.columns.get("candidate")
    if candidates is not None:
        suffixes = [f"_{one}_candidate_{other}" for one, other in zip(ids, candidates.tolist(), strict=True)]
    else:
        suffixes = [f"_{one}" for one in ids]
    if NO_ID in ids or len(set(suffixes)) < len(suffixes):
        return [f"_{number}" for number in range(1, len(instances) + 1)]
    return suffixes


def instance_facts(instance: Instance) -> dict[str, Any]:
    """What text formats tell of an instance besides its shape: object, candidate, score and area, where known."""
    facts: dict[str, Any] = {}
    if instance.object_id != NO_ID:
        facts["object"] = instance.object_id
    if "candidate" in instance.columns:
        facts["candidate"] = instance.candidate
    if not math.isnan(instance.score):
        facts["score"] = instance.score
    return {**facts, "area": instance.area}


def bbox_xywh(instance: Instance) -> list[int | float]:
    """Left, top, width and height of an instance's box, whole numbers as such."""
    x0, y0, x1, y1 = instance.box_xyxy
    return [int(number) if number.is_integer() else number for number in (x0, y0, x1 - x0, y1 - y0)]
