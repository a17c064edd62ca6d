from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.export.exported import FAMILIES, SMALLEST, exported, small_model
from tests.models_for_tests import loaded, small_sam

import segany
from segany.core.errors import ConfigError, ExportError, OutputError
from segany.core.prompt import Prompt
from segany.export import check_export, to_onnx
from segany.export import onnx as module
from segany.export.check import scenes, tolerant_mask_iou
from segany.models.sam2.model import Sam2
from segany.models.sam2.tracking import ObjectMemory
from segany.runtime import OnnxModel, OpenVinoModel
from segany.runtime.manifest import ExportPrecision, Manifest
from segany.runtime.session import open_onnx


@pytest.mark.parametrize("family", FAMILIES)
def test_an_export_is_checked_for_every_kind_of_prompt(family: str) -> None:
    manifest = OnnxModel(exported(family)).manifest
    kinds = ["grid", "point", "several points", "box", "box and point", "mask and point", "mask"]
    assert [record.kind for record in manifest.checks] == kinds
    # Three of four points on three images; the single mask and the three.
    assert [record.masks for record in manifest.checks] == [36, *[12] * 6]
    assert min(record.min_iou for record in manifest.checks) >= 0.999
    assert manifest.encoder_id == small_model(family).encoder_id
    assert set(manifest.files) == {"encoder", "decoder", "shared_image", "proposals"} | (
        {"memory_encoder", "memory_attention"} if family == "sam2" else set()
    )
    points = next(tensor for tensor in manifest.files["decoder"].inputs if tensor.name == "points")
    assert points.shape == ["prompts", "points", 2]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("runtime", [OnnxModel, OpenVinoModel])
def test_predictors_use_a_runtime_as_they_use_torch(
    family: str, runtime: type[OnnxModel] | type[OpenVinoModel]
) -> None:
    image = scenes()[1]
    ours = segany.ImagePredictor(small_model(family))
    theirs = segany.ImagePredictor(runtime(exported(family)))
    embedding = theirs.embed(image)
    for one, other in zip(ours.embed(image).features, embedding.features, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3)
    mask = ours.predict(ours.embed(image), Prompt(points_xy=[[200, 130]])).low_res_logits[0, 0]
    prompts = [
        Prompt(points_xy=[[200, 130]]),
        *(Prompt(points_xy=[[x, 100]] * 3, labels=[1, 0, 1]) for x in range(20, 420, 40)),
        Prompt(box_xyxy=[100, 50, 300, 250]),
        Prompt(points_xy=[[200, 130]], mask_logits=mask),
        Prompt(mask_logits=mask),
    ]
    for mode in ("auto", "multi", "single"):
        expected = ours.predict(ours.embed(image), prompts, masks=mode)  # type: ignore[arg-type]
        found = theirs.predict(embedding, prompts, masks=mode, with_logits=True)  # type: ignore[arg-type]
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
        pairs = zip(
            found.masks.reshape(-1, *image.shape[:2]), expected.masks.reshape(-1, *image.shape[:2]), strict=True
        )
        assert min(tolerant_mask_iou(a, b) for a, b in pairs) > 0.99


def test_automatic_masks_are_those_of_torch() -> None:
    image = scenes()[2]
    everything = segany.AutomaticConfig(
        points_per_side=3, pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=1.0
    )
    ours = segany.AutomaticMaskGenerator(small_model("sam"), everything).generate(image)
    theirs = segany.AutomaticMaskGenerator(OnnxModel(exported("sam")), everything).generate(image)
    assert len(ours) == len(theirs) > 2
    for one in ours:
        other = max(theirs, key=lambda record: tolerant_mask_iou(record.mask, one.mask))
        assert tolerant_mask_iou(one.mask, other.mask) > 0.99
        assert one.predicted_iou == pytest.approx(other.predicted_iou, abs=1e-2)


@pytest.mark.slow
def test_candidates_are_chosen_at_the_call() -> None:
    model = OnnxModel(exported("sam2"))
    features = model.embed([scenes()[0]])[0]
    points, labels = np.full((5, 2, 2), 100.0, dtype=np.float32), np.tile([1, -1], (5, 1))
    every = model.decode(features, points, labels, candidates=(0, 1, 2, 3), size_hw=(33, 71))
    some = model.decode(features, points, labels, candidates=(2,))
    assert every["mask_logits_at_size"].shape == (5, 4, 33, 71)
    assert some["low_res"].shape == (5, 1, model.low_res_size, model.low_res_size)
    assert every["object_pointers"].shape == (5, 4, 256)
    np.testing.assert_allclose(every["low_res"][:, 2:3], some["low_res"], atol=1e-4)


