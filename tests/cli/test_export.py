from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.export.exported import exported, small_model
from typer.testing import CliRunner

import segany
import segany.export
from segany.cli.app import app
from segany.runtime.manifest import read_manifest


@pytest.fixture(autouse=True)
def _small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    load = segany.load

    def small(model: str, **options: Any) -> Any:
        return small_model("sam") if model in ("mobile_sam", "small") else load(model, **options)

    monkeypatch.setattr(segany, "load", small)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_options_arrive_and_the_checks_are_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[dict[str, Any]] = []

    def to_onnx(model: object, folder: Path, **options: Any) -> Any:
        calls.append({"model": model, "folder": folder, **options})
        return read_manifest(exported("sam"))

    monkeypatch.setattr(segany.export, "to_onnx", to_onnx)
    result = run("mobile_sam", "--out", tmp_path / "onnx", "--precision", "fp16", "--opset", 21)
    assert result.exit_code == 0, result.output
    assert calls[0]["precision"] == "fp16"
    assert calls[0]["opset"] == 21
    assert calls[0]["folder"] == tmp_path / "onnx"
    assert "several points" in result.stdout
    assert str(tmp_path / "onnx" / "decoder.onnx") in result.stdout


def test_a_folder_is_checked_again() -> None:
    result = run("small", "--check", exported("sam"))
    assert result.exit_code == 0, result.output
    assert "1.0000" in result.stdout


def test_what_is_wrong_is_said_in_a_line(tmp_path: Path) -> None:
    for arguments, message in (
        ((), "Give the model and the folder"),
        (("--check", tmp_path), "is no exported model"),
        (("--check", exported("sam")), "was exported from a checkpoint"),
        (("mobile_sam", "--out", tmp_path / "new", "--precision", "int8"), "needs images to calibrate"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2
        assert message in result.output
        assert not (tmp_path / "new").exists()
