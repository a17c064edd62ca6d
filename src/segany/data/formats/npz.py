"""NumPy archives of instances, which can be read again, and of whole predictions."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from segany.core.arrays import SizeHW
from segany.core.errors import InstancesError, OutputError
from segany.core.files import check_is_file
from segany.core.instance import Category
from segany.core.instances import Instances
from segany.core.rle import encode_masks
from segany.data.annotations import checked_size
from segany.data.formats.sa1b import official_boxes_xywh
from segany.data.formats.writing import FormatOptions
from segany.data.item import AnnotatedImage
from segany.data.numpy_files import array_names, read_header, read_member

MAX_COLUMN_BYTES = 1 << 28
"""Of a column as its file claims it: a thousand bytes each for a quarter of a million instances."""

_FIELDS = ("boxes_xyxy", "scores", "category_ids", "object_ids", "sources")
_DERIVED = ("masks", "area", "bbox_xywh", "crop_box_xywh", "categories")


def to_npz(instances: Instances) -> bytes:
    """A compressed archive of instances.

    It holds `masks` bool [N, H, W]; `area` int64 [N]; `bbox_xywh` float32 [N, 4], the boxes of the masks as in the
    official code; `boxes_xyxy`, `scores`, `category_ids`, `object_ids`, `sources` and the optional columns as in
    `Instances`; `crop_box_xywh` if there is `crop_box_xyxy`; and `categories` str [C, 3], id, name and supercategory.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        # One mask at a time, because dense masks take a byte for each pixel.
        with archive.open("masks.npy", "w", force_zip64=True) as file:
            header = {"descr": "|b1", "fortran_order": False, "shape": (len(instances), *instances.size_hw)}
            np.lib.format.write_array_header_1_0(file, header)
            for instance in instances:
                file.write(instance.mask.tobytes())
        for name, array in _arrays(instances).items():
            with archive.open(f"{name}.npy", "w") as column:
                np.lib.format.write_array(column, array, allow_pickle=False)
    return buffer.getvalue()


def from_npz(file: str | os.PathLike[str] | IO[bytes]) -> Instances:
    """Read an archive of `to_npz`. The instances are the same.

    Args:
        file: a path or an open file.

    Raises:
        InstancesError: the file is not such an archive.
    """
    name = os.fspath(file) if isinstance(file, (str, os.PathLike)) else "The file"
    try:
        if isinstance(file, (str, os.PathLike)):
            check_is_file(Path(file), InstancesError)
        with zipfile.ZipFile(file) as archive:
            names = [name for name in array_names(archive) if name not in (*_FIELDS, *_DERIVED)]
            columns = {name: read_member(archive, name, MAX_COLUMN_BYTES) for name in names}
            rows = read_member(archive, "categories", MAX_COLUMN_BYTES)
            categories = [Category(int(number), str(name), str(wider)) for number, name, wider in rows]
            fields: dict[str, Any] = {name: read_member(archive, name, MAX_COLUMN_BYTES) for name in _FIELDS}
            with archive.open("masks.npy") as masks:
                counts, size_hw = _encoded_masks(masks)
            return Instances(counts, size_hw, **fields, categories=categories, columns=columns)
    except InstancesError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy each have errors of their own for damaged files
        raise InstancesError(
            f"{name} is no readable archive of instances ({type(error).__name__}: {error}). Write it again with to_npz."
        ) from error


def _encoded_masks(file: IO[bytes]) -> tuple[list[str], SizeHW]:
    """Encode masks, bool [N, H, W], one at a time. Returns the compressed run lengths and the size."""
    header = read_header(file)
    if header.dtype != np.bool_ or len(header.shape) != 3 or header.fortran_order:
        raise ValueError(f"its masks are {header.dtype} of shape {list(header.shape)}, not bool [N, H, W]")
    count, *sides = header.shape
    size_hw = checked_size(*sides) if count else (sides[0], sides[1])
    counts = []
    for _ in range(count):
        # The bytes are not kept in a variable: they would stay in memory beside the copy that is encoded.
        mask = np.frombuffer(file.read(size_hw[0] * size_hw[1]), dtype=np.uint8).reshape(size_hw) != 0
        counts.append(encode_masks(mask)[0]["counts"])
    return counts, size_hw


def encode_npz(annotated: AnnotatedImage, options: FormatOptions) -> Iterator[tuple[str, bytes]]:  # noqa: ARG001
    """A NumPy archive of the instances, see `to_npz`."""
    yield ".npz", to_npz(annotated.instances)


def encode_prediction(annotated: AnnotatedImage, options: FormatOptions) -> Iterator[tuple[str, bytes]]:  # noqa: ARG001
    """A NumPy archive of the prediction that the instances come from, with all candidates.

    It holds `masks` bool [P, M, H, W], `scores` float32 [P, M], `low_res_logits` float32 [P, M, h, w] and
    `candidates` int64 [P], as in `MaskPrediction`.

    Raises:
        OutputError: the instances do not come from a prediction.
    """
    prediction = options.prediction
    if prediction is None:
        raise OutputError("These instances do not come from prompts, so that there is no prediction to write.")
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        masks=prediction.masks,
        scores=prediction.scores,
        low_res_logits=prediction.low_res_logits,
        candidates=prediction.candidates,
    )
    yield "_prediction.npz", buffer.getvalue()


def _arrays(instances: Instances) -> dict[str, npt.NDArray[Any]]:
    categories = [(str(category.id), category.name, category.supercategory) for category in instances.categories]
    arrays: dict[str, npt.NDArray[Any]] = {
        "area": instances.areas,
        "bbox_xywh": official_boxes_xywh(instances),
        **{name: getattr(instances, name) for name in _FIELDS},
        "categories": np.array(categories, dtype=np.str_).reshape(-1, 3),
        **instances.columns,
    }
    if "crop_box_xyxy" in instances.columns:
        arrays["crop_box_xywh"] = np.array(instances.columns["crop_box_xyxy"])
        arrays["crop_box_xywh"][:, 2:] -= arrays["crop_box_xywh"][:, :2]
    return arrays
