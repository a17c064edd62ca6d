"""Image embeddings, and the safetensors file format that stores them.

The features are the tensors `features.0`, `features.1`, ..., in float32 or float16, [C, h, w] or, where the header
says `channels_last`, [h, w, C]. All other fields are JSON under one key of the header, so that a reader can identify a
file without loading its arrays. A CRC-32 of the features detects corruption on the disk.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from segany.core.arrays import FloatArray, ReadOnlyArrays, SizeHW, frozen_view
from segany.core.errors import ConfigError, EmbeddingError, check
from segany.core.files import check_is_file, path_errors, write_file
from segany.core.preprocessing import Preprocessing

Feature: TypeAlias = Any
"""A NumPy array, or a tensor on the device of the image encoder."""

EmbeddingPrecision: TypeAlias = Literal["fp32", "fp16"]

FORMAT_VERSION = 2
"""Incremented when older versions of segany can no longer read the file."""

MAX_SIDE = 1_000_000
"""Largest image side in pixels that a header may claim; a larger one means that the file is damaged."""

MAX_FEATURES = 64
"""Most arrays that a file may hold; no model has as many features."""

_HEADER_KEY = "segany_embedding"


@dataclass(frozen=True, eq=False)
class Embedding(ReadOnlyArrays):
    """The output of the image encoder for one image: computed once, then decoded with any number of prompts.

    Attributes:
        features: the output of the image encoder without a batch axis: the image embedding [C, h, w], then any
            high-resolution features. They are float32 arrays if the model runs on a CPU and tensors on the device
            if it runs on an accelerator; `arrays` always returns arrays.
        size_hw: size of the original image in pixels, EXIF orientation applied.
        preprocessing: how the image was resized and normalized.
        model: name of the model.
        encoder_id: digest of the weights of the image encoder.
        content_id: sha256 of the image's size and RGB pixels.
    """

    features: tuple[Feature, ...]
    size_hw: SizeHW
    preprocessing: Preprocessing
    model: str
    encoder_id: str
    content_id: str

    def __post_init__(self) -> None:
        frozen = (frozen_view(one) if isinstance(one, np.ndarray) else one for one in self.features)
        object.__setattr__(self, "features", tuple(frozen))

    def arrays(self) -> tuple[FloatArray, ...]:
        """Return the features as float32 arrays in main memory."""
        return tuple(feature_array(feature) for feature in self.features)

    def to_cpu(self) -> Embedding:
        """Return a copy with arrays as features, so that many embeddings can be kept without filling a GPU."""
        return replace(self, features=self.arrays())

    def save(self, path: str | Path, *, precision: EmbeddingPrecision = "fp32") -> Path:
        """Write the embedding to a safetensors file atomically. Returns the path.

        Args:
            path: path of the file.
            precision: "fp16" rounds the features to float16, which halves the file, for example to send it to a
                browser (2 MB for SAM). Masks change by a few pixels along their edges.

        Raises:
            ConfigError: there is no such precision.
            EmbeddingError: a value is too large for float16.
            OutputError: the file cannot be written.
        """
        return write_embedding(self, Path(path), precision)

    def to_bytes(self, *, precision: EmbeddingPrecision = "fp32") -> bytes:
        """Return the content of the file that `save` writes, for example to send it to a browser.

        Raises:
            ConfigError, EmbeddingError: as for `save`.
        """
        return encode_embedding(self, precision)

    @classmethod
    def load(cls, path: str | Path) -> Embedding:
        """Read an embedding that `save` wrote.

        Raises:
            EmbeddingError: the file is missing, damaged, or not an embedding of segany.
        """
        return read_embedding(Path(path))

    def check_model(self, model: str, encoder_id: str, preprocessing: Preprocessing) -> None:
        """Raise `EmbeddingError` unless the embedding comes from this model, these encoder weights and this input."""
        if self.model != model:
            raise EmbeddingError(
                f"This embedding was made by {self.model!r} and cannot be used with {model!r}. "
                "Embed the image again with the model you predict with."
            )
        if self.encoder_id != encoder_id:
            raise EmbeddingError(
                f"This embedding was made by {self.model!r} with other image-encoder weights "
                f"({self.encoder_id}, not {encoder_id}). Embed the image again."
            )
        if self.preprocessing != preprocessing:
            raise EmbeddingError(
                f"This embedding was made with {self.preprocessing}, but the model takes {preprocessing}. "
                "Embed the image again."
            )


def feature_array(feature: Feature) -> FloatArray:
    """Convert a feature, an array or a tensor, to a float32 array in main memory."""
    if isinstance(feature, np.ndarray):
        return np.asarray(feature, dtype=np.float32)
    return np.asarray(feature.detach().float().cpu().numpy())


def write_embedding(
    embedding: Embedding, path: Path, precision: EmbeddingPrecision = "fp32", *, channels_last: bool = False
) -> Path:
    """Write an embedding atomically. Returns the path.

    Raises:
        ConfigError, EmbeddingError: as for `encode_embedding`.
        OutputError: the file cannot be written.
    """
    return write_file(path, encode_embedding(embedding, precision, channels_last=channels_last))


def encode_embedding(
    embedding: Embedding, precision: EmbeddingPrecision = "fp32", *, channels_last: bool = False
) -> bytes:
    """Return the content of an embedding's file.

    With `channels_last`, features [C, h, w] are stored as [h, w, C] and have that memory layout when they are read.

    Raises:
        ConfigError: there is no such precision.
        EmbeddingError: a value is too large for float16.
    """
    check(precision in get_args(EmbeddingPrecision), f"precision must be 'fp32' or 'fp16', got {precision!r}.")
    features = [_halved(feature) if precision == "fp16" else feature for feature in embedding.arrays()]
    if channels_last:
        features = [np.moveaxis(feature, 0, -1) for feature in features]
    # safetensors ignores strides and byte order: it writes the memory from the first element on.
    arrays = {
        f"features.{i}": np.ascontiguousarray(feature, dtype=feature.dtype.newbyteorder("<"))
        for i, feature in enumerate(features)
    }
    header = {
        "format_version": FORMAT_VERSION,
        "model": embedding.model,
        "encoder_id": embedding.encoder_id,
        "content_id": embedding.content_id,
        "size_hw": list(embedding.size_hw),
        "preprocessing": asdict(embedding.preprocessing),
        "channels_last": channels_last,
        "crc32": _crc32(arrays.values()),
    }
    return save(arrays, metadata={_HEADER_KEY: json.dumps(header)})


def _crc32(arrays: Iterable[npt.NDArray[Any]]) -> int:
    value = 0
    for array in arrays:
        value = zlib.crc32(array.data, value)
    return value


def _halved(feature: FloatArray) -> npt.NDArray[np.float16]:
    with np.errstate(over="ignore"):  # overflow gives infinity, which is refused below
        halved = feature.astype(np.float16)
    if not np.isfinite(halved).all():
        raise EmbeddingError(
            f"The embedding has values that float16 cannot hold, up to {np.abs(feature).max():g}. Save it in fp32."
        )
    return halved


def read_embedding(path: Path) -> Embedding:
    """Read an embedding that `write_embedding` wrote.

    Raises:
        EmbeddingError: the file is missing, unreadable, damaged, not an embedding of segany, or written by a newer
            version of segany.
    """
    try:
        with path_errors(path, EmbeddingError):
            if path.exists():
                check_is_file(path, EmbeddingError)
        with safe_open(path, framework="numpy") as file:
            header = _checked_header(file.metadata() or {}, path)
            stored = _checked_features(file, path)
    except FileNotFoundError:
        raise EmbeddingError(f"There is no file {path}. Check the path.") from None
    except SafetensorError as error:
        raise EmbeddingError(
            f"{path} is damaged, or not an embedding ({error}). Embed the image again and save it anew."
        ) from error
    except OSError as error:
        raise EmbeddingError(f"{path} cannot be read: {error.strerror or error}.") from error
    expected = header.get("crc32")
    if expected is not None and expected != _crc32(stored):
        raise EmbeddingError(f"{path} is damaged: its content changed. Embed the image again and save it anew.")
    if header.get("channels_last", False):
        stored = [np.moveaxis(feature, -1, 0) for feature in stored]
    return _embedding(header, tuple(feature.astype(np.float32, copy=False) for feature in stored), path)


def _checked_features(file: Any, path: Path) -> list[npt.NDArray[Any]]:
    """Check dtypes and shapes in the header, then load the arrays: a damaged file must not claim memory."""
    names = [f"features.{index}" for index in range(len(file.keys()))]
    if not names or len(names) > MAX_FEATURES or set(names) != set(file.keys()):
        raise EmbeddingError(f"{path} is damaged: it lacks features, or holds others. Embed the image again.")
    for name in names:
        stored = file.get_slice(name)
        if stored.get_dtype() not in ("F32", "F16") or not stored.get_shape() or 0 in stored.get_shape():
            raise EmbeddingError(
                f"{path} is damaged: {name} is {stored.get_dtype()} {stored.get_shape()}, not an array of float32 or "
                "float16. Embed the image again."
            )
    features = [file.get_tensor(name) for name in names]
    if not all(np.isfinite(feature).all() for feature in features):
        raise EmbeddingError(f"{path} holds values that are not finite. Embed the image again.")
    return features


def _checked_header(metadata: dict[str, str], path: Path) -> dict[str, Any]:
    try:
        header = json.loads(metadata[_HEADER_KEY])
        version = header["format_version"]
    except (KeyError, TypeError, ValueError) as error:
        raise EmbeddingError(
            f"{path} is not an embedding that segany wrote. Give a file written by Embedding.save."
        ) from error
    if version != FORMAT_VERSION:
        raise EmbeddingError(
            f"{path} has format version {version}; this segany reads version {FORMAT_VERSION}. "
            "Install a newer segany, or embed the image again."
        )
    return dict(header)


def _embedding(header: dict[str, Any], features: tuple[Any, ...], path: Path) -> Embedding:
    try:
        height, width = header["size_hw"]
        check(all(type(side) is int and 0 < side <= MAX_SIDE for side in (height, width)), "size_hw is no size")
        names = ("model", "encoder_id", "content_id")
        check(all(isinstance(header[name], str) for name in names), "a name is no text")
        values = dict(header["preprocessing"])
        for name in ("mean_rgb", "std_rgb"):  # JSON has no tuples
            values[name] = tuple(values[name])
        return Embedding(
            features=features,
            size_hw=(height, width),
            preprocessing=Preprocessing(**values),
            model=header["model"],
            encoder_id=header["encoder_id"],
            content_id=header["content_id"],
        )
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise EmbeddingError(
            f"The header of {path} is damaged ({error}). Embed the image again and save it anew."
        ) from error
