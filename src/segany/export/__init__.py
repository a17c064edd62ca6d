"""Export of models to ONNX files: `to_onnx(segany.load("mobile_sam"), "onnx/mobile_sam")`."""

from segany.core.extras import require_torch

require_torch()

from segany.export.check import check_export  # noqa: E402
from segany.export.onnx import to_onnx  # noqa: E402

__all__ = ["check_export", "to_onnx"]
