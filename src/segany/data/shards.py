"""Datasets in tar shards of WebDataset: files whose names agree up to the first dot are one sample."""

from __future__ import annotations

import glob
import itertools
import os
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeAlias

from segany.core.arrays import PixelArray
from segany.core.errors import DataError, ImageError, InstancesError
from segany.core.files import check_is_file, path_errors
from segany.core.instances import Instances
from segany.data.annotations import parse_json
from segany.data.folders import check_not_empty, check_size, matching_files, printable, safe_name
from segany.data.formats.label_map import LabelNames, MaskReader
from segany.data.formats.mask_image import MaskOptions, Objects
from segany.data.formats.sa1b import from_sa1b
from segany.data.item import AnnotatedImage
from segany.imaging.image import read_image
from segany.imaging.image_formats import readable_suffixes

MAX_SHARDS = 1_000_000
"""Largest number of files that a brace pattern may expand to."""

_TAR_ERRORS = (
    tarfile.TarError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, EOFError, MemoryError,
)  # fmt: skip
"""Exceptions that `tarfile` raises for damaged headers."""

ShardInput: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]"


@dataclass(frozen=True)
class _Member:
    """Position of a file in its shard, in bytes."""

    offset: int
    size: int


@dataclass(frozen=True)
class _Sample:
    """A sample of a shard: its files by extension, which starts after the first dot, in lower case."""

    shard: Path
    members: dict[str, _Member] = field(default_factory=dict)


class TarShards:
    """A `Dataset` of samples in tar files, which are read in any order without extraction.

    A sample is an image and its masks: a JSON file of SA-1B (`json`); a label map, which is a PNG beside a JPEG or has
    a longer extension such as `mask.png`; or several PNGs with longer extensions, each with one mask. Samples without
    an image or without masks are left out. The name of a sample is the name of its shard, a slash, and its path in the
    shard.

    Values of label maps are classes if a `labels.json` or `classes.txt` beside the first shard names them.

    Opening indexes all shards once, by reading the headers of their files. The complete files of a truncated shard can
    be read; `warnings` has a message.

    Attributes:
        shards: the tar files.
        left_out: names of the samples without masks.
        warnings: messages about shards that are damaged in part.
    """

    def __init__(self, pattern: ShardInput, objects: Objects = "auto", *, mask_threshold: float = 0.5) -> None:
        """Find and index the shards.

        Args:
            pattern: a tar file; a folder of tar files; a pattern with {000..012}, {train,val}, * or ?; or a list of
                these.
            objects, mask_threshold: reading of label maps, as for `MaskFolder`.

        Raises:
            DataError: there are no shards, a shard is compressed or not a tar file, or there are no images with masks.
        """
        self.shards = find_shards(pattern)
        self._reader = MaskReader(MaskOptions(objects, mask_threshold))
        self.label_names = LabelNames.beside([shard.parent for shard in self.shards[:1]])
        self.warnings: list[str] = []
        samples: dict[str, _Sample] = {}
        for shard, title in zip(self.shards, _titles(self.shards), strict=True):
            for path, sample in self._index(shard).items():
                name = printable(f"{title}/{safe_name(PurePosixPath(path))}")
                while name in samples:
                    name += "_"
                samples[name] = sample
        with_image = {name: sample for name, sample in sorted(samples.items()) if _image_ending(sample) is not None}
        self._samples = [sample for sample in with_image.values() if _has_masks(sample)]
        self.names = tuple(name for name, sample in with_image.items() if _has_masks(sample))
        self.left_out = tuple(name for name, sample in with_image.items() if not _has_masks(sample))
        check_not_empty(len(self._samples), str(pattern), "images with masks (.jpg with .json or .png)")

    @property
    def omitted(self) -> Mapping[str, int]:
        """Number of samples that are left out, by reason."""
        return {"samples without masks": len(self.left_out)}

    def __len__(self) -> int:
        return len(self._samples)

    def read(self, index: int) -> AnnotatedImage:
        """See `Dataset`."""
        name, sample = self.names[index], self._samples[index]
        image_ending = _image_ending(sample)
        assert image_ending is not None
        image = _read_image(_read(sample, image_ending, name), f"{name}.{image_ending}")
        size_hw = (image.shape[0], image.shape[1])
        parts: list[Instances] = []
        try:
            if "json" in sample.members:
                parts.append(from_sa1b(parse_json(_read(sample, "json", name), f"{name}.json")))
                check_size(image, parts[0].size_hw, name)
            pictures = _mask_endings(sample)
            has_labels = self._reader.options.objects in ("auto", "labels")
            for ending in pictures:
                is_part = len(pictures) > 1
                masks = self._reader.read(_read(sample, ending, name), f"{name}.{ending}", is_one_object=is_part)
                for mask in masks.values():
                    check_size(image, (mask["size"][0], mask["size"][1]), name)
                names = self.label_names if has_labels and not is_part else LabelNames.none()
                parts.append(names.to_instances(masks, size_hw))
            instances = Instances.concatenate(parts, drop_unshared=True)
        except InstancesError as error:
            raise DataError(f"{name}: {error}") from error
        return AnnotatedImage(name, image, instances, f"{PurePosixPath(name).name}.{image_ending}")

    def _index(self, shard: Path) -> dict[str, _Sample]:
        """Read the headers of a shard. Returns its samples by their paths in the shard."""
        samples: dict[str, _Sample] = {}
        try:
            check_is_file(shard, DataError)
            with shard.open("rb") as file, tarfile.open(fileobj=_Bounded(file), mode="r:") as archive:  # type: ignore[call-overload]
                try:
                    for member in archive:
                        path = PurePosixPath(member.name)
                        stem, _, ending = path.name.partition(".")
                        if member.issparse():
                            self.warnings.append(f"{shard}: {member.name} is a sparse file, which is left out.")
                        elif member.isreg() and stem:
                            sample = samples.setdefault((path.parent / stem).as_posix(), _Sample(shard))
                            sample.members[ending.lower()] = _Member(member.offset_data, member.size)
                except _TAR_ERRORS as error:
                    self.warnings.append(f"{shard} is damaged or cut off ({error}); what comes before is used.")
        except _TAR_ERRORS as error:
            raise DataError(
                f"{shard} is no tar file, or is compressed, which allows no random access ({error}). "
                "Unpack compressed ones first."
            ) from error
        except OSError as error:
            raise DataError(f"{shard} cannot be read: {error.strerror or error}.") from error
        return samples


