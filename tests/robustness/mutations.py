"""Seeded mutations of files: of their bytes, and of what lies behind lengths and checksums.

A mutated byte of a zip, PNG or safetensors file is mostly caught by a checksum or a length. So members of archives,
chunks, and the values of JSON are mutated too, with checksums and lengths that are right.
"""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

NUMBERS = (-1, 0, 1, 2**16, 2**31 - 1, 2**32, 2**62, 2**64, 10**30, -(2**63), 0.5, 1e308, -1e308, float("nan"), 10**400)
TEXTS = (
    "BF16",
    "F8_E4M3",
    "BOOL",
    "I64",
    "F64",
    "",
    ".",
    "..",
    "../x",
    "/etc/passwd",
    "a" * 300,
    "\x00",
    "[/x]\x1b[31m",
    "é",
    "1",
    "true",
    "\ud800",
)
OTHERS = (None, True, [], {}, [[]], [1, 2], [["a"]], {"a": 1}, [[0, 0, 10**9, 0, 10**9, 10**9]])


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A mutation of a file."""
    if rng.random() < 0.75:
        for inner in (_mutate_json, _mutate_safetensors, _mutate_zip, _mutate_png):
            mutated = inner(data, rng)
            if mutated is not None:
                return mutated
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        _mutate_bytes(out, rng)
    return bytes(out)


def _mutate_json(data: bytes, rng: random.Random) -> bytes | None:
    try:
        value = json.loads(data)
    except ValueError:
        return None
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        value = _mutate_value(value, rng)
    return json.dumps(value).encode()


def _mutate_safetensors(data: bytes, rng: random.Random) -> bytes | None:
    length = int.from_bytes(data[:8], "little")
    try:
        described = json.loads(data[8 : 8 + length])
        names = [name for name in described if name != "__metadata__"]
    except (ValueError, TypeError):
        return None
    chance, some = rng.random(), rng.choice(names)
    if chance < 0.4:  # what the program says of its file
        described["__metadata__"] = _mutate_value(described.get("__metadata__", {}), rng)
    elif chance < 0.6:  # the same bytes as something else
        described[some]["dtype"] = rng.choice(
            ("F32", "I32", "U32", "BF16", "F16", "F8_E4M3", "U8", "BOOL", "I64", "F64")
        )
        size = {"BF16": 2, "F16": 2, "F8_E4M3": 1, "U8": 1, "BOOL": 1, "I64": 8, "F64": 8}.get(
            described[some]["dtype"], 4
        )
        start, end = described[some]["data_offsets"]
        described[some]["shape"] = [(end - start) // size]
    elif chance < 0.8:
        shape = described[some]["shape"]
        described[some]["shape"] = rng.choice(
            ([1, *shape], shape[::-1], [*shape[:-2], int(np.prod(shape[-2:]))], shape)
        )
    else:
        described = _mutate_value(described, rng)
    header = json.dumps(described).encode()
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def _mutate_zip(data: bytes, rng: random.Random) -> bytes | None:
    if not data.startswith(b"PK"):
        return None
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    chosen = rng.choice(list(members))
    members[chosen] = mutate(members[chosen], rng)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _mutate_png(data: bytes, rng: random.Random) -> bytes | None:
    if not data.startswith(b"\x89PNG"):
        return None
    chunks, place = [], 8
    while place + 8 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    index = rng.randrange(len(chunks))
    kind, content = chunks[index]
    changed = bytearray(zlib.decompress(content) if kind == b"IDAT" and len(content) < 10_000 else content)
    _mutate_bytes(changed, rng)
    chunks[index] = (kind, zlib.compress(changed) if kind == b"IDAT" else bytes(changed))
    packed = (
        len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")
        for kind, content in chunks
    )
    return data[:8] + b"".join(packed)


def _mutate_bytes(data: bytearray, rng: random.Random) -> None:
    kind = rng.randrange(6)
    # Headers hold the sizes: half of the mutations hit the first few hundred bytes.
    place = rng.randrange(min(len(data), 400) if rng.random() < 0.5 else len(data)) if data else 0
    if kind == 0 and data:
        data[place] ^= 1 << rng.randrange(8)
    elif kind == 1 and data:
        data[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    elif kind == 2:
        del data[place:]
    elif kind == 3:
        number = rng.choice((0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1))
        data[place : place + 4] = struct.pack(rng.choice("<>") + "I", number)
    elif kind == 4:
        end = place + rng.randrange(1, 64)
        data[place:place] = data[place:end]
    else:
        del data[place : place + rng.randrange(1, 64)]


def _mutate_value(value: Any, rng: random.Random) -> Any:
    """Replace, drop or repeat one of all the values in a JSON value, at whatever depth."""
    path = rng.choice(list(_paths(value)))
    return _changed(value, path, rng)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _paths(item, (*path, key))


def _changed(value: Any, path: tuple[Any, ...], rng: random.Random) -> Any:
    if not path:
        return _replaced(value, rng)
    key, rest = path[0], path[1:]
    if isinstance(value, dict):
        if not rest and rng.random() < 0.15:
            return {name: item for name, item in value.items() if name != key}
        return {**value, key: _changed(value[key], rest, rng)}
    if not rest and rng.random() < 0.3:
        return value[:key] + value[key : key + 1] * rng.choice((0, 2)) + value[key + 1 :]
    return [*value[:key], _changed(value[key], rest, rng), *value[key + 1 :]]


def _replaced(value: Any, rng: random.Random) -> Any:
    if rng.random() < 0.3:  # another type
        return rng.choice(rng.choice((NUMBERS, TEXTS, OTHERS)))
    if isinstance(value, str):
        if value[:1] in ("{", "["):  # JSON in a text of JSON
            inner = _mutate_json(value.encode(), rng)
            return value if inner is None else inner.decode()
        if value and rng.random() < 0.5:
            data = bytearray(value.encode("utf-8", "surrogatepass"))
            _mutate_bytes(data, rng)
            return data.decode("utf-8", "replace")
        return rng.choice(TEXTS)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return rng.choice((*NUMBERS, value + 1, value - 1, -value, value * 1000))
    return rng.choice(OTHERS)
