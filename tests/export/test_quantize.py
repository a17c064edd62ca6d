from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from segany.core.errors import ExportError
from segany.export.precision import fold_constants, store_in_half
from segany.export.quantize import MIN_STORED, quantize_matmuls, quantize_weights
from segany.runtime.session import open_onnx, open_openvino

WIDTH, INNER = 64, MIN_STORED // 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Activations [1, 8, 64] that are convolved, then multiplied by two large matrices and a small one."""
    random = np.random.default_rng(0)
    weights = {
        "kernel": random.normal(0, 0.1, (8, 8, 1)),
        "wide": random.normal(0, 0.1, (WIDTH, INNER)),
        "narrow": random.normal(0, 0.02, (INNER, WIDTH)),
        "small": random.normal(0, 0.1, (WIDTH, WIDTH)),
        "bias": random.normal(0, 1, WIDTH),
        "row": np.array([8, WIDTH]),
    }
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["convolved"], "conv"),
        helper.make_node("MatMul", ["convolved", "wide"], ["inner"], "widen"),
        helper.make_node("Relu", ["inner"], ["active"], "relu"),
        helper.make_node("MatMul", ["active", "narrow"], ["outer"], "narrow_down"),
        helper.make_node("Reshape", ["outer", "row"], ["rows"], "reshape"),
        helper.make_node("Gemm", ["rows", "small", "bias"], ["y"], "gemm", transB=1),
    ]
    shapes = {"x": [1, 8, WIDTH], "y": [8, WIDTH]}
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    tensors = [
        numpy_helper.from_array(value.astype(np.int64 if name == "row" else np.float32), name)
        for name, value in weights.items()
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "test", [x], [y], tensors), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    onnx.save(model, str(tmp_path / "file.onnx"))
    return tmp_path / "file.onnx"


def run(path: Path, x: np.ndarray) -> np.ndarray:
    return open_onnx(path, None)({"x": x})["y"]


def examples(outlier: float = 0.0) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    values = [random.normal(0, 1, (1, 8, WIDTH)).astype(np.float32) for _ in range(4)]
    values[0][0, 0, 0] += outlier
    return values


def nodes_of(path: Path) -> dict[str, Any]:
    return {node.name: node for node in onnx.load(str(path)).graph.node}


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.sqrt(np.square(ours - theirs).mean() / theirs.var()))


def test_products_are_rounded_and_nothing_else(path: Path) -> None:
    x = np.random.default_rng(2).normal(0, 1, (1, 8, WIDTH)).astype(np.float32)
    before, size = run(path, x), path.stat().st_size
    quantize_matmuls(path, "x", examples())
    assert relative(run(path, x), before) == pytest.approx(0.015, abs=0.013)
    assert relative(open_openvino(path, None, "f32")({"x": x})["y"], before) < 0.03
    assert path.stat().st_size < 0.3 * size
    nodes = nodes_of(path)
    assert list(nodes["conv"].input) == ["x", "kernel"]
    for name, taken in (("widen", "convolved"), ("narrow_down", "active"), ("gemm", "rows")):
        assert nodes[name].input[0] == f"{taken}.rounded"
    assert [file.name for file in path.parent.iterdir()] == ["file.onnx"]


def test_a_bias_without_weights_is_kept(path: Path) -> None:
    model = onnx.load(str(path))
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    small = numpy_helper.to_array(tensors["small"]).copy()
    small[3] = 0  # of an output that does nothing, as networks that were pruned have them
    small[4] = 1e-20
    tensors["small"].CopyFrom(numpy_helper.from_array(small, "small"))
    onnx.save(model, str(path))
    bias = numpy_helper.to_array(tensors["bias"])
    quantize_matmuls(path, "x", examples())
    assert nodes_of(path)["gemm"].input[2] != "bias"
    for run_it in (open_onnx(path, None), open_openvino(path, None, "f32")):
        np.testing.assert_allclose(run_it({"x": examples()[0]})["y"][:, 3:5], np.tile(bias[3:5], (8, 1)), rtol=1e-5)


def test_a_product_whose_range_is_of_outliers_stays_in_float32(path: Path) -> None:
    quantize_matmuls(path, "x", examples(outlier=1000.0))
    nodes = nodes_of(path)
    assert nodes["widen"].input[1] == "wide"
    assert not any(node.op_type == "QuantizeLinear" and node.input[0] == "convolved" for node in nodes.values())


def test_large_matrices_are_stored_in_whole_numbers(path: Path) -> None:
    x = examples()[0]
    before, size = run(path, x), path.stat().st_size
    quantize_weights(path)
    nodes = nodes_of(path)
    assert nodes["widen"].input[1] != "wide"
    assert nodes["gemm"].input[1] == "small"
    assert 0 < relative(run(path, x), before) < 0.01
    assert path.stat().st_size < 0.3 * size
    quantized = path.stat().st_size
    store_in_half(path)
    assert path.stat().st_size < quantized - WIDTH * WIDTH
    assert nodes_of(path)["gemm"].input[1] == "small.restored"
    assert 0 < relative(run(path, x), before) < 0.01


def test_an_opset_that_the_runtime_lacks_is_said(path: Path) -> None:
    model = onnx.load(str(path))
    model.graph.node[2].op_type = "Gelu"  # of opset 20
    model.opset_import[0].version = 18
    onnx.save(model, str(path))
    with pytest.raises(ExportError, match=r"cannot run the file as it was exported: .*Choose another --opset"):
        fold_constants(path)


def test_what_repeats_is_stored_once(path: Path) -> None:
    model = onnx.load(str(path))
    padding = np.arange(WIDTH, dtype=np.float32)
    many = np.broadcast_to(padding, (512, WIDTH)).copy()
    model.graph.initializer.append(numpy_helper.from_array(many, "padding"))
    model.graph.node.append(helper.make_node("Concat", ["y", "padding"], ["padded"], "pad", axis=0))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("padded", TensorProto.FLOAT, [520, WIDTH]))
    onnx.save(model, str(path))
    x, size = examples()[0], path.stat().st_size
    before = open_onnx(path, None)({"x": x})["padded"]
    fold_constants(path)
    assert path.stat().st_size < size - many.nbytes // 2
    np.testing.assert_array_equal(open_onnx(path, None)({"x": x})["padded"], before)
