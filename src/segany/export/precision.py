"""Constant folding of exported files, and their conversion to float16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from segany.core.errors import ExportError

UPSCALING = "upscaler.first_step"
"""Name of the interpolation weights for mask upscaling in the decoder."""

_WEIGHTED = {"MatMul": (1,), "Gemm": (1, 2), "Conv": (1, 2), "ConvTranspose": (1, 2)}
"""Operators with weights, and the indices of these inputs."""


_WORTH_EXPANDING = 2**14
"""Fewest bytes that must be saved for a constant to be replaced by an Expand node."""


def fold_constants(path: Path) -> None:
    """Fold constants in a file, in place: batch norms, position encodings, transposes of weights.

    ONNX Runtime would do so whenever it opens the file, but other runtimes may not, and quantization needs weights as
    constants. Only optimizations that produce standard operators are used.

    Raises:
        ExportError: ONNX Runtime cannot run the file, because the exporter or the runtime does not support the opset.
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
    """Replace constants that repeat along axes, such as padding, by Expand nodes: they would dominate the file size."""
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
    """Tell whether an array is constant along an axis."""
    first = values.take([0], axis)
    return bool((values.take([1], axis) == first).all() and (values == first).all())


def halve(path: Path) -> None:
    """Convert operators with weights in a file to float16, in place.

    All else stays in float32: norms, softmax, scores, position encodings, and matrix products of two activations,
    including the masks. Casts are inserted around the converted operators.
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
    """Store weights in float16, in place, and compute in float32.

    Runtimes convert the weights to float32 once, when they open the file.
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
    """Insert nodes that depend on weights only before all others."""
    following = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *following])


def is_sensitive(weights: Any) -> bool:
    """Tell whether weights need float32: the matrix of the Fourier features, and the weights of mask upscaling."""
    return (len(weights.dims) == 2 and weights.dims[0] == 2) or UPSCALING in weights.name


def drop_unused(graph: Any) -> None:
    """Remove weights that no node uses."""
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def clear_types(graph: Any) -> None:
    """Remove the stored types of intermediate values, so that runtimes infer them again."""
    del graph.value_info[:]
