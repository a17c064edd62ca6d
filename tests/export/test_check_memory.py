from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from tests.export.exported import exported, small_model
from tests.models_for_tests import loaded, small_sam2

from segany.core.errors import ExportError
from segany.core.files import sha256_of
from segany.export import check_export
from segany.export.check import scenes
from segany.export.check_memory import MAX_ERROR, compare_memory, judge_memory
from segany.export.graphs import MemoryAttentionGraph, MemoryEncoderGraph
from segany.models.sam2.model import Sam2
from segany.runtime import OnnxModel, OpenVinoModel
from segany.runtime.manifest import Manifest, MemoryRecord
from segany.runtime.model import ExportedModel

Run = Callable[[Mapping[str, Any]], dict[str, Any]]


class InTorch:
    """An export whose memory runs in PyTorch, as the modules that are exported; `keep` selects rows of its outputs."""

    def __init__(self, model: Sam2, keep: slice = slice(None)) -> None:
        self.keep = keep
        self.graphs = {
            "memory_encoder": (MemoryEncoderGraph(model), "memory"),
            "memory_attention": (MemoryAttentionGraph(model), "conditioned"),
        }

    def open(self, name: str) -> Run:
        return partial(self._run, *self.graphs[name])

    def _run(self, graph: torch.nn.Module, output: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        with torch.inference_mode():
            tensors = {key: torch.from_numpy(value) for key, value in inputs.items()}
            return {output: graph(**tensors).numpy()[self.keep]}


def errors(model: Sam2, exported_model: Sam2, keep: slice = slice(None)) -> dict[str, float]:
    records = compare_memory(loaded(model), cast("ExportedModel", InTorch(exported_model, keep)), scenes()[0])
    return {record.file: record.error for record in records}


@pytest.mark.parametrize("version", ["sam2", "sam2.1"])
def test_the_memory_of_the_same_weights_agrees(version: str) -> None:
    model = small_sam2(version)
    assert max(errors(model, model).values()) < 1e-4


@pytest.mark.parametrize("part", ["memory_encoder", "memory_attention"])
def test_other_weights_in_a_file_of_the_memory_are_found(part: str) -> None:
    model = small_sam2()
    other = copy.deepcopy(model)
    with torch.no_grad():
        max(getattr(other, part).parameters(), key=torch.Tensor.numel).mul_(1.1)
    found = errors(model, other)
    wrong = found.pop(part)
    assert wrong > MAX_ERROR["fp32"]
    assert max(found.values()) < 1e-4


def test_memories_of_too_few_objects_are_found() -> None:
    assert errors(small_sam2(), small_sam2(), slice(0))["memory_encoder"] == float("inf")


@pytest.mark.parametrize("wrong", [0.5, float("inf")])
def test_memory_that_is_off_is_refused(wrong: float) -> None:
    records = [MemoryRecord(file="memory_encoder", error=0.0), MemoryRecord(file="memory_attention", error=wrong)]
    for precision in MAX_ERROR:
        manifest = Manifest.model_construct(precision=precision, memory=records)
        with pytest.raises(ExportError, match="memory_attention computes something else"):
            judge_memory(manifest)
        judge_memory(Manifest.model_construct(precision=precision, memory=records[:1]))
        judge_memory(Manifest.model_construct(precision=precision, memory=None))


@pytest.mark.slow
@pytest.mark.parametrize("runtime", [OnnxModel, OpenVinoModel])
def test_the_files_of_the_memory_agree_in_every_runtime(runtime: type[OnnxModel] | type[OpenVinoModel]) -> None:
    records = check_export(small_model("sam2"), exported("sam2"), exported=runtime(exported("sam2"))).memory
    assert records is not None
    assert [record.file for record in records] == ["memory_encoder", "memory_attention"]
    assert max(record.error for record in records) < MAX_ERROR["fp32"] / 10


@pytest.mark.slow
def test_a_changed_file_of_the_memory_is_refused(tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    model, folder = small_model("sam2"), tmp_path / "export"
    shutil.copytree(exported("sam2"), folder)
    path = folder / "memory_attention.onnx"
    graph = onnx.load(str(path))
    largest = max(graph.graph.initializer, key=lambda tensor: np.prod(tensor.dims) * (tensor.data_type == 1))
    largest.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(largest) * np.float32(1.1), largest.name))
    onnx.save(graph, str(path))
    with pytest.raises(ExportError, match="is not the file that was exported"):
        check_export(model, folder)
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_text())
    files = manifest.files | {
        "memory_attention": manifest.files["memory_attention"].model_copy(update={"sha256": sha256_of(path)})
    }
    (folder / "manifest.json").write_text(manifest.model_copy(update={"files": files}).model_dump_json())
    with pytest.raises(ExportError, match="memory_attention computes something else"):
        check_export(model, folder)
