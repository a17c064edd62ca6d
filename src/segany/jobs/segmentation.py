"""Segmentation of many images from prompts, with results as files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segany.core.arrays import PixelArray
from segany.core.errors import PromptError
from segany.core.files import sha256_of
from segany.core.prediction import MaskPrediction
from segany.core.progress import ProgressCallback
from segany.core.prompt import MaskMode
from segany.data.formats.table import DEFAULT_PROMPT_FORMATS, PROMPT_FORMATS
from segany.data.formats.writing import FormatOptions, bbox_xywh, instance_facts, write_formats
from segany.data.item import AnnotatedImage
from segany.data.mask_prompts import MaskFiles, MaskInput
from segany.data.prompts_file import ObjectPrompt
from segany.hub.model_ref import ModelRef
from segany.imaging.image import DEFAULT_MAX_PIXELS, content_id, read_image
from segany.imaging.pixels import AS_STORED, PixelOptions
from segany.jobs.pipeline import Task, Written
from segany.predict.image import ImagePredictor


@dataclass(frozen=True)
class PromptedItem:
    """An image file, the prefix of the names of its results, and the objects to segment in it."""

    source: Path
    name: str
    objects: tuple[ObjectPrompt, ...]


@dataclass(frozen=True, eq=False)
class PromptedImage:
    """An image that has been read, and the objects to segment in it, whose prompts have been checked against its size.

    Attributes:
        source: the file.
        pixels: uint8 [H, W, 3].
        objects: the objects to segment; each label of a label map is one.
        masks: the mask prompt of each object, if it has one.
    """

    source: Path
    pixels: PixelArray
    objects: tuple[ObjectPrompt, ...]
    masks: tuple[MaskInput | None, ...]


@dataclass(frozen=True, eq=False)
class SegmentedItem:
    """The masks of an image, to be written."""

    image: PixelArray
    prediction: MaskPrediction
    formats: tuple[str, ...]
    model: str


@dataclass(frozen=True)
class SegmentationTask(Task[PromptedItem, PromptedImage, ImagePredictor, SegmentedItem]):
    """Segment objects from prompts, and write their masks in some formats.

    Attributes:
        model: the model.
        out: folder of the results, which is created if it is missing.
        formats: keys of `PROMPT_FORMATS`, the parts of an item.
        masks: number of candidates of a prompt, as for `ImagePredictor.predict`.
        all_candidates: write all candidates of a prompt instead of the best one only.
        max_pixels: largest number of pixels of an image. Larger images are refused.
        pixel_options: interpretation of the values of images.
        protected: resolved paths that must not be overwritten, such as the images.
    """

    model: ModelRef
    out: Path
    formats: tuple[str, ...] = DEFAULT_PROMPT_FORMATS
    masks: MaskMode = "auto"
    all_candidates: bool = False
    max_pixels: int = DEFAULT_MAX_PIXELS
    pixel_options: PixelOptions = AS_STORED
    protected: frozenset[Path] = frozenset()

    def settings(self) -> Mapping[str, Any]:
        made_by = {
            "model": self.model.identity(),
            "masks": self.masks,
            "all_candidates": self.all_candidates,
            "pixels": asdict(self.pixel_options),
        }
        return dict.fromkeys(self.formats, made_by)

    def name(self, item: PromptedItem) -> str:
        return item.name

    def content_id(self, item: PromptedItem) -> str:
        digest = hashlib.sha256()
        for prompt in item.objects:
            digest.update(prompt.model_dump_json().encode())
        try:
            for path in (item.source, *(prompt.mask for prompt in item.objects if prompt.mask is not None)):
                digest.update(sha256_of(path).encode())
        except OSError:
            return ""  # reading the image raises an error with the reason
        return digest.hexdigest()

    def is_there(self, part: str, value: Any) -> bool:  # noqa: ARG002
        return isinstance(value, list) and all((self.out / str(path)).is_file() for path in value)

    def open(self, progress: ProgressCallback | None) -> ImagePredictor:
        return ImagePredictor(self.model.load(progress), max_pixels=self.max_pixels)

    def read(self, item: PromptedItem) -> PromptedImage:
        pixels = read_image(item.source, self.max_pixels, options=self.pixel_options)
        size_hw = (pixels.shape[0], pixels.shape[1])
        try:
            for one in item.objects:
                prompt = one.without_mask()
                if prompt is not None:
                    prompt.check_fits(size_hw)
            files = MaskFiles(self.max_pixels)
            objects = tuple(part for one in item.objects for part in one.by_label(files))
            masks = tuple(one.read_mask(size_hw, files) for one in objects)
        except PromptError as error:
            raise PromptError(f"{item.source}: {error}") from error
        return PromptedImage(item.source, pixels, objects, masks)

    def process(
        self,
        model: ImagePredictor,
        value: PromptedImage,
        parts: Sequence[str],
        progress: ProgressCallback | None,  # noqa: ARG002
    ) -> SegmentedItem:
        prompts = [one.to_prompt(mask) for one, mask in zip(value.objects, value.masks, strict=True)]
        prediction = model.predict(model.embed(value.pixels), prompts, masks=self.masks)
        return SegmentedItem(value.pixels, prediction, tuple(parts), model.model.name)

    def write(self, item: PromptedItem, output: SegmentedItem) -> Written:
        instances = output.prediction.to_instances(all_candidates=self.all_candidates)
        annotated = AnnotatedImage(item.name, output.image, instances, item.source.name)
        encoders = {name: PROMPT_FORMATS[name] for name in output.formats}
        options = FormatOptions(output.prediction)
        files = write_formats(annotated, encoders, self.out, item.name, options, self.protected)
        _remove_other_files(self.out, item.name, files)
        return Written(
            {name: [path.relative_to(self.out).as_posix() for path in paths] for name, paths in files.items()},
            {
                "image": str(item.source),
                "content_id": content_id(output.image),
                "size_hw": list(instances.size_hw),
                "model": output.model,
                "objects": [{**instance_facts(one), "bbox_xywh": bbox_xywh(one)} for one in instances],
                "files": {name: [str(path) for path in paths] for name, paths in files.items()},
            },
        )


_NUMBERED = r"(_\d+)?(_candidate_\d+)?"
_FILES_OF_FORMATS = {
    "overlay": rf"_overlay{_NUMBERED}\.png",
    "overlay-jpg": rf"_overlay{_NUMBERED}\.jpg",
    "png": rf"_mask{_NUMBERED}\.png",
    "cutout": rf"_cutout{_NUMBERED}\.png",
}
"""How the names of the files end that a format may have several of."""


def _remove_other_files(folder: Path, name: str, written: Mapping[str, Sequence[Path]]) -> None:
    """Delete the files of an earlier run on the image that had more objects, in the formats that are written now."""
    for item, ending in _FILES_OF_FORMATS.items():
        if item not in written:
            continue
        is_one = re.compile(re.escape(name) + ending).fullmatch
        for path in folder.iterdir():
            if path not in written[item] and is_one(path.name):
                path.unlink(missing_ok=True)
