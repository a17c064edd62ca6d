"""Reading of NumPy files with headers validated before allocation: a small file can state an array of any size."""

from __future__ import annotations

import math
import zipfile
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt


class ArrayHeader(NamedTuple):
    """The header of a .npy file."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]


def read_header(file: IO[bytes]) -> ArrayHeader:
    """Read the header of a .npy file. The position of the file is then the start of the data.

    Raises:
        ValueError: the file is not a .npy file, or holds Python objects.
    """
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        header = ArrayHeader(*np.lib.format.read_array_header_1_0(file))
    elif version == (2, 0):
        header = ArrayHeader(*np.lib.format.read_array_header_2_0(file))
    else:
        raise ValueError(f"its format version {version} is unknown")
    if header.dtype.hasobject:
        raise ValueError("it holds Python objects")
    return header


def read_array(file: IO[bytes], max_bytes: int) -> npt.NDArray[Any]:
    """Read a .npy file.

    Args:
        file: the open file.
        max_bytes: larger arrays are refused.

    Returns:
        The array, read-only, with the dtype, shape and memory layout of the header.

    Raises:
        ValueError: the array is larger, holds Python objects, or is truncated.
    """
    header = read_header(file)
    count = math.prod(header.shape)
    size = count * header.dtype.itemsize
    if min(header.shape, default=0) < 0 or size > max_bytes:
        raise ValueError(f"an array of shape {list(header.shape)} takes {size:,} bytes, more than {max_bytes:,}")
    data = file.read(size)
    if len(data) < size:
        raise ValueError("it is cut off")
    array = np.frombuffer(data, dtype=header.dtype, count=count)
    return array.reshape(header.shape, order="F" if header.fortran_order else "C")


def array_names(archive: zipfile.ZipFile) -> list[str]:
    """The names of the arrays in a .npz archive."""
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def read_member(archive: zipfile.ZipFile, name: str, max_bytes: int) -> npt.NDArray[Any]:
    """Read an array of a .npz archive; see `read_array`.

    Raises:
        KeyError: there is no array of that name.
        ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError: the array is damaged.
    """
    with archive.open(f"{name}.npy") as file:
        return read_array(file, max_bytes)
