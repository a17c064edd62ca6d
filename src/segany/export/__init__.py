"""Models as ONNX files that run without PyTorch: `to_onnx(segany.load("mobile_sam"), "onnx/mobile_sam")`."""

from segany.export.check import check_export
from segany.export.onnx import to_onnx

__all__ = ["check_export", "to_onnx"]
