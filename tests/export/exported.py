"""Exports of small models, made once a session: exporting one takes seconds."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from tests.models_for_tests import SMALL_TINY_VIT, small_sam, small_sam2

from segany.export import to_onnx
from segany.models.promptable import PromptableModel

FAMILIES = ("sam", "mobile_sam", "sam2")


@cache
def small_model(family: str) -> PromptableModel:
    if family == "sam2":
        return small_sam2()
    return small_sam(SMALL_TINY_VIT) if family == "mobile_sam" else small_sam()


@cache
def exported(family: str) -> Path:
    """A folder that must be left as it is."""
    folder = Path(mkdtemp(prefix="segany-export-")) / family
    to_onnx(small_model(family), folder)
    return folder