@pytest.mark.slow
def test_an_unstable_single_mask_gives_way_to_the_best_of_three() -> None:
    model = small_model("sam2")
    runtime, random = OnnxModel(exported("sam2")), np.random.default_rng(0)
    features = model.embed([scenes()[0]])[0]
    points = random.uniform(0, 256, (40, 2, 2)).astype(np.float32)
    labels = np.tile([1, -1], (40, 1))
    expected, expected_iou = model.predict_low_res(features, points, labels, None, multimask=False)
    found, found_iou = runtime.predict_low_res(features, points, labels, None, multimask=False)
    np.testing.assert_allclose(found_iou, expected_iou, atol=1e-3)
    np.testing.assert_allclose(found, expected, atol=2e-2)
    multi, _ = runtime.predict_low_res(features, points, labels, None, multimask=True)
    is_one_of_three = np.abs(multi - found).max(axis=(2, 3)).min(axis=1) < 1e-4
    assert is_one_of_three.any()


def test_a_prompt_does_not_change_the_one_beside_it() -> None:
    model = OnnxModel(exported("sam"))
    features = model.embed([scenes()[0]])[0]
    points, labels = np.array([[[50, 60], [0, 0]], [[90, 20], [0, 0]]], dtype=np.float32), np.array([[1, -1], [0, -1]])
    masks = np.random.default_rng(0).normal(0, 5, (2, 64, 64)).astype(np.float32)
    both = model.decode(features, points, labels, masks, np.array([True, False]))
    alone = model.decode(features, points[:1], labels[:1], masks[:1])
    without = model.decode(features, points[1:], labels[1:])
    np.testing.assert_allclose(both["low_res"][:1], alone["low_res"], atol=1e-4)
    np.testing.assert_allclose(both["low_res"][1:], without["low_res"], atol=1e-4)
    assert np.abs(both["low_res"][:1] - model.decode(features, points[:1], labels[:1])["low_res"]).max() > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize(("memories", "pointers"), [(1, 0), (1, 1), (3, 5)])
def test_the_memory_of_sam2_runs_outside_torch(memories: int, pointers: int) -> None:
    torch_model, folder = small_model("sam2"), exported("sam2")
    model = torch_model.module
    assert isinstance(model, Sam2)
    torch.manual_seed(0)
    with torch.inference_mode():
        frame = model.encode_frame(torch_model.processor.tensor([scenes()[0]], model))
        masks, scores = torch.randn(memories, 64, 64) * 5, torch.linspace(-1, 1, memories)
        encoded = torch.cat(
            [model.encode_memory(frame, masks[i : i + 1], scores[i : i + 1], binarize=i == 1) for i in range(memories)]
        )
        known = torch.randn(pointers, 256)
        maskmem_tpos, pointer_tpos = tuple(range(memories)), tuple(0.1 * i for i in range(pointers))
        conditioned = model.attend_memory(
            frame, [ObjectMemory(tuple(encoded), maskmem_tpos, tuple(known), pointer_tpos)]
        )
    embedding = OnnxModel(folder).embed([scenes()[0]])[0][0][None]
    remembered = open_onnx(folder / "memory_encoder.onnx", None)(
        {
            "image_embedding": embedding,
            "low_res": masks.numpy(),
            "object_scores": scores.numpy(),
            "prompted": np.arange(memories) == 1,
        }
    )["memory"]
    np.testing.assert_allclose(remembered, encoded.numpy(), atol=2e-3)
    found = open_onnx(folder / "memory_attention.onnx", None)(
        {
            "image_embedding": embedding,
            "memories": remembered,
            "maskmem_tpos": np.array(maskmem_tpos),
            "pointers": known.numpy(),
            "pointer_tpos": np.array(pointer_tpos, dtype=np.float32),
        }
    )["conditioned"]
    np.testing.assert_allclose(found, conditioned.numpy(), atol=5e-3)


def test_the_check_repeats_and_finds_other_weights() -> None:
    assert check_export(small_model("sam"), exported("sam")).mean_iou == pytest.approx(1, abs=1e-3)
    other = small_sam()
    with pytest.raises(ExportError, match="other weights"):
        check_export(other, exported("sam"))


