"""Automatic mask generation for many images, with results as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segany.core.arrays import PixelArray
from segany.core.embedding import Embedding
from segany.core.embedding_cache import EmbeddingCache
from segany.core.errors import check
from segany.core.files import sha256_of
from segany.core.instances import Instances, LabelOrder
from segany.core.progress import ProgressCallback
from segany.data.formats.table import AUTOMATIC_FORMATS, DEFAULT_AUTOMATIC_FORMATS
from segany.data.formats.writing import FormatOptions, write_files
from segany.data.item import AnnotatedImage
from segany.hub.model_ref import ModelRef
from segany.imaging.image import DEFAULT_MAX_PIXELS, content_id, read_image
from segany.imaging.pixels import AS_STORED, PixelOptions
from segany.jobs.pipeline import Task, Written
from segany.predict.automatic import AutomaticConfig, AutomaticMaskGenerator


@dataclass(frozen=True)
class ImageItem:
    """An image file, and the prefix of the names of its results."""

    source: Path
    name: str


@dataclass(frozen=True, eq=False)
class FoundMasks:
    """The automatic masks of an image, to be written.

    Attributes:
        image: uint8 [H, W, 3].
        instances: the masks.
        formats: formats to write.
        cache: cache for the embedding; None for no cache.
        embedding: the embedding to store; None if it is already in the cache, or there is no cache.
    """

    image: PixelArray
    instances: Instances
    formats: tuple[str, ...]
    cache: EmbeddingCache | None
    embedding: Embedding | None


@dataclass(frozen=True)
class AutomaticTask(Task[ImageItem, PixelArray, AutomaticMaskGenerator, FoundMasks]):
    """Generate the automatic masks of images, and write them in some formats.

    Attributes:
        model: the model.
        out: folder of the results, which is created if it is missing.
        config: config of the automatic mask generator.
        formats: keys of `AUTOMATIC_FORMATS`, the parts of an item.
        label_order, label_fill: as for `Instances.to_label_map`.
        max_pixels: largest number of pixels of an image. Larger images are refused.
        pixel_options: interpretation of the values of images.
        embeddings: folder of an embedding cache. It excludes crops, each of which has an embedding of its own.
        protected: resolved paths that must not be overwritten, such as the images.
    """

    model: ModelRef
    out: Path
    config: AutomaticConfig = AutomaticConfig()  # noqa: RUF009 - it is frozen
    formats: tuple[str, ...] = DEFAULT_AUTOMATIC_FORMATS
    label_order: LabelOrder = "area"
    label_fill: bool = False
    max_pixels: int = DEFAULT_MAX_PIXELS
    pixel_options: PixelOptions = AS_STORED
    embeddings: Path | None = None
    protected: frozenset[Path] = frozenset()

    def __post_init__(self) -> None:
        check(
            self.embeddings is None or self.config.crop_n_layers == 0,
            "Embeddings can be cached only without crops, each of which has an embedding of its own. "
            "Leave out --embeddings, or give --crop-n-layers 0.",
        )

    def settings(self) -> Mapping[str, Any]:
        made_by = {"model": self.model.identity(), "config": asdict(self.config), "pixels": asdict(self.pixel_options)}
        labels = {"label_order": self.label_order, "label_fill": self.label_fill}
        return {name: {**made_by, **labels} if name == "label-map" else made_by for name in self.formats}

    def name(self, item: ImageItem) -> str:
        return item.name

    def content_id(self, item: ImageItem) -> str:
        try:
            return sha256_of(item.source)
        except OSError:
            return ""  # reading the image raises an error with the reason

    def is_there(self, part: str, value: Any) -> bool:  # noqa: ARG002
        return isinstance(value, list) and all((self.out / str(path)).is_file() for path in value)

    def open(self, progress: ProgressCallback | None) -> AutomaticMaskGenerator:
        return AutomaticMaskGenerator(self.model.load(progress), self.config, max_pixels=self.max_pixels)

    def read(self, item: ImageItem) -> PixelArray:
        return read_image(item.source, self.max_pixels, options=self.pixel_options)

    def process(
        self,
        model: AutomaticMaskGenerator,
        value: PixelArray,
        parts: Sequence[str],
        progress: ProgressCallback | None,
    ) -> FoundMasks:
        if self.embeddings is None:
            return FoundMasks(value, model.generate(value, progress=progress), tuple(parts), None, None)
        encoder = model.predictor.model
        cache = EmbeddingCache(self.embeddings, encoder.name, encoder.encoder_id, encoder.processor.preprocessing)
        found = cache.find(content_id(value))
        embedding = model.predictor.embed(value) if found is None else found
        masks = model.generate(embedding, progress=progress)
        return FoundMasks(value, masks, tuple(parts), cache, embedding if found is None else None)

    def write(self, item: ImageItem, output: FoundMasks) -> Written:
        if output.cache is not None and output.embedding is not None:
            output.cache.store(output.embedding.content_id, output.embedding.features, output.embedding.size_hw)
        annotated = AnnotatedImage(item.name, output.image, output.instances, item.source.name)
        options = FormatOptions(label_order=self.label_order, label_fill=self.label_fill)
        files = {
            name: write_files(
                AUTOMATIC_FORMATS[name](annotated, options), self.out, f"{item.name}_auto", self.protected
            )
            for name in output.formats
        }
        _remove_other_masks(files.get("masks-png", ()))
        return Written(
            {name: [path.relative_to(self.out).as_posix() for path in paths] for name, paths in files.items()},
            {
                "size_hw": list(output.instances.size_hw),
                "masks": len(output.instances),
                "files": {name: [str(path) for path in paths] for name, paths in files.items()},
            },
        )


def _remove_other_masks(written: Sequence[Path]) -> None:
    """Delete masks of an earlier run that found more masks, so that a folder holds what its metadata.csv lists."""
    for folder in {path.parent for path in written}:
        for path in folder.glob("*.png"):
            if path.stem.isdigit() and path not in written:
                path.unlink(missing_ok=True)
