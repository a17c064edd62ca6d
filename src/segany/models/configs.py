"""Base class and registration of encoder configs, renaming of checkpoint keys, and configs as JSON.

A new image encoder is a folder with a frozen dataclass derived from `EncoderConfig` and decorated with `register`,
and the `ImageEncoder` that its `build` returns. No other module needs to know the encoder.

A module imports its config. The config imports its module only inside `build`, so that tables of models, key maps and
`ModelRef` need no PyTorch. Below `cli`, no other imports form a cycle.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, TypeVar, Union, get_args, get_origin

from segany.core.errors import ConfigError, check
from segany.core.preprocessing import MAX_INPUT_SIZE

if TYPE_CHECKING:
    from segany.models.image_encoder import ImageEncoder

EMBEDDING_STRIDE = 16
"""Stride of the image embedding, in pixels of the input; the mask decoders require it."""

MAX_CONFIG_VALUE = 1 << 16
"""Bound on the numbers of a config in a file, far above those of any model: a file can claim any size."""

MAX_DEPTH = 512
"""Most blocks of an encoder, ten times those of the largest."""

MAX_WINDOW_SIZE = 256
"""Largest side of a window in positions: feature maps are padded to multiples of it."""

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
        has_drop_path: whether the blocks support drop path (`drop_path_scales`).
        encodes_patches: whether `ImageEncoder.encode_patches` is implemented, which masked autoencoding needs.
        key_rules: renaming of the encoder's keys in checkpoints with other names, and the tensors to drop.
    """

    input_size: int
    out_channels: int
    title: ClassVar[str]
    strides: ClassVar[tuple[int, ...]] = (EMBEDDING_STRIDE,)
    has_drop_path: ClassVar[bool] = False
    encodes_patches: ClassVar[bool] = False
    key_rules: ClassVar[KeyRules] = ()

    @abstractmethod
    def build(self) -> ImageEncoder:
        """Build the module with random weights."""


def check_input_size(input_size: int, multiple: int) -> None:
    """Raise `ConfigError` unless the input size is a multiple of `multiple` up to `MAX_INPUT_SIZE`."""
    fits = 0 < input_size <= MAX_INPUT_SIZE and input_size % multiple == 0
    check(fits, f"input_size must be a multiple of {multiple} in 1..{MAX_INPUT_SIZE}, got {input_size}.")


def check_depths(**depths: int) -> None:
    """Raise `ConfigError` unless each number of blocks or layers lies in 1..`MAX_DEPTH`."""
    for name, depth in depths.items():
        check(1 <= depth <= MAX_DEPTH, f"{name} must lie in 1..{MAX_DEPTH}, got {depth}.")


def check_window_sizes(*sizes: int) -> None:
    """Raise `ConfigError` unless each side of a window lies in 1..`MAX_WINDOW_SIZE`."""
    for size in sizes:
        check(1 <= size <= MAX_WINDOW_SIZE, f"Window sizes must lie in 1..{MAX_WINDOW_SIZE}, got {size}.")


def check_heads(width: int, heads: int) -> None:
    """Raise `ConfigError` unless the channels can be split between the heads."""
    check(heads > 0 and width > 0 and width % heads == 0, f"width {width} must be a multiple of heads {heads}.")


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
        ConfigError: the value is not such a result; its kind is not registered; or a value has the wrong type or is
            out of bounds.
    """
    try:
        return _from_json(value)
    except RecursionError as error:
        raise ConfigError("It is nested too deeply") from error


def _from_json(value: Any) -> Any:
    if not isinstance(value, Mapping) or not isinstance(value.get(_KIND), str):
        raise ConfigError(f"A config is an object with a {_KIND!r}")
    name = value[_KIND]
    kind = _KINDS.get(name)
    if kind is None:
        raise ConfigError(f"There is no {name[:80]} here. Import the module that registers it, or update segany")
    hints = typing.get_type_hints(kind)
    given = {key: item for key, item in value.items() if key != _KIND}
    known = {field.name: field for field in dataclasses.fields(kind)}
    needed = {
        key
        for key, field in known.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    if wrong := sorted((given.keys() - known.keys()) | (needed - given.keys())):
        raise ConfigError(f"{name} needs other fields than {', '.join(wrong)[:80]}")
    return kind(**{key: _checked(item, hints[key], f"{name}.{key}") for key, item in given.items()})


def _checked(value: Any, hint: Any, where: str) -> Any:
    """Convert a JSON value to the annotated type of its field; raises `ConfigError` if it is of another."""
    origin, choices = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        options = [choice for choice in choices if choice is not type(None)]
        return None if value is None and len(options) < len(choices) else _checked(value, options[0], where)
    if origin is tuple and isinstance(value, list):
        kinds = [choices[0]] * len(value) if choices[-1] is Ellipsis else choices
        if len(kinds) == len(value):
            return tuple(_checked(item, kind, where) for item, kind in zip(value, kinds, strict=True))
    if isinstance(hint, type) and isinstance(value, Mapping):
        value = _from_json(value)
    if not _is_of(value, hint):
        raise ConfigError(f"{where} cannot be {str(value)[:80]}")
    return value


def _is_of(value: Any, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint in (int, float):
        is_number = isinstance(value, (int, hint)) and not isinstance(value, bool)
        return is_number and abs(value) <= MAX_CONFIG_VALUE  # which infinity and NaN are not
    return isinstance(hint, type) and isinstance(value, hint)
