"""Models by name in a runtime: exported into the cache on first use, and taken from there from then on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.export.exported import exported, small_model

import segany
from segany import export
from segany.core.errors import ExportError
from segany.core.progress import ProgressCallback, ProgressEvent, report
from segany.hub import torch_model
from segany.runtime.manifest import FORMAT_VERSION


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were exported to, in an empty cache; what is exported is a small model."""
    folders: list[Path] = []

    def to_onnx(model: object, folder: Path, *, progress: ProgressCallback | None) -> None:
        report(progress, "exporting", 0, 1, "files")
        assert model is small_model("sam")
        folders.append(folder)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(exported("sam"), folder)

    monkeypatch.setenv("SEGANY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch_model, "load_torch", lambda *_, **__: small_model("sam"))
    monkeypatch.setattr(export, "to_onnx", to_onnx)
    return folders


def test_a_name_is_exported_once(made: list[Path], tmp_path: Path) -> None:
    model = segany.load("mobile_sam", runtime="onnx")
    assert model.encoder_id == small_model("sam").encoder_id
    segany.load("mobile_sam", runtime="openvino")
    assert made == [tmp_path / "cache" / "exports" / f"mobile_sam-{segany.__version__}"]
    segany.load("sam_vit_b", runtime="onnx")
    assert len(made) == 2


def test_an_export_reports_its_progress(made: list[Path]) -> None:
    told: list[ProgressEvent] = []
    for _ in range(2):
        segany.load("mobile_sam", runtime="onnx", progress=told.append)
    assert told == [ProgressEvent("exporting", 0, 1, "files")]  # once


def test_an_export_that_can_no_longer_be_read_is_made_anew(made: list[Path]) -> None:
    segany.load("mobile_sam", runtime="onnx")
    path = made[0] / "manifest.json"
    manifest = json.loads(path.read_text())
    files = {key: value for key, value in manifest["files"].items() if key != "proposals"}
    for older in (manifest | {"files": files}, manifest | {"format_version": FORMAT_VERSION - 1}):
        path.write_text(json.dumps(older))
        made.clear()
        segany.load("mobile_sam", runtime="onnx")
        assert len(made) == 1


def test_a_cached_file_that_is_damaged_says_how_to_replace_it(made: list[Path]) -> None:
    segany.load("mobile_sam", runtime="onnx")
    (made[0] / "encoder.onnx").write_bytes(b"torn")
    with pytest.raises(ExportError, match=f"segany export small --out {made[0]}"):
        segany.load("mobile_sam", runtime="onnx")


def test_a_cache_that_cannot_be_written_says_so(made: list[Path], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ExportError, match=r"cannot be kept at .*SEGANY_CACHE to another directory"):
        segany.load("mobile_sam", runtime="onnx")
    assert made == []


@pytest.mark.slow
@pytest.mark.weights
def test_the_real_model_runs_by_name(mobile_sam_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGANY_CACHE", str(tmp_path))
    weights = tmp_path / "weights" / "mobile_sam"
    weights.mkdir(parents=True)
    (weights / mobile_sam_path.name).symlink_to(mobile_sam_path)
    model = segany.load("mobile_sam", runtime="onnx")
    assert model.manifest.mean_iou == pytest.approx(1, abs=1e-3)
    stamp = (tmp_path / "exports").stat().st_mtime_ns
    again = segany.load("mobile_sam", runtime="openvino-bf16")
    assert again.encoder_id == f"{model.encoder_id}-bf16"
    assert (tmp_path / "exports").stat().st_mtime_ns == stamp
