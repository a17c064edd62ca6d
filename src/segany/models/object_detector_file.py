"""Files of object detectors: safetensors with the config, the encoder and the calibration in the metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segany.core.errors import CheckpointError, ConfigError
from segany.core.files import check_is_file, path_errors
from segany.models.calibration import Calibration
from segany.models.configs import config_from_json, config_to_json
from segany.models.convert import read_checkpoint
from segany.models.model_file import printable_name, read_metadata, write_tensors
from segany.models.object_detector import ObjectDetector, ObjectDetectorConfig
from segany.nn.init_empty import init_empty_weights

DETECTOR_KEY = "segany.object_detector"
"""Metadata key of a safetensors file, with config, model name, encoder id and calibration of a detector as JSON."""


def save_object_detector(detector: ObjectDetector, path: Path, notes: Mapping[str, str] | None = None) -> Path:
    """Save a detector to a file that `read_object_detector` can read, atomically.

    Args:
        detector: the detector, on any device.
        path: path of a `.safetensors` file.
        notes: additional metadata.

    Raises:
        OutputError: the file could not be written; an existing file is unchanged.
    """
    calibration = detector.calibration
    facts = {
        "model": detector.model,
        "encoder_id": detector.encoder_id,
        "config": config_to_json(detector.config),
        "calibration": None if calibration is None else config_to_json(calibration),
    }
    return write_tensors(path, detector.state_dict(), {**(notes or {}), DETECTOR_KEY: json.dumps(facts)})


def read_object_detector(path: Path) -> ObjectDetector:
    """Read a detector that `save_object_detector` saved, on the CPU.

    Raises:
        CheckpointError: the file is missing or damaged, or holds no detector.
    """
    if not is_object_detector(path):
        raise CheckpointError(f"{path} holds no object detector. Give a file that segany train object_detector wrote.")
    try:
        detector = _described(json.loads(read_metadata(path)[DETECTOR_KEY]))
        detector.load_state_dict(read_checkpoint(path), assign=True)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:  # a ConfigError is a ValueError
        if isinstance(error, CheckpointError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path} holds an object detector that this version of segany cannot read ({reason}). Update segany, or "
            "train the detector again."
        ) from error
    return detector.float().eval()


def is_object_detector(path: Path) -> bool:
    """Tell whether a file holds an object detector, by its metadata.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    with path_errors(path, CheckpointError):
        check_is_file(path, CheckpointError)
    return path.suffix == ".safetensors" and DETECTOR_KEY in read_metadata(path)


def _described(facts: Any) -> ObjectDetector:
    """Build the detector that the metadata describe, with weights on the meta device."""
    if not isinstance(facts, dict):
        raise ConfigError("its description is no JSON object")
    config = config_from_json(facts["config"])
    calibration = None if facts["calibration"] is None else config_from_json(facts["calibration"])
    if not isinstance(config, ObjectDetectorConfig) or not isinstance(calibration, Calibration | None):
        raise ConfigError("its config is not one of an object detector")
    with init_empty_weights():
        names = {key: printable_name(facts[key]) for key in ("model", "encoder_id")}
        detector = ObjectDetector(config, **names)
    detector.calibration = calibration
    return detector