def test_an_export_that_makes_other_masks_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tmp_path / "before"
    shutil.copytree(exported("sam"), before)

    class OtherModel:
        def save(self, path: str, *, external_data: bool) -> None:
            assert not external_data
            shutil.copy(exported("sam") / Path(path).name, path)

    model = loaded(small_sam(replace(SMALLEST, encoder=replace(SMALLEST.encoder, width=64))))
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: OtherModel())
    with pytest.raises(ExportError, match=r"refused: masks of grid prompts"):
        to_onnx(model, before)
    assert [path.name for path in tmp_path.iterdir()] == ["before"]
    OnnxModel(before)  # the earlier export is whole


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="holds something else"):
        to_onnx(small_model("sam"), tmp_path)
    with pytest.raises(OutputError, match="is a file"):
        to_onnx(small_model("sam"), tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_manifest_of_something_else_is_no_export(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"manifest_version": 3, "name": "an extension", "files": {}}')
    with pytest.raises(OutputError, match=r"holds something else .*manifest\.json"):
        to_onnx(small_model("sam"), tmp_path)
    assert (tmp_path / "manifest.json").is_file()


def test_what_was_put_beside_an_export_is_not_lost(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    shutil.copytree(exported("sam"), folder)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds something else .*notes\.txt"):
        to_onnx(small_model("sam"), folder)
    assert (folder / "notes.txt").read_text() == "mine"


def test_an_earlier_export_is_replaced_where_a_link_leads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's random state and environment stay as they are."""
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    environment, state = dict(os.environ), torch.random.get_rng_state()
    folder, link = tmp_path / "disk" / "export", tmp_path / "link"
    shutil.copytree(exported("sam"), folder)
    before = json.loads((folder / "manifest.json").read_text())
    before["files"]["of_earlier_versions"] = before["files"].pop("proposals")  # what is no longer known is replaced too
    (folder / "manifest.json").write_text(json.dumps(before))
    link.symlink_to(folder)
    model = small_model("sam")
    torch.random.set_rng_state(state)
    to_onnx(model, link)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert dict(os.environ) == environment
    assert link.is_symlink()
    assert "of_earlier_versions" not in json.loads((folder / "manifest.json").read_text())["files"]
    assert segany.load(link).name == small_model("sam").name
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "link"}
    assert [path.name for path in folder.parent.iterdir()] == ["export"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int4"}, "precision must be"),
        ({"precision": "int8"}, "needs images to calibrate"),
        ({"opset": 11}, "opset must be at least 18"),
    ],
)
def test_wrong_options_say_so(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        to_onnx(small_model("sam"), tmp_path / "new", **options)  # type: ignore[arg-type]


def test_only_models_of_the_registry_are_exported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="A Linear cannot be exported"):
        to_onnx(torch.nn.Linear(1, 1), tmp_path / "new")  # type: ignore[arg-type]


@pytest.mark.slow
def test_half_precision_is_smaller_and_says_so(tmp_path: Path) -> None:
    manifest = to_onnx(small_model("mobile_sam"), tmp_path / "half", precision="fp16")
    sizes = [
        sum(file.stat().st_size for file in folder.glob("*.onnx"))
        for folder in (tmp_path / "half", exported("mobile_sam"))
    ]
    assert sizes[0] < 0.7 * sizes[1]
    assert min(record.mean_iou for record in manifest.checks) >= 0.99
    assert manifest.encoder_id == f"{small_model('mobile_sam').encoder_id}-fp16"


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_weights_that_are_too_many_for_one_file(
    precision: ExportPrecision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES_IN_ONE_FILE", 0)
    calibrate = scenes() if precision == "int8" else ()
    manifest = to_onnx(small_model("sam"), tmp_path / "export", precision=precision, calibrate=calibrate)
    record = manifest.files["encoder"]
    assert record.data == ("encoder.onnx.data" if precision == "fp32" else None)  # less precise, it fits
    OpenVinoModel(tmp_path / "export").embed([scenes()[0]])
    expected = {file.path for file in manifest.files.values()} | {record.data, "manifest.json"} - {None}
    assert {path.name for path in (tmp_path / "export").iterdir()} == expected


@pytest.mark.slow
def test_int8_is_measured_and_refused_below_the_limit(tmp_path: Path) -> None:
    images = [scene[:300, :300] for scene in scenes()]
    manifest = to_onnx(small_model("sam"), tmp_path / "int8", precision="int8", calibrate=images, min_iou=0.0)
    stored = json.loads((tmp_path / "int8" / "manifest.json").read_text())
    assert stored["mean_iou"] == manifest.mean_iou
    assert 0.9 < stored["mean_iou"] < 1
    encoder = manifest.files["encoder"].sha256
    assert manifest.encoder_id == f"{small_model('sam').encoder_id}-int8-{encoder[:8]}"
    with pytest.raises(ExportError, match="refused: in int8"):
        to_onnx(small_model("sam"), tmp_path / "refused", precision="int8", calibrate=images, min_iou=1.0)
    assert not (tmp_path / "refused").exists()


@pytest.mark.slow
def test_the_first_images_are_for_checking(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    images = [generator.integers(40 * index + 1, size=(64, 64, 3), dtype=np.uint8) for index in range(1, 6)]

    def export(*calibrate: np.ndarray) -> Manifest:
        return to_onnx(small_model("sam"), tmp_path / "int8", precision="int8", calibrate=calibrate, min_iou=0.0)

    two, three, five = export(*images[3:]), export(*images[:3]), export(*images)
    assert five.files["encoder"].sha256 == two.files["encoder"].sha256  # the first three are not used for calibration,
    assert export(*images[3:], images[0], *images[:3]).encoder_id == three.encoder_id  # unless there are no others
    assert three.encoder_id != two.encoder_id
    for manifest, count in ((two, 2), (three, 3), (five, 3)):
        points = next(record for record in manifest.checks if record.kind == "point")
        assert points.masks == 4 * (3 + count)
