"""The prompt encoder, mask decoder and postprocessing as one module, for export to ONNX."""

from segany.compat.segment_anything.utils.onnx import SamOnnxModel

__all__ = ["SamOnnxModel"]
