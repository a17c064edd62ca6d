"""Exported files as runtimes like them, and in half precision where that is harmless."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from segany.core.errors import ExportError

UPSCALING = "upscaler.first_step"
"""Name of the weights that the decoder upscales masks with."""

_WEIGHTED = {"MatMul": (1,), "Gemm": (1, 2), "Conv": (1, 2), "ConvTranspose": (1, 2)}
"""Nodes that multiply by weights, and which of their inputs those are."""


_WORTH_EXPANDING = 2**14
"""Bytes that a tensor must be smaller when stored once, for a node to be worth it."""


def fold_constants(path: Path) -> None:
    """Compute once, in place, what depends on weights alone: folded batch norms, tables of positions, transposes.

    ONNX Runtime would do it at every start; others may not, and weights that are computed cannot be quantized.
    Only optimizations that leave standard operators are used.

    Raises:
        ExportError: ONNX Runtime cannot run the file: it was exported with an opset that the exporter or the
            runtime lacks.
    """
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    try:
        onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # it has no common type of its own
        reason = str(error).strip().splitlines()[:1]
        raise ExportError(
            f"ONNX Runtime {onnxruntime.__version__} cannot run the {path.stem} as it was exported: {' '.join(reason)} "
            "Choose another --opset; the default is 20."
        ) from error
    model = onnx.load(str(path))
    used = {node.domain for node in model.graph.node}
    imports = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    _store_repeats_once(model.graph)
    clear_types(model.graph)
    onnx.save(model, str(path))


def _store_repeats_once(graph: Any) -> None:
    """Expand at the start what repeats along its axes, such as padding: folded, it is most of an encoder of windows."""
    from onnx import helper, numpy_helper

    nodes = []
    for tensor in list(graph.initializer):
        values = numpy_helper.to_array(tensor)
        axes = [axis for axis, size in enumerate(values.shape) if size > 1 and _repeats(values, axis)]
        once = values[tuple(slice(1) if axis in axes else slice(None) for axis in range(values.ndim))]
        if values.nbytes - once.nbytes < _WORTH_EXPANDING:
            continue
        parts = {f"{tensor.name}.once": once, f"{tensor.name}.shape": np.array(values.shape, dtype=np.int64)}
        graph.initializer.extend(numpy_helper.from_array(array, part) for part, array in parts.items())
        nodes.append(helper.make_node("Expand", list(parts), [tensor.name]))
        graph.initializer.remove(tensor)
    put_first(graph, nodes)


def _repeats(values: np.ndarray, axis: int) -> bool:
    """Whether an array is the same everywhere along an axis."""
    first = values.take([0], axis)
    return bool((values.take([1], axis) == first).all() and (values == first).all())


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
        if not weights or not all(name in floats for name in weights) or is_sensitive(floats[weights[0]]):
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
    drop_unused(graph)
    clear_types(graph)
    onnx.save(model, str(path))


def store_in_half(path: Path) -> None:
    """Keep the weights of products in half precision, in place; arithmetic stays in float32.

    Runtimes turn them into float32 once, when they open the file.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(str(path))
    graph = model.graph
    floats = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    restored: dict[str, Any] = {}
    for node in graph.node:
        for place in _WEIGHTED.get(node.op_type, ())[:1]:
            name = node.input[place]
            if name not in floats or is_sensitive(floats[name]):
                continue
            if name not in restored:
                values = numpy_helper.to_array(floats[name]).astype(np.float16)
                graph.initializer.append(numpy_helper.from_array(values, f"{name}.half"))
                restored[name] = helper.make_node("Cast", [f"{name}.half"], [f"{name}.restored"], to=TensorProto.FLOAT)
            node.input[place] = f"{name}.restored"
    put_first(graph, list(restored.values()))
    drop_unused(graph)
    clear_types(graph)
    onnx.save(model, str(path))


def put_first(graph: Any, nodes: list[Any]) -> None:
    """Put nodes before all others: what depends on weights alone."""
    following = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *following])


def is_sensitive(weights: Any) -> bool:
    """Whether these weights are of geometry: the matrix that encodes pairs of coordinates, or of upscaling masks."""
    return (len(weights.dims) == 2 and weights.dims[0] == 2) or UPSCALING in weights.name


def drop_unused(graph: Any) -> None:
    """Remove weights that no node takes."""
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def clear_types(graph: Any) -> None:
    """Types of what lies between nodes: they are inferred anew."""
    del graph.value_info[:]
