"""Exported models, run by ONNX Runtime or OpenVINO; PyTorch is not needed."""

from segany.runtime.model import ExportedModel, OnnxModel, OpenVinoModel, RuntimeName, is_export, open_export

__all__ = ["ExportedModel", "OnnxModel", "OpenVinoModel", "RuntimeName", "is_export", "open_export"]
