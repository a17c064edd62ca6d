"""Exports of small models, made once a session: exporting one takes seconds."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
from tests.models_for_tests import SMALL_TINY_VIT, SMALL_VIT, loaded, small_sam, small_sam2

from segany.export import to_onnx
from segany.models.sam.config import DecoderConfig, VitConfig
from segany.runtime.torch_model import TorchModel

SMALLEST = replace(
    SMALL_VIT,
    encoder=VitConfig(width=32, depth=2, heads=2, global_blocks=(1,), input_size=256),
    decoder=DecoderConfig(depth=1),
)

FAMILIES = (
    "sam",
    pytest.param("mobile_sam", marks=pytest.mark.slow),
    pytest.param("sam2", marks=pytest.mark.slow),
)


@cache
def small_model(family: str) -> TorchModel:
    if family == "sam2":
        return loaded(small_sam2())
    return loaded(small_sam(SMALL_TINY_VIT if family == "mobile_sam" else SMALLEST))


@cache
def exported(family: str) -> Path:
    """A folder that must be left as it is."""
    folder = Path(mkdtemp(prefix="segany-export-")) / family
    to_onnx(small_model(family), folder)
    return folder
