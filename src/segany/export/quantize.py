"""Quantization of exported files to int8: of weights only, or of matrix products with calibrated activations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segany.core.arrays import FloatArray
from segany.export.precision import clear_types, drop_unused, is_sensitive, put_first

STORED_LEVELS = 127
"""Quantization levels on each side of zero for weights that are dequantized to float32."""

MULTIPLIED_LEVELS = 63
"""Quantization levels on each side of zero for weights that are multiplied in int8. CPUs without VNNI accumulate two
products in 16 bits, which overflows for larger weights, so that masks would depend on the CPU."""

MAX_BIAS = 2**30
"""Largest quantized bias, which is an int32."""

MIN_STORED = 2**18
"""Fewest weights of a matrix that `quantize_weights` quantizes. Smaller matrices, such as those of attention in the
decoder, have a small share of the file size and cause most of the error."""

MAX_NOISE = 0.04
"""Largest quantization noise of activations, as root mean square relative to that of the activations. Outliers that
widen the range, as in the last layers of TinyViT, raise it; such products stay in float32."""


@dataclass(frozen=True, eq=False)
class _Product:
    """A node that multiplies activations by a weight matrix.

    Attributes:
        node: the node of the graph.
        matrix: the weights, float32 [in, out], or [out, in] if `axis` is 0.
        axis: the output axis of the matrix.
        bias: float32 [out]; None if there is none.
    """

    node: Any
    matrix: Any
    axis: int
    bias: Any


@dataclass
class _Range:
    """Calibration statistics of activations: minimum, maximum, sum of squares and count."""

    low: float = 0.0
    high: float = 0.0
    squares: float = 0.0
    count: int = 0

    @property
    def step(self) -> float:
        """Quantization step for 256 levels."""
        return max(self.high - self.low, 1e-8) / 255

    @property
    def zero(self) -> int:
        """Zero point."""
        return round(-self.low / self.step)

    @property
    def noise(self) -> float:
        """Root mean square of the quantization noise, relative to that of the activations."""
        return self.step / math.sqrt(12 * max(self.squares / self.count, 1e-16))


def quantize_weights(path: Path) -> None:
    """Quantize the large weight matrices of a file to int8 in place, with a scale per output channel."""
    import onnx

    model = onnx.load(str(path))
    graph = model.graph
    restored: dict[str, Any] = {}
    for product in _products(graph):
        name = f"{product.node.input[1]}.restored{product.axis}"
        if math.prod(product.matrix.dims) < MIN_STORED:
            continue
        if name not in restored:
            restored[name] = _restore(graph, name, *_round(product, STORED_LEVELS), product.axis)
        product.node.input[1] = name
    put_first(graph, list(restored.values()))
    _save(model, path)


def quantize_matmuls(path: Path, name: str, examples: Iterable[FloatArray]) -> None:
    """Quantize matrix products of activations and weights in a file, in place.

    Convolutions stay in float32: the ranges of their channels in TinyViT differ too much for one scale per tensor.
    Products of two activations and the outputs of products stay in float32 too.

    Args:
        path: the file.
        name: name of its input.
        examples: calibration inputs, which determine the ranges of activations.
    """
    import onnx

    ranges = _measure_ranges(path, name, examples)
    model = onnx.load(str(path))
    graph = model.graph
    of_weights: list[Any] = []
    rounded: dict[str, list[Any]] = {}
    for product in _products(graph):
        taken = product.node.input[0]
        if ranges[taken].noise <= MAX_NOISE:
            of_weights += _multiply_whole(graph, product, ranges[taken].step)
            rounded[taken] = _round_activations(graph, taken, ranges[taken])
            product.node.input[0] = f"{taken}.rounded"
    nodes = [*of_weights, *rounded.pop(name, [])]
    for node in graph.node:
        nodes.append(node)
        for output in node.output:
            nodes += rounded.pop(output, [])
    del graph.node[:]
    graph.node.extend(nodes)
    _save(model, path)


def _products(graph: Any) -> Iterator[_Product]:
    """Yield the products with weight matrices in a graph, except those of `is_sensitive` weights."""
    from onnx import TensorProto

    floats = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    for node in graph.node:
        matrix = floats.get(node.input[1]) if node.op_type in ("MatMul", "Gemm") else None
        bias = floats.get(node.input[2]) if len(node.input) > 2 else None
        if matrix is None or len(matrix.dims) != 2 or is_sensitive(matrix) or (bias is None and len(node.input) > 2):
            continue
        is_turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        yield _Product(node, matrix, 0 if is_turned else 1, bias)


def _measure_ranges(path: Path, name: str, examples: Iterable[FloatArray]) -> dict[str, _Range]:
    """Measure the ranges of the inputs of products, by nodes in the graph: all activations would fill the memory."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    model = onnx.load(str(path), load_external_data=False)
    graph = model.graph
    ranges = {product.node.input[0]: _Range() for product in _products(graph)}
    for taken in ranges:
        for measure in ("ReduceMin", "ReduceMax", "ReduceSumSquare"):
            graph.node.append(helper.make_node(measure, [taken], [f"{taken}.{measure}"], keepdims=0))
            graph.output.append(helper.make_tensor_value_info(f"{taken}.{measure}", TensorProto.FLOAT, []))
        graph.node.append(helper.make_node("Size", [taken], [f"{taken}.Size"]))
        graph.output.append(helper.make_tensor_value_info(f"{taken}.Size", TensorProto.INT64, []))
    outputs = [output.name for output in graph.output if output.name.rpartition(".")[0] in ranges]
    measuring = path.with_name(f"{path.stem}.ranges.onnx")  # in the folder of the external data file, if there is one
    onnx.save(model, str(measuring))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(measuring), options, providers=["CPUExecutionProvider"])
    measuring.unlink()
    for example in examples:
        found = dict(zip(outputs, session.run(outputs, {name: example}), strict=True))
        for taken, known in ranges.items():
            known.low = min(known.low, float(found[f"{taken}.ReduceMin"]))
            known.high = max(known.high, float(found[f"{taken}.ReduceMax"]))
            known.squares += float(found[f"{taken}.ReduceSumSquare"])
            known.count += int(found[f"{taken}.Size"])
    return ranges


