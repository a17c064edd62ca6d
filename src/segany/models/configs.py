"""What configurations of models have in common: how an encoder registers, names of tensors, and JSON.

A new image encoder is a folder with a frozen dataclass derived from `EncoderConfig` and decorated with `register`,
and the `ImageEncoder` that its `build` returns. Everything else asks these two.
"""

from __future__ import annotations

import dataclasses
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

from segany.core.errors import ConfigError, check

if TYPE_CHECKING:
    from segany.models.image_encoder import ImageEncoder

EMBEDDING_STRIDE = 16
"""Pixels of the input per position of the image embedding, which mask decoders are made for."""

KeyRules: TypeAlias = Sequence[tuple[str, str | None]]
"""Pairs of a regular expression for a whole key of a checkpoint and its replacement; None leaves the tensor out."""

Config = TypeVar("Config", bound=type)

_KIND = "kind"
_KINDS: dict[str, type] = {}


def register(kind: Config) -> Config:
    """Register a frozen dataclass as a part of models' architectures, so that files of models can name it.

    Raises:
        ConfigError: another class has that name.
    """
    other = _KINDS.setdefault(kind.__name__, kind)
    same = (other.__module__, other.__qualname__) == (kind.__module__, kind.__qualname__)
    check(same, f"There is a {kind.__name__} in {other.__module__} already: give the class another name.")
    _KINDS[kind.__name__] = kind
    return kind


class EncoderConfig(ABC):
    """The architecture of an image encoder: a frozen dataclass with at least these fields, decorated with `register`.

    Attributes:
        input_size: side of the square input in pixels, a multiple of every stride.
        out_channels: channels of the maps that the encoder returns.
        title: what people call the architecture.
        strides: pixels of the input per position of each map that the encoder returns. The first is that of the
            image embedding, `EMBEDDING_STRIDE`. SAM takes no other; SAM 2 takes maps of strides 4 and 8 as well.
        drops_branches: whether the blocks take `drop_path_scales`.
        encodes_patches: whether `ImageEncoder.encode_patches` is there, which masked autoencoding needs.
        key_rules: what the encoder's tensors are called in checkpoints of others, and which of those are not used.
    """

    input_size: int
    out_channels: int
    title: ClassVar[str]
    strides: ClassVar[tuple[int, ...]] = (EMBEDDING_STRIDE,)
    drops_branches: ClassVar[bool] = False
    encodes_patches: ClassVar[bool] = False
    key_rules: ClassVar[KeyRules] = ()

    @abstractmethod
    def build(self) -> ImageEncoder:
        """The module with random weights."""


def check_input_size(input_size: int, multiple: int) -> None:
    """Raise `ConfigError` unless the side of the input is a positive multiple of a number."""
    fits = input_size > 0 and input_size % multiple == 0
    check(fits, f"input_size must be a positive multiple of {multiple}, got {input_size}.")


def rename_key(key: str, rules: KeyRules) -> str | None:
    """The key by the first rule that matches all of it: unchanged where none does, None where it is left out."""
    for pattern, replacement in rules:
        if match := re.fullmatch(pattern, key):
            return None if replacement is None else match.expand(replacement)
    return key


def config_to_json(config: object) -> dict[str, Any]:
    """A frozen config of a model as JSON values, each with the `kind` that names its class."""
    assert dataclasses.is_dataclass(config)
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {
        _KIND: type(config).__name__,
        **{name: config_to_json(value) if dataclasses.is_dataclass(value) else value for name, value in fields.items()},
    }


def config_from_json(value: Any) -> Any:
    """What `config_to_json` made JSON of.

    Raises:
        ConfigError: its kind is not registered, or a value is not allowed.
        KeyError, TypeError: it has no kind, or other fields.
    """
    if isinstance(value, list):
        return tuple(value)
    if not isinstance(value, Mapping):
        return value
    fields = {name: config_from_json(item) for name, item in value.items() if name != _KIND}
    kind = _KINDS.get(value[_KIND])
    if kind is None:
        raise ConfigError(f"There is no {value[_KIND]} here. Import the module that registers it, or update segany")
    return kind(**fields)