class _Bounded:
    """A file object for `tarfile` that limits what damaged headers can cause: large allocations and endless loops.

    A read allocates no more than the rest of the file, and reads in total at most about twice its size.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._left_to_read = 2 * self._size + (1 << 20)

    def read(self, count: int) -> bytes:
        left = max(0, self._size - self._file.tell())
        data = self._file.read(min(count, left) if count >= 0 else left)
        self._left_to_read -= len(data)
        if self._left_to_read < 0:
            raise tarfile.ReadError("its headers lead back")
        return data

    def seek(self, offset: int) -> int:
        return self._file.seek(min(offset, self._size))

    def tell(self) -> int:
        return self._file.tell()


def find_shards(pattern: ShardInput) -> tuple[Path, ...]:
    """Expand a pattern of `TarShards` to tar files, in its order; those of a folder or of * are sorted by name.

    Raises:
        DataError: there are none, or a file that the pattern names is missing.
    """
    if not isinstance(pattern, (str, os.PathLike)):
        return tuple(dict.fromkeys(shard for each in pattern for shard in find_shards(each)))
    path = Path(pattern)
    with path_errors(path, DataError):
        if path.is_dir():
            shards = sorted(path.glob("*.tar"))
            check_not_empty(len(shards), path, "tar files")
            return tuple(shards)
        if path.exists():  # the name of a file may contain brackets
            return (path,)
        found: list[Path] = []
        for text in expand_braces(str(pattern)):
            matches = matching_files(text) if glob.has_magic(text) else [Path(text)] * Path(text).exists()
            if not matches:
                raise DataError(f"There is no file {text}. Check the path.")
            found.extend(matches)
    return tuple(dict.fromkeys(found))


def expand_braces(pattern: str) -> list[str]:
    """Expand braces as a shell does: {08..10} to 08, 09 and 10, {a,b} to a and b.

    Raises:
        DataError: there are more than `MAX_SHARDS` results.
    """
    pieces = re.split(r"\{([^{}]*)\}", pattern)
    choices = [_choices(piece) if number % 2 else [piece] for number, piece in enumerate(pieces)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > MAX_SHARDS:
        raise DataError(f"{pattern} stands for {count:,} files, more than {MAX_SHARDS:,}.")
    return ["".join(parts) for parts in itertools.product(*choices)]


def _choices(braces: str) -> Sequence[str]:
    span = re.fullmatch(r"([0-9]+)\.\.([0-9]+)", braces)
    if span is None:
        return braces.split(",") if "," in braces else [f"{{{braces}}}"]
    first, last = int(span[1]), int(span[2])
    if last - first >= MAX_SHARDS:
        raise DataError(f"{{{braces}}} stands for {last - first + 1:,} files, more than {MAX_SHARDS:,}.")
    return [f"{number:0{len(span[1])}d}" for number in range(first, last + 1)]


def _titles(shards: Sequence[Path]) -> list[str]:
    """Return unique names of shards: without suffix, and with the folder if two would have the same name."""
    stems = [shard.stem for shard in shards]
    return stems if len(set(stems)) == len(stems) else [shard.with_suffix("").as_posix() for shard in shards]


def _image_ending(sample: _Sample) -> str | None:
    """Return the extension of the image. A PNG beside another image is a label map."""
    suffixes = readable_suffixes()
    endings = [ending for ending in sample.members if f".{ending}" in suffixes]
    return min(endings, key=lambda ending: (ending == "png", ending), default=None)


def _mask_endings(sample: _Sample) -> list[str]:
    image = _image_ending(sample)
    return sorted(ending for ending in sample.members if ending.split(".")[-1] == "png" and ending != image)


def _has_masks(sample: _Sample) -> bool:
    return "json" in sample.members or bool(_mask_endings(sample))


def _read(sample: _Sample, ending: str, name: str) -> bytes:
    """Read a file of a sample. The shard is opened each time, since processes and threads must not share a position."""
    member = sample.members[ending]
    try:
        check_is_file(sample.shard, DataError)
        with sample.shard.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            if member.size < 0 or member.offset + member.size > length:  # checked before memory is allocated
                raise DataError(f"{name}.{ending} is cut off: the end of {sample.shard} is missing.")
            file.seek(member.offset)
            return file.read(member.size)
    except OSError as error:
        raise DataError(f"{sample.shard} cannot be read: {error.strerror or error}.") from error


def _read_image(data: bytes, what: str) -> PixelArray:
    try:
        return read_image(data, name=what)
    except ImageError as error:
        raise DataError(str(error)) from error
    except MemoryError as error:
        raise DataError(f"{what} needs more memory than there is.") from error
