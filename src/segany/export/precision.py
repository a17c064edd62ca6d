"""Exported files in less precision: half precision where it is harmless, whole numbers where they were asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segany.export.quiet import quiet
from segany.types import FloatArray

UPSCALING = "upscaler.first_step"
"""Name of the weights that the decoder upscales masks with."""

_WEIGHTED = {"MatMul": (1,), "Gemm": (1, 2), "Conv": (1, 2), "ConvTranspose": (1, 2)}
"""Nodes that multiply by weights, and which of their inputs those are."""


def fold_constants(path: Path) -> None:
    """Compute once, in place, what depends on weights alone: folded batch norms, tables of positions, transposes.

    ONNX Runtime would do it at every start; others may not, and weights that are computed cannot be quantised.
    Only optimisations that leave standard operators are used.
    """
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    model = onnx.load(str(path))
    used = {node.domain for node in model.graph.node}
    imports = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    _clear_types(model.graph)
    onnx.save(model, str(path))


def halve(path: Path) -> None:
    """Put the products with weights of a file in half precision, in place.

    Everything else stays in float32: norms, softmax, scores, the encoding of positions, and the products of
    two computed factors, the masks among them. Between them numbers are rounded to half precision.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(str(path))
    graph = model.graph
    floats = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    nodes: list[Any] = []
    halved: dict[str, Any] = {}
    for node in graph.node:
        places = _WEIGHTED.get(node.op_type, ())
        weights = [node.input[place] for place in places if place < len(node.input)]
        if not weights or not all(name in floats for name in weights) or _is_sensitive(floats[weights[0]]):
            nodes.append(node)
            continue
        for place, name in zip(places, weights, strict=False):
            if name not in halved:
                values = numpy_helper.to_array(floats[name]).astype(np.float16)
                halved[name] = numpy_helper.from_array(values, f"{name}.half")
            node.input[place] = f"{name}.half"
        before, after = f"{node.output[0]}.in_half", f"{node.output[0]}.half"
        nodes.append(helper.make_node("Cast", [node.input[0]], [before], to=TensorProto.FLOAT16))
        out, node.input[0], node.output[0] = node.output[0], before, after
        nodes += [node, helper.make_node("Cast", [after], [out], to=TensorProto.FLOAT)]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(halved.values())
    _drop_unused(graph)
    _clear_types(graph)
    onnx.save(model, str(path))


def _is_sensitive(weights: Any) -> bool:
    """Whether these weights are of geometry: the matrix that encodes pairs of coordinates, or of upscaling masks."""
    return (len(weights.dims) == 2 and weights.dims[0] == 2) or UPSCALING in weights.name


def _nodes_to_leave(path: Path) -> list[str]:
    """Names of the nodes that are not to be quantised: with weights of geometry, or with several matrices of them.

    ONNX Runtime takes a scale for each column of one matrix only.
    """
    import onnx

    graph = onnx.load(str(path)).graph
    several = {tensor.name for tensor in graph.initializer if len(tensor.dims) > 2}
    sensitive = {tensor.name for tensor in graph.initializer if _is_sensitive(tensor)}
    products = (node for node in graph.node if node.op_type in ("MatMul", "Gemm"))
    return [node.name for node in products if (several | sensitive) & set(node.input)]


def _drop_unused(graph: Any) -> None:
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _clear_types(graph: Any) -> None:
    """Types of what lies between nodes: they are inferred anew."""
    del graph.value_info[:]


def quantise_weights(path: Path) -> None:
    """Put the matrices of a file in whole numbers, a scale for each column, in place; arithmetic stays in float32."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(str(path))
    graph = model.graph
    matrices = {
        tensor.name: tensor
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2 and not _is_sensitive(tensor)
    }
    nodes: dict[str, Any] = {}
    for node in graph.node:
        if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in matrices:
            continue
        is_turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        name, axis = node.input[1], 0 if is_turned else 1
        restored = f"{name}.restored{axis}"
        if restored not in nodes:
            values = numpy_helper.to_array(matrices[name])
            scale = np.maximum(np.abs(values).max(axis=1 - axis), 1e-12).astype(np.float32) / 127
            whole = np.rint(values / np.expand_dims(scale, 1 - axis)).astype(np.int8)
            parts: dict[str, Any] = {f"{restored}.whole": whole, f"{restored}.scale": scale}
            graph.initializer.extend(numpy_helper.from_array(array, part) for part, array in parts.items())
            nodes[restored] = helper.make_node("DequantizeLinear", list(parts), [restored], axis=axis)
        node.input[1] = restored
    following = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes.values(), *following])
    _drop_unused(graph)
    _clear_types(graph)
    onnx.save(model, str(path))


def quantise_activations(path: Path, name: str, examples: Sequence[FloatArray]) -> None:
    """Put weights and activations of a file in whole numbers, in place.

    Args:
        path: the file.
        name: of its input.
        examples: of that input; the ranges of activations are those that are met on them.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """The examples, one after the other."""

        def __init__(self) -> None:
            self.waiting: Iterator[FloatArray] = iter(examples)

        def get_next(self) -> dict[str, FloatArray] | None:
            value = next(self.waiting, None)
            return None if value is None else {name: value}

    with quiet():
        quantize_static(
            str(path),
            str(path),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            nodes_to_exclude=_nodes_to_leave(path),
        )
