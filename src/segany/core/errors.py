"""The errors segany raises for things a user can put right.

Every message says what was wrong, where, and what to do. The command line prints them without a
traceback and exits with code 2; anything else that escapes is a bug.
"""

from __future__ import annotations


class SeganyError(Exception):
    """Base class of every error that segany raises on purpose."""


class ImageError(SeganyError, ValueError):
    """An image is missing, unreadable, too large, empty, or holds values that cannot be pixels."""


class VideoError(SeganyError, ValueError):
    """A video is missing, unreadable, no video, has no frames or frames of several sizes, or a camera is not there."""


class EndOfVideoError(VideoError):
    """A frame past the last one of a video was asked for."""


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
    """A folder is no exported model, is damaged, cannot be run, or an export does not do what its model does."""


class OutputError(SeganyError, OSError):
    """A result could not be written: no space, no permission, or a format that cannot hold it."""


class InstancesError(SeganyError, ValueError):
    """Masks or their columns are damaged, incomplete, or belong to images of different sizes."""


class CanceledError(SeganyError):
    """Work was canceled by whoever asked for it."""


class DataError(SeganyError, ValueError):
    """A dataset is missing, empty or of no known layout, or an item is damaged or its masks do not fit its image."""


class StoreError(SeganyError, RuntimeError):
    """A project or its database cannot be opened or used: none is there, or a newer, damaged or locked one."""


class NotFoundError(StoreError):
    """A project has no item, object, revision or job of that id, or no such file."""


class ConflictError(StoreError):
    """What a change was made from has been changed by somebody else meanwhile."""


class TrainingError(SeganyError, RuntimeError):
    """Training cannot go on: a loss that is no number, a run folder of another recipe, no items left."""


class MissingExtraError(SeganyError, ImportError):
    """An optional dependency is not installed; the message names the command that installs it."""


def check(condition: bool, message: str) -> None:
    """Raise `ConfigError` with `message` unless `condition` holds: for configurations when they are built."""
    if not condition:
        raise ConfigError(message)