def _multiply_whole(graph: Any, product: _Product, step: float) -> list[Any]:
    """Quantize weights and bias of a product. Returns the dequantization nodes, by which runtimes recognize int8."""
    from onnx import numpy_helper

    node = product.node
    bias = None if product.bias is None else numpy_helper.to_array(product.bias)
    # The bias has the scale of the weights and the activations. For tiny weights the scale is raised, so that it fits.
    smallest = 0.0 if bias is None else np.abs(bias) * (MULTIPLIED_LEVELS / step / MAX_BIAS)
    whole, scale = _round(product, MULTIPLIED_LEVELS, smallest)
    node.input[1] = f"{node.name}.weights"
    nodes = [_restore(graph, node.input[1], whole, scale, product.axis)]
    if bias is not None:
        scale = (step * scale).astype(np.float32)
        whole = np.rint(bias / scale.astype(np.float64)).astype(np.int32)
        node.input[2] = f"{node.name}.bias"
        nodes.append(_restore(graph, node.input[2], whole, scale, 0))
    return nodes


def _round_activations(graph: Any, name: str, known: _Range) -> list[Any]:
    """Make the nodes that quantize and dequantize activations to 256 levels."""
    from onnx import helper, numpy_helper

    parts: dict[str, Any] = {f"{name}.scale": np.array(known.step, np.float32)}
    parts[f"{name}.zero"] = np.array(known.zero, np.uint8)
    graph.initializer.extend(numpy_helper.from_array(value, part) for part, value in parts.items())
    return [
        helper.make_node("QuantizeLinear", [name, *parts], [f"{name}.whole"]),
        helper.make_node("DequantizeLinear", [f"{name}.whole", *parts], [f"{name}.rounded"]),
    ]


def _round(product: _Product, levels: int, smallest: FloatArray | float = 0.0) -> tuple[npt.NDArray[Any], FloatArray]:
    """Quantize weights to int8 with `levels` on each side of zero. Returns them and a scale per output channel.

    The scale covers weights up to `smallest`, even if the weights are smaller.
    """
    from onnx import numpy_helper

    weights = numpy_helper.to_array(product.matrix)
    largest = np.abs(weights).max(axis=1 - product.axis)
    scale = np.maximum(np.maximum(largest, smallest), 1e-12).astype(np.float32) / np.float32(levels)
    return np.rint(weights / np.expand_dims(scale, 1 - product.axis)).astype(np.int8), scale


def _restore(graph: Any, name: str, whole: npt.NDArray[Any], scale: FloatArray, axis: int) -> Any:
    """Make a node that dequantizes weights to float32 under the name `name`."""
    from onnx import helper, numpy_helper

    parts = {f"{name}.whole": whole, f"{name}.scale": scale, f"{name}.zero": np.zeros(len(scale), whole.dtype)}
    graph.initializer.extend(numpy_helper.from_array(array, part) for part, array in parts.items())
    return helper.make_node("DequantizeLinear", list(parts), [name], axis=axis)


def _save(model: Any, path: Path) -> None:
    import onnx

    drop_unused(model.graph)
    clear_types(model.graph)
    onnx.save(model, str(path))
