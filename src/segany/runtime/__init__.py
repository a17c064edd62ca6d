"""Models as predictors use them, with arrays as inputs and outputs: in ONNX Runtime, OpenVINO or PyTorch."""

from segany.runtime.model import ExportedModel, OnnxModel, OpenVinoModel, RuntimeName, is_export, open_export

__all__ = ["ExportedModel", "OnnxModel", "OpenVinoModel", "RuntimeName", "is_export", "open_export"]
