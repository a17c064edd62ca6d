"""Inference sessions of ONNX Runtime and OpenVINO for one exported file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from segany.core.errors import ConfigError, ExportError
from segany.core.extras import import_extra

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]
Session: TypeAlias = Callable[[Arrays], dict[str, npt.NDArray[Any]]]
"""A function from input arrays to output arrays by name. It is thread-safe."""

_ONNX_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def open_onnx(path: Path, device: str | None) -> Session:
    """Open a file in ONNX Runtime.

    Args:
        path: the file.
        device: "cpu" or "cuda"; by default the CPU.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        ConfigError: this ONNX Runtime has no such device.
        ExportError: it cannot run the file.
    """
    runtime = import_extra("onnxruntime", "This needs ONNX Runtime", "onnx")
    provider = _ONNX_PROVIDERS.get(device or "cpu")
    if provider not in runtime.get_available_providers():
        raise ConfigError(f"ONNX Runtime cannot use the device {device!r} here. Leave it out, or give 'cpu'.")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # ONNX Runtime has no common exception type
        raise _cannot_run(f"ONNX Runtime {runtime.__version__}", path, error) from error
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))

    return run


def open_openvino(path: Path, device: str | None, precision: str) -> Session:
    """Open a file in OpenVINO.

    Args:
        path: the file.
        device: "cpu" or "gpu"; by default the CPU.
        precision: dtype of the computation, "f32" or "bf16", which OpenVINO would otherwise choose by speed.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        ConfigError: OpenVINO has no such device.
        ExportError: OpenVINO cannot run the file.
    """
    openvino = import_extra("openvino", "This needs OpenVINO", "openvino")
    core = openvino.Core()
    name = (device or "cpu").upper()
    if name not in {found.split(".")[0] for found in core.available_devices}:
        raise ConfigError(f"OpenVINO cannot use the device {device!r} here. Leave it out, or give 'cpu'.")
    settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    try:
        compiled = core.compile_model(core.read_model(str(path)), name, settings)
    except Exception as error:  # OpenVINO has no common exception type
        raise _cannot_run(f"OpenVINO {openvino.__version__}", path, error) from error
    names = [port.get_any_name() for port in compiled.outputs]
    local = threading.local()

    def run(inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        if not hasattr(local, "request"):
            local.request = compiled.create_infer_request()
        results = local.request.infer(dict(inputs), share_inputs=True, share_outputs=False)
        return {name: np.asarray(results[index]) for index, name in enumerate(names)}

    return run


def _cannot_run(runtime: str, path: Path, error: Exception) -> ExportError:
    reason = str(error).strip().splitlines()
    return ExportError(
        f"{runtime} cannot run {path}: {reason[0] if reason else type(error).__name__} "
        "Install a newer version of it, or export the model again with a lower --opset."
    )
