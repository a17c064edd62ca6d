"""Base class and registration of encoder configs, renaming of checkpoint keys, and configs as JSON.

A new image encoder is a folder with a frozen dataclass derived from `EncoderConfig` and decorated with `register`,
and the `ImageEncoder` that its `build` returns. No other module needs to know the encoder.
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
"""Stride of the image embedding, in pixels of the input; the mask decoders require it."""

KeyRules: TypeAlias = Sequence[tuple[str, str | None]]
"""Pairs of a regular expression that matches a whole checkpoint key and its replacement; None drops the tensor."""

Config = TypeVar("Config", bound=type)

_KIND = "kind"
_KINDS: dict[str, type] = {}


def register(kind: Config) -> Config:
    """Register a config class under its name, so that model files can refer to it. A class decorator.

    Raises:
        ConfigError: another class of that name is registered.
    """
    other = _KINDS.setdefault(kind.__name__, kind)
    same = (other.__module__, other.__qualname__) == (kind.__module__, kind.__qualname__)
    check(same, f"There is a {kind.__name__} in {other.__module__} already: give the class another name.")
    _KINDS[kind.__name__] = kind
    return kind


class EncoderConfig(ABC):
    """Base class of encoder configs: frozen dataclasses with at least these fields, decorated with `register`.

    Attributes:
        input_size: side of the square input in pixels, a multiple of every stride.
        out_channels: channels of the feature maps that the encoder returns.
        title: display name of the architecture.
        strides: strides of the feature maps that the encoder returns, in pixels of the input. The first is that of
            the image embedding, `EMBEDDING_STRIDE`. SAM requires only this one; SAM 2 also strides 4 and 8.
        drops_branches: whether the blocks support drop path (`drop_path_scales`).
        encodes_patches: whether `ImageEncoder.encode_patches` is implemented, which masked autoencoding needs.
        key_rules: renaming of the encoder's keys in checkpoints with other names, and the tensors to drop.
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
        """Build the module with random weights."""


def check_input_size(input_size: int, multiple: int) -> None:
    """Raise `ConfigError` unless the input size is a positive multiple of `multiple`."""
    fits = input_size > 0 and input_size % multiple == 0
    check(fits, f"input_size must be a positive multiple of {multiple}, got {input_size}.")


def rename_key(key: str, rules: KeyRules) -> str | None:
    """Rename a key by the first rule that matches it; None if the rule drops it, unchanged if no rule matches."""
    for pattern, replacement in rules:
        if match := re.fullmatch(pattern, key):
            return None if replacement is None else match.expand(replacement)
    return key


def config_to_json(config: object) -> dict[str, Any]:
    """Convert a config to JSON values; the key `kind` names the class of each config."""
    assert dataclasses.is_dataclass(config)
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {
        _KIND: type(config).__name__,
        **{name: config_to_json(value) if dataclasses.is_dataclass(value) else value for name, value in fields.items()},
    }


def config_from_json(value: Any) -> Any:
    """Convert the result of `config_to_json` back to a config.

    Raises:
        ConfigError: its kind is not registered, or a value is invalid.
        KeyError, TypeError: it has no kind, or its fields are not those of the kind.
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
