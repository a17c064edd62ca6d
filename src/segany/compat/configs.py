"""Configs for modules that are built by the constructors of the official code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from segany.core.errors import ConfigError, check
from segany.models.configs import EncoderConfig
from segany.models.sam.config import DecoderConfig, SamConfig

if TYPE_CHECKING:
    from segany.models.image_encoder import ImageEncoder


@dataclass(frozen=True)
class GivenEncoderConfig(EncoderConfig):
    """The sizes of an image encoder that the caller built."""

    title: ClassVar[str] = "given"

    input_size: int = 1024
    out_channels: int = 256

    def build(self) -> ImageEncoder:
        raise ConfigError("The image encoder is given by the caller, and cannot be built from its sizes.")


def given_config(
    input_size: int = 1024,
    out_channels: int = 256,
    *,
    decoder: DecoderConfig | None = None,
    mask_channels: int = 16,
) -> SamConfig:
    """Make the config of the parts of a model around an image encoder that the caller built."""
    encoder = GivenEncoderConfig(input_size, out_channels)
    return SamConfig(encoder, decoder=decoder or DecoderConfig(), mask_channels=mask_channels)


def only(name: str, value: object, allowed: object) -> None:
    """Raise `ConfigError` unless an argument has the only value that segany's modules support."""
    check(value is allowed or value == allowed, f"{name} must be {allowed!r} in segany, got {value!r}.")
