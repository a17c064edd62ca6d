"""Errors that a user can correct.

Every message says what is wrong, where, and what to do. The command line prints them without a traceback and exits
with code 2. Any other exception is a bug.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

MAX_INTEGER = 2**63 - 1
"""Largest integer of a config: PyTorch and NumPy take no larger ones."""


class SeganyError(Exception):
    """Base class of every error that segany raises on purpose."""


class ImageError(SeganyError, ValueError):
    """An image is missing, unreadable, too large, empty, or holds values that cannot be pixels."""


class VideoError(SeganyError, ValueError):
    """A video is missing, unreadable, not a video, without frames or of varying size, or a camera is not available."""


class EndOfVideoError(VideoError):
    """A requested frame lies after the last frame of a video."""


class PromptError(SeganyError, ValueError):
    """A prompt is empty, contradicts itself, or does not fit the image it is used with."""


class EmbeddingError(SeganyError, ValueError):
    """An embedding file is broken, or an embedding belongs to another model."""


class UnknownModelError(SeganyError, KeyError):
    """No model of that name is registered."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0]) if self.args else ""


class ConfigError(SeganyError, ValueError):
    """A configuration value is out of range or does not fit the others."""


class CheckpointError(SeganyError, ValueError):
    """A checkpoint file is truncated, unsafe, or does not hold the weights of the model asked for."""


class WeightsError(SeganyError, OSError):
    """Weights could not be fetched from any of their sources, or arrived damaged."""


class ExportError(SeganyError, ValueError):
    """A folder is not an exported model, is damaged or cannot be run, or an export does not match its model."""


class OutputError(SeganyError, OSError):
    """A result could not be written: no space, no permission, or the format does not support it."""


class InstancesError(SeganyError, ValueError):
    """Masks or their columns are damaged, incomplete, or belong to images of different sizes."""


class OutOfMemoryError(SeganyError, MemoryError):
    """An image or a request needs more memory than is available."""


class CanceledError(SeganyError):
    """The caller canceled the work."""


class DataError(SeganyError, ValueError):
    """A dataset is missing, empty or of unknown layout, or an item is damaged or its masks do not fit its image."""


class StoreError(SeganyError, RuntimeError):
    """A project or its database cannot be opened or used: none is there, or a newer, damaged or locked one."""


class NotFoundError(StoreError):
    """A project has no item, object, revision or job of that id, or no such file."""


class ConflictError(StoreError):
    """A change was based on a version that somebody else has changed meanwhile."""


class TrainingError(SeganyError, RuntimeError):
    """Training cannot continue: a loss is not finite, the folder holds another run, or no items are left."""


class MissingExtraError(SeganyError, ImportError):
    """An optional dependency is not installed; the message names the command that installs it."""


def check(condition: bool, message: str) -> None:
    """Raise `ConfigError` with `message` unless `condition` holds; used by configs in `__post_init__`."""
    if not condition:
        raise ConfigError(message)


def check_numbers(config: Any) -> None:
    """Raise `ConfigError` if a field of a dataclass is a float that is not finite, or an integer beyond 64 bits."""
    for field in fields(config):
        value = getattr(config, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float):
                check(math.isfinite(number), f"{field.name} must be finite, got {value}.")
            elif isinstance(number, int):
                check(abs(number) <= MAX_INTEGER, f"{field.name} must be at most {MAX_INTEGER} (64 bits), got {value}.")
