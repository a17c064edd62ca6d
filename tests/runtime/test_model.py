from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.export.exported import exported

import segany
from segany.core.errors import ConfigError, ExportError, MissingExtraError
from segany.core.files import sha256_of
from segany.export.check import scenes
from segany.runtime import OnnxModel, OpenVinoModel
from segany.runtime import model as module
from segany.runtime.session import Session


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of an export, to be damaged."""
    return Path(shutil.copytree(exported("sam"), tmp_path / "export"))


def change(folder: Path, edit: Callable[[dict[str, object]], object]) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_a_folder_that_is_no_export(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="has no manifest"):
        segany.load(tmp_path)
    with pytest.raises(ExportError, match="There is no folder"):
        OnnxModel(tmp_path / "missing")


def test_a_manifest_that_is_damaged(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ExportError, match="is damaged"):
        segany.load(folder)


def test_a_manifest_of_a_later_version(folder: Path) -> None:
    change(folder, lambda content: content.update(format_version=9, novelty=1))
    with pytest.raises(ExportError, match="format version 9"):
        segany.load(folder)


def test_a_manifest_without_a_decoder(folder: Path) -> None:
    change(folder, lambda content: content["files"].pop("decoder"))  # type: ignore[attr-defined]
    with pytest.raises(ExportError, match="lists no decoder"):
        segany.load(folder)


def test_files_that_are_not_those_of_the_manifest(folder: Path) -> None:
    with (folder / "decoder.onnx").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ExportError, match=r"decoder\.onnx is not the file that was exported"):
        segany.load(folder)
    (folder / "decoder.onnx").unlink()
    with pytest.raises(ExportError, match=r"lacks decoder\.onnx"):
        segany.load(folder)


def test_a_manifest_does_not_lead_out_of_its_folder(folder: Path) -> None:
    change(folder, lambda content: content["files"]["decoder"].update(path="../export/decoder.onnx"))  # type: ignore[index]
    with pytest.raises(ExportError, match="lacks"):
        segany.load(folder)


@pytest.mark.parametrize("runtime", [OnnxModel, OpenVinoModel])
def test_a_file_that_the_runtime_cannot_run(folder: Path, runtime: type[OnnxModel]) -> None:
    import onnx

    path = folder / "decoder.onnx"
    model = onnx.load(str(path))
    model.opset_import[0].version = 999
    model.graph.node[0].op_type = "Sorcery"
    onnx.save(model, str(path))
    change(folder, lambda content: content["files"]["decoder"].update(sha256=sha256_of(path)))  # type: ignore[index]
    with pytest.raises(ExportError, match=r"cannot run .*decoder\.onnx.*lower --opset"):
        runtime(folder)


@pytest.mark.parametrize("runtime", ["onnx", "openvino", "openvino-bf16"])
def test_a_device_that_is_not_there(runtime: str) -> None:
    with pytest.raises(ConfigError, match="cannot use the device 'tpu'"):
        segany.load(exported("sam"), runtime=runtime, device="tpu")  # type: ignore[call-overload]


def test_a_runtime_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r'pip install "segany\[onnx\]"'):
        segany.load(exported("sam"))


def test_a_runtime_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="runtime must be"):
        segany.load("mobile_sam", runtime="tflite")  # type: ignore[call-overload]


def test_a_checkpoint_is_no_export(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    path.touch()
    with pytest.raises(ConfigError, match="segany export"):
        segany.load(path, runtime="onnx")
    with pytest.raises(ConfigError, match="are for PyTorch"):
        segany.load("mobile_sam", runtime="onnx", checkpoint=path)  # type: ignore[call-overload]


def test_without_torch_a_name_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    with pytest.raises(MissingExtraError, match=r'pip install "segany\[torch\]"'):
        segany.load("mobile_sam")
    monkeypatch.setenv("SEGANY_CACHE", "/nonexistent")
    with pytest.raises(MissingExtraError, match="segany export mobile_sam --out"):
        segany.load("mobile_sam", runtime="onnx")


def test_videos_want_torch() -> None:
    with pytest.raises(ConfigError, match="works on single images here"):
        segany.VideoPredictor(segany.load(exported("sam")))  # type: ignore[arg-type]


def test_bf16_makes_embeddings_of_its_own() -> None:
    assert OpenVinoModel(exported("sam"), arithmetic="bf16").encoder_id.endswith("-bf16")
    with pytest.raises(ConfigError, match="arithmetic must be"):
        OpenVinoModel(exported("sam"), arithmetic="int4")  # type: ignore[arg-type]


def test_in_bf16_the_encoder_alone_is_less_precise(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: dict[str, str] = {}

    def open_openvino(path: Path, device: str | None, precision: str) -> Session:
        opened[path.stem] = precision
        return lambda _: {}

    monkeypatch.setattr(module, "open_openvino", open_openvino)
    model = OpenVinoModel(exported("sam"), arithmetic="bf16")
    model.open("proposals")
    assert opened == {"encoder": "bf16", "decoder": "f32", "proposals": "f32"}


@pytest.mark.parametrize("runtime", [OnnxModel, OpenVinoModel])
def test_threads_may_share_a_model(runtime: type[OnnxModel] | type[OpenVinoModel]) -> None:
    model, images = runtime(exported("sam")), [np.roll(scenes()[0], 60 * step, axis=1) for step in range(6)]
    points, labels = np.full((5, 2, 2), 100, dtype=np.float32), np.tile([1, -1], (5, 1))

    def masks(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features = model.embed([image])[0]
        some = [found.low_res for found in model.propose(features, points, labels, -np.inf)]
        return model.predict_low_res(features, points, labels, None, multimask=True)[0], np.concatenate(some)

    with ThreadPoolExecutor(4) as threads:  # before any other call: what is opened late is opened by several
        together = list(threads.map(masks, images * 2))
    for found, expected in zip(together, [masks(image) for image in images] * 2, strict=True):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


WITHOUT_TORCH = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, Blocker())
import numpy as np, segany
folder, image = sys.argv[1:]
model = segany.load(folder)
predictor = segany.ImagePredictor(model)
prompts = [segany.Prompt(points_xy=[[90, 80]]), segany.Prompt(box_xyxy=[9, 9, 80, 90])]
prediction = predictor.predict(predictor.embed(image), prompts)
config = segany.AutomaticConfig(points_per_side=3, pred_iou_thresh=0.0, stability_score_thresh=0.0)
records = segany.AutomaticMaskGenerator(model, config).generate(image)
print(prediction.masks.sum(), len(records), "torch" in sys.modules)
for use in ("segany.VideoPredictor", "segany.load()", "__import__('segany.export')"):
    try:
        eval(use)
    except segany.MissingExtraError as error:
        assert "segany[torch]" in str(error)
    else:
        raise AssertionError(use)
from segany.cli.app import app
app(["segment", image, "--point", "90,80", "--model", folder, "--out", folder + "-out"], standalone_mode=False)
"""


@pytest.mark.parametrize("family", ["sam", pytest.param("sam2", marks=pytest.mark.slow)])
def test_everything_runs_without_torch(family: str, tmp_path: Path) -> None:
    image = tmp_path / "scene.png"
    Image.fromarray(scenes()[1]).save(image)
    folder = shutil.copytree(exported(family), tmp_path / "export")
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT_TORCH, str(folder), str(image)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    area, records, torch_was_there = result.stdout.split()[:3]
    assert torch_was_there == "False"
    assert int(records) > 0
    predictor = segany.ImagePredictor(segany.load(exported(family)))
    prompts = [segany.Prompt(points_xy=[[90, 80]]), segany.Prompt(box_xyxy=[9, 9, 80, 90])]
    here = predictor.predict(predictor.embed(image), prompts).masks.sum()
    assert abs(int(area) - int(here)) <= 0.001 * int(here) + 10
    assert list((tmp_path / "export-out").iterdir())
